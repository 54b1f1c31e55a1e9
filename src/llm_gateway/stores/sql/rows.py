"""A line of the journal as the database takes it: one row for the request, one more for each attempt that cost money without being the reply.

Law: pure. Lines are of this gateway's version or of another's: what is missing has its default, what is unknown is left out. Numbers that
no database column holds make a line unreadable; a NUL in a text, which PostgreSQL does not take, becomes U+FFFD.
"""

from __future__ import annotations

from calendar import timegm
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

Count = Annotated[int, Meta(ge=0, lt=2**62)]
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
NUL = b"\\u0000"  # as JSON has it


class Row(Struct, frozen=True, gc=False):
    """The columns of the table `usage`, in its order."""

    id: str
    at: int
    parent: str = ""
    request_id: str = ""
    tenant: str = ""
    project: str = ""
    user: str = ""
    key_id: str = ""
    key: str = ""
    session: str = ""
    tags: str = ""
    peer: str = ""
    method: str = ""
    route: str = ""
    status: int = 0
    outcome: str = ""
    error: str = ""
    finish: str = ""
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    upstream_key: str = ""
    upstream_id: str = ""
    tier: str = ""
    prices: str = ""
    ms: float = 0.0
    upstream_ms: float = 0.0
    first_token_ms: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    accepted_prediction: int = 0
    rejected_prediction: int = 0
    searches: int = 0
    cost: int | None = None
    saved: int | None = None
    stream: bool = False
    estimated: bool = False
    cached: bool = False
    attempts: int = 0
    fallbacks: int = 0


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


class Line(Struct, frozen=True):
    """As accounting/ledger.py writes it."""

    ts: str
    id: Annotated[str, Meta(min_length=1, max_length=200)]
    request_id: str = ""
    tenant: str | None = None
    project: str = ""
    user: str = ""
    key_id: str = ""
    key: str | None = None
    session: str = ""
    tags: tuple[str, ...] = ()
    peer: str = ""
    method: str = ""
    route: str = ""
    status: Annotated[int, Meta(ge=0, le=9999)] = 0
    outcome: str = "ok"
    error: str | None = None
    finish: str | None = None
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    upstream_key: str = ""
    upstream_id: str = ""
    tier: str | None = None
    prices: str = ""
    ms: Real = 0.0
    upstream_ms: Real = 0.0
    first_token_ms: Real = 0.0
    bytes_in: Count = 0
    bytes_out: Count = 0
    input: Count = 0
    output: Count = 0
    cache_read: Count = 0
    cache_write: Count = 0
    cache_write_1h: Count = 0
    reasoning: Count = 0
    audio_input: Count = 0
    audio_output: Count = 0
    image_input: Count = 0
    image_output: Count = 0
    accepted_prediction: Count = 0
    rejected_prediction: Count = 0
    searches: Count = 0
    stream: bool = False
    estimated: bool = False
    cached: bool = False
    cost: Count | None = None
    saved: Count | None = None
    attempts: tuple[Attempt, ...] = ()
    fallbacks: Annotated[int, Meta(ge=0, le=10_000)] = 0
    more: int = 0  # of nobody's lines alone


_decode = msgspec.json.Decoder(Line).decode


def decode(line: bytes) -> list[Row]:
    """The request's row first. Raises ValueError, with what is wrong."""
    made = rows(_decode(line))
    return list(map(_clean, made)) if NUL in line else made


def rows(line: Line) -> list[Row]:
    """`cost` of a line holds what its lost attempts cost; here each row has its own, so that sums come out right. A line without a tenant
    is the audit log's: somebody was refused, and nothing used."""
    if line.tenant is None:
        return []
    attempts, cost = line.attempts, line.cost
    lost = [(number, each) for number, each in enumerate(attempts) if each.cost] if attempts else []
    if lost and cost is not None:
        cost = max(0, cost - sum(each.cost for _, each in lost))
    row = Row(  # by position: three times as fast as by name
        line.id, moment(line.ts), "", line.request_id, line.tenant, line.project, line.user, line.key_id, line.key or "", line.session,
        ",".join(line.tags), line.peer, line.method, line.route, line.status, line.outcome, line.error or "", line.finish or "", line.model,
        line.provider, line.upstream_model, line.upstream_key, line.upstream_id, line.tier or "", line.prices, line.ms, line.upstream_ms,
        line.first_token_ms, line.bytes_in, line.bytes_out, line.input, line.output, line.cache_read, max(0, line.cache_write - line.cache_write_1h),
        line.cache_write_1h, line.reasoning, line.audio_input, line.audio_output, line.image_input, line.image_output, line.accepted_prediction,
        line.rejected_prediction, line.searches, cost, line.saved, line.stream, line.estimated, line.cached,
        max(1, len(attempts)) if line.provider else 0, line.fallbacks,
    )  # fmt: skip
    return [row, *(_lost(row, number, each) for number, each in lost)] if lost else [row]


def _lost(request: Row, number: int, attempt: Attempt) -> Row:
    return Row(
        id=f"{request.id}.{number}", at=request.at, parent=request.id, request_id=request.request_id, tenant=request.tenant,
        project=request.project, user=request.user, key_id=request.key_id, key=request.key, session=request.session, tags=request.tags,
        peer=request.peer, method=request.method, route=request.route, stream=request.stream, model=request.model, provider=attempt.provider,
        upstream_model=attempt.model, upstream_key=attempt.key, outcome=attempt.outcome, status=attempt.status, ms=attempt.ms,
        upstream_ms=attempt.ms, input=attempt.input, output=attempt.output, cost=attempt.cost, estimated=attempt.estimated, attempts=1,
        prices=request.prices,
    )  # fmt: skip


def moment(ts: str) -> int:
    """RFC 3339 in UTC with milliseconds -> Unix milliseconds. Raises ValueError."""
    try:
        if len(ts) != 24 or ts[19] != "." or ts[23] != "Z":
            raise ValueError
        return _second(ts[:19]) + int(ts[20:23])
    except (ValueError, OverflowError):
        raise ValueError(f"no time: {ts[:40]!r}") from None


@lru_cache(64)
def _second(ts: str) -> int:
    """The same for thousands of lines, one after another."""
    if ts[10] != "T":
        raise ValueError
    return timegm((int(ts[0:4]), int(ts[5:7]), int(ts[8:10]), int(ts[11:13]), int(ts[14:16]), int(ts[17:19]))) * 1000


def _clean(row: Row) -> Row:
    return replace(row, **{name: value.replace("\0", "\ufffd") for name, value in asdict(row).items() if isinstance(value, str)})
