"""Lines of the journal as the database takes them: a row for each request, one more for each attempt that cost money without being the reply.

Law: pure. Lines are of this gateway's version or of another's: what is missing has its default, what is unknown is left out. Numbers that
no database column holds make a line unreadable; a NUL in a text, which PostgreSQL does not take, becomes U+FFFD.

Rows are kept by column, since that is how they are cheap: a column that nobody used is left out, and each of the others is made, looked through
and added up by one call for thousands of rows.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple, replace

Count = Annotated[int, Meta(ge=0, lt=2**62)]
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
Column = Sequence[Any]
AT_ONCE = 250  # lines
NUL = b"\\u0000"  # as JSON has it


class Rows(Struct, frozen=True):
    """Of the table `usage`, by column: name -> its value in each row. What is left out has its default in all of them: "", 0, false, no cost."""

    count: int
    columns: dict[str, Column]

    def some(self, chosen: Sequence[bool]) -> Rows:
        """Those of which `chosen` says so."""
        return Rows(sum(chosen), {name: tuple(compress(values, chosen)) for name, values in self.columns.items()})


class Attempt(Struct, frozen=True, gc=False):
    provider: str
    model: str
    key: str
    outcome: str
    status: Annotated[int, Meta(ge=0, le=9999)] = 0
    ms: Real = 0.0
    input: Count = 0
    output: Count = 0
    cost: Count = 0
    estimated: bool = False


class Line(Struct, frozen=True, gc=False):
    """As accounting/ledger.py writes it, and in that order, in which msgspec finds its fields fastest."""

    ts: str
    id: Annotated[str, Meta(min_length=1, max_length=200)]
    request_id: str = ""
    tenant: str | None = None
    key: str | None = None
    peer: str = ""
    method: str = ""
    route: str = ""
    status: Annotated[int, Meta(ge=0, le=9999)] = 0
    ms: Real = 0.0
    bytes_in: Count = 0
    bytes_out: Count = 0
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    upstream_key: str = ""
    upstream_id: str = ""
    stream: bool = False
    outcome: str = "ok"
    error: str | None = None
    finish: str | None = None
    upstream_ms: Real = 0.0
    first_token_ms: Real = 0.0
    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0
    reasoning: Count = 0
    estimated: bool = False
    cost: Count | None = None
    attempts: tuple[Attempt, ...] = ()
    fallbacks: Annotated[int, Meta(ge=0, le=10_000)] = 0
    project: str = ""
    user: str = ""
    key_id: str = ""
    prices: str = ""
    cache_write_1h: Count = 0
    audio_input: Count = 0
    audio_output: Count = 0
    image_input: Count = 0
    image_output: Count = 0
    accepted_prediction: Count = 0
    rejected_prediction: Count = 0
    searches: Count = 0
    tier: str | None = None
    cached: bool = False
    saved: Count | None = None
    tags: tuple[str, ...] = ()
    session: str = ""
    more: int = 0  # of nobody's lines alone


# How columns come from a line's fields. What stands in none of these is worked out in `tabulate`.
_AS_THEY_ARE = (
    "id", "request_id", "tenant", "project", "user", "key_id", "session", "peer", "method", "route", "status", "outcome", "model", "provider",
    "upstream_model", "upstream_key", "upstream_id", "prices", "ms", "upstream_ms", "first_token_ms", "bytes_in", "bytes_out", "input", "output",
    "cache_read", "cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input", "image_output", "accepted_prediction",
    "rejected_prediction", "searches", "stream", "estimated", "cached", "fallbacks",
)  # fmt: skip
_OR_NOTHING = ("key", "error", "finish", "tier")
_UNKNOWN_OR_COUNTED = ("cost", "saved")
_attempts = attrgetter("attempts")
_decode = msgspec.json.Decoder(Line).decode


def decode(lines: list[bytes]) -> tuple[Rows, dict[int, str]]:
    """And what is wrong with those that cannot be read, by their number."""
    refused: dict[int, str] = {}
    try:
        rows = tabulate(_some(lines))
    except ValueError:  # msgspec's are too
        read, refused = _readable(lines)
        rows = tabulate([read])
    return (_clean(rows) if _has_nul(b"".join(lines)) else rows), refused


def _some(lines: list[bytes]) -> Iterator[list[Line]]:
    """As many at once as a processor's cache holds beside their columns: a fifth less time than all of them."""
    for begin in range(0, len(lines), AT_ONCE):
        yield list(map(_decode, lines[begin : begin + AT_ONCE]))


def _has_nul(data: bytes) -> bool:
    return b"\\" in data and NUL in data  # a single byte is found thirty times as fast


