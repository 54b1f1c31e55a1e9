"""A line of the journal as the database takes it: one row for the request, one more for each attempt that cost money without being the reply.

Law: pure. Lines are of this gateway's version or of another's: what is missing has its default, what is unknown is left out. Numbers that
no database column holds make a line unreadable; a NUL in a text, which PostgreSQL does not take, becomes U+FFFD.
"""

from __future__ import annotations

from calendar import timegm
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, lt=2**62)]
Real = Annotated[float, Meta(ge=-1e15, le=1e15)]
Row = dict[str, Any]
TEXTS = (
    "request_id", "tenant", "project", "user", "key_id", "key", "session", "peer", "method", "route", "outcome", "error", "finish", "model",
    "provider", "upstream_model", "upstream_key", "upstream_id", "tier", "prices",
)  # fmt: skip
SAME = (
    "status", "ms", "upstream_ms", "first_token_ms", "bytes_in", "bytes_out", "input", "output", "cache_read", "cache_write_1h", "reasoning",
    "audio_input", "audio_output", "image_input", "image_output", "accepted_prediction", "rejected_prediction", "searches", "stream", "estimated",
    "cached", "saved", "fallbacks",
)  # fmt: skip
_ZEROS: Row = {
    **dict.fromkeys(TEXTS, ""),
    **dict.fromkeys(SAME, 0),
    "stream": False, "estimated": False, "cached": False, "saved": None, "cost": None, "attempts": 0, "cache_write_5m": 0, "parent": "", "tags": "",
}  # fmt: skip


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
    return rows(_decode(line))


def rows(line: Line) -> list[Row]:
    """`cost` of a line holds what its lost attempts cost; here each row has its own, so that sums come out right. A line without a tenant
    is the audit log's: somebody was refused, and nothing used."""
    if line.tenant is None:
        return []
    at = moment(line.ts)
    lost = [(number, each) for number, each in enumerate(line.attempts) if each.cost]
    absorbed = sum(each.cost for _, each in lost)
    row: Row = {name: _text(getattr(line, name)) for name in TEXTS}
    for name in SAME:
        row[name] = getattr(line, name)
    row |= {
        "id": line.id, "at": at, "parent": "", "tags": ",".join(map(_text, line.tags)), "attempts": max(1, len(line.attempts)) if line.provider else 0,
        "cost": None if line.cost is None else max(0, line.cost - absorbed), "cache_write_5m": max(0, line.cache_write - line.cache_write_1h),
    }  # fmt: skip
    return [row, *(_lost(row, number, each, line.prices) for number, each in lost)]


def _lost(request: Row, number: int, attempt: Attempt, prices: str) -> Row:
    own = {name: request[name] for name in ("at", "request_id", "tenant", "project", "user", "key_id", "key", "session", "tags", "peer", "method")}
    return {
        **_ZEROS, **own, "id": f"{request['id']}.{number}", "parent": request["id"], "route": request["route"], "stream": request["stream"],
        "model": request["model"], "provider": _text(attempt.provider), "upstream_model": _text(attempt.model), "upstream_key": _text(attempt.key),
        "outcome": _text(attempt.outcome), "status": attempt.status, "ms": attempt.ms, "upstream_ms": attempt.ms, "input": attempt.input,
        "output": attempt.output, "cost": attempt.cost, "estimated": attempt.estimated, "attempts": 1, "prices": _text(prices),
    }  # fmt: skip


def moment(ts: str) -> int:
    """RFC 3339 in UTC with milliseconds -> Unix milliseconds. Raises ValueError."""
    try:
        date, clock, rest = (ts[0:4], ts[5:7], ts[8:10]), (ts[11:13], ts[14:16], ts[17:19]), ts[20:23]
        if len(ts) != 24 or ts[10] != "T" or ts[19] != "." or ts[23] != "Z":
            raise ValueError
        return timegm((*map(int, date), *map(int, clock))) * 1000 + int(rest)
    except (ValueError, OverflowError):
        raise ValueError(f"no time: {ts[:40]!r}") from None


def _text(value: str | None) -> str:
    if value is None:
        return ""
    return value.replace("\0", "\ufffd") if "\0" in value else value