def _readable(lines: list[bytes]) -> tuple[list[Line], dict[int, str]]:
    read: list[Line] = []
    refused: dict[int, str] = {}
    for number, each in enumerate(lines):
        try:
            line = _decode(each)
            moment(line.ts)
            read.append(line)
        except ValueError as error:
            refused[number] = str(error)
    return read, refused


def tabulate(several: Iterable[list[Line]]) -> Rows:
    """A line without a tenant is the audit log's: somebody was refused, and nothing used. ValueError: one has no time."""
    fields: tuple[list[Any], ...] = tuple([] for _ in Line.__struct_fields__)
    parents: list[str] = []
    for each in several:
        lines, parents_ = _with_attempts([line for line in each if line.tenant is not None])
        for field, values in zip(fields, zip(*map(astuple, lines), strict=True), strict=False):  # no values if there are no lines
            field += values  # noqa: PLW2901
        parents += parents_
    return _columns(dict(zip(Line.__struct_fields__, fields, strict=True)), parents)


def _columns(said: dict[str, list[Any]], parents: list[str]) -> Rows:
    count = len(parents)
    if not count:
        return Rows(0, {})
    columns: dict[str, Column] = {name: said[name] for name in _AS_THEY_ARE if any(said[name])}
    columns |= {name: [value or "" for value in said[name]] for name in _OR_NOTHING if any(said[name])}
    columns |= {name: said[name] for name in _UNKNOWN_OR_COUNTED if said[name].count(None) < count}
    columns["at"] = list(map(moment, said["ts"]))
    asked = zip(said["provider"], said["attempts"], said["cached"], strict=True)
    columns["attempts"] = [(len(tries) or int(not cached)) if provider else 0 for provider, tries, cached in asked]
    if any(said["tags"]):
        columns["tags"] = list(map(",".join, said["tags"]))
    if any(said["cache_write"]):
        columns["cache_write_5m"] = [max(0, both - hour) for both, hour in zip(said["cache_write"], said["cache_write_1h"], strict=True)]
    if any(parents):
        columns["parent"] = parents
    return Rows(count, columns)


def _with_attempts(lines: list[Line]) -> tuple[list[Line], list[str]]:
    """`cost` of a line holds what its lost attempts cost; here each has its own, so that sums come out right. Behind the requests stand the
    attempts that cost something; beside all, the ids of the requests that they were made for ("": a request)."""
    none = [""] * len(lines)
    if not any(map(_attempts, lines)):
        return lines, none
    requests, lost, parents = [], [], []
    for line in lines:
        paid = [(number, each) for number, each in enumerate(line.attempts) if each.cost]
        lost += [_lost(line, number, each) for number, each in paid]
        parents += [line.id] * len(paid)
        if paid and line.cost is not None:
            line = replace(line, cost=max(0, line.cost - sum([each.cost for _, each in paid])))  # noqa: PLW2901
        requests.append(line)
    return requests + lost, none + parents


def _lost(request: Line, number: int, attempt: Attempt) -> Line:
    return Line(
        ts=request.ts, id=f"{request.id}.{number}", request_id=request.request_id, tenant=request.tenant, project=request.project,
        user=request.user, key_id=request.key_id, key=request.key, tags=request.tags, peer=request.peer, method=request.method,
        route=request.route, stream=request.stream, model=request.model, provider=attempt.provider, upstream_model=attempt.model,
        upstream_key=attempt.key, outcome=attempt.outcome, status=attempt.status, ms=attempt.ms, upstream_ms=attempt.ms,
        input=attempt.input, output=attempt.output, cost=attempt.cost, estimated=attempt.estimated, prices=request.prices,
    )  # fmt: skip


def moment(ts: str) -> int:
    """RFC 3339 in UTC with milliseconds -> Unix milliseconds. Raises ValueError."""
    try:
        return _second(ts[:20]) + _milliseconds(ts[20:])
    except (ValueError, OverflowError):
        raise ValueError(f"no time: {ts[:40]!r}") from None


@lru_cache(64)
def _second(ts: str) -> int:
    """The same for thousands of lines, one after another."""
    if len(ts) != 20 or ts[10] != "T" or ts[19] != ".":
        raise ValueError
    return timegm((int(ts[0:4]), int(ts[5:7]), int(ts[8:10]), int(ts[11:13]), int(ts[14:16]), int(ts[17:19]))) * 1000


@lru_cache(1000)
def _milliseconds(ts: str) -> int:
    if len(ts) != 4 or not ts[:3].isdecimal() or ts[3] != "Z":
        raise ValueError
    return int(ts[:3])


def _clean(rows: Rows) -> Rows:
    cleaned: dict[str, Column] = {}
    for name, column in rows.columns.items():
        cleaned[name] = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in column]
    return Rows(rows.count, cleaned)
