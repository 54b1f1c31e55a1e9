"""Settles every exchange exactly once, and lets go of a reply's last bytes only when its usage row is in the journal.

Law: `settle` is called for every exchange, whatever became of it; a second call does nothing. What ended in one
loop tick is booked together: rows, one journal write, then the held bytes, then one log write. So a client that holds
a complete reply has exactly one row, also after kill -9 (a client without one may have a row: it was billed, rightly).

The access-log line is the usage row with a head of its own: one encoding, two destinations.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from time import gmtime, perf_counter, strftime
from typing import Protocol

import msgspec
from msgspec import Struct

from llm_gateway.accounting.estimate import estimate, prompt_tokens
from llm_gateway.accounting.journal import Journal
from llm_gateway.core.errors import Kind
from llm_gateway.core.exchange import SHADOW, Attempt, Exchange
from llm_gateway.core.types import Usage
from llm_gateway.telemetry.access import AccessLog
from llm_gateway.telemetry.metrics import Metrics, TargetMeter

LOG_HEAD = b'{"level":"info","event":"request",'

_encode = msgspec.json.Encoder().encode


class Row(Struct, omit_defaults=True):
    """One request, settled; without a tenant, one that was refused for want of a good key, and `more` like it before. Times in
    milliseconds, `cost` and `saved` in nano-USD (absent: unpriced, not from the cache), `ts` UTC. `key` is the key's name, `key_id` its
    own for ever. `prices`: whose prices `cost` is by. `tags`: sorted, each once."""

    ts: str
    id: str
    request_id: str
    tenant: str | None
    key: str | None
    peer: str
    method: str
    route: str
    status: int
    ms: float
    bytes_in: int
    bytes_out: int
    model: str = ""
    provider: str = ""
    upstream_model: str = ""
    upstream_key: str = ""
    upstream_id: str = ""
    stream: bool = False
    outcome: str = "ok"
    error: str | None = None
    finish: str | None = None
    upstream_ms: float = 0.0
    first_token_ms: float = 0.0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost: int | None = None
    attempts: list[Attempt] = []
    fallbacks: int = 0
    project: str = ""
    user: str = ""
    key_id: str = ""
    prices: str = ""
    cache_write_1h: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    accepted_prediction: int = 0
    rejected_prediction: int = 0
    searches: int = 0
    tier: str | None = None
    cached: bool = False
    saved: int | None = None
    tags: list[str] = []
    session: str = ""
    more: int = 0


class Somebody(Struct, frozen=True):
    """Stands in a row's place for a principal or a target that there was none of."""

    tenant: str | None = None
    key: str | None = None
    provider: str = ""
    model: str = ""
    key_id: str = ""
    id: str = ""
    project: str = ""
    user: str = ""
    prices: str = ""


NOBODY = NOWHERE = Somebody()
NOTHING = Usage()
REFUSED = frozenset({Kind.UNAUTHENTICATED, Kind.FORBIDDEN})
MOST_REFUSED = 100  # rows a second
TAGS, SESSION = b"x-gateway-tags", b"x-gateway-session"
LONGEST_SESSION = 128
LONGEST_ERROR, LONGEST_FINISH = 4096, 128  # of what may repeat a client's words, or an upstream's
MOST_TAGS, LONGEST_TAG = 32, 64
LONGEST_TAGS = 2200  # bytes of all of them as a database has them, whose indexes hold no more than 2,700: as many of the longest in ASCII
CHAT = "chat"  # what of a stream cut short can be estimated from text


class Target(Protocol):
    """What accounting reads of a routing target."""

    provider: str
    model: str
    key_id: str
    meter: TargetMeter
    prices: str

    def price(self, usage: Usage, now: float) -> int | None: ...


class Ledger:
    def __init__(
        self, loop: asyncio.AbstractEventLoop, journal: Journal, log: AccessLog | None, metrics: Metrics
    ) -> None:
        self.journal = journal
        self.log = log
        self.metrics = metrics
        self._call_soon = loop.call_soon
        self._ended: list[tuple[Exchange, bytes]] = []
        self._rows: list[bytes] = []
        self._lines: list[bytes] = []
        self._held: list[tuple[Exchange, bytes]] = []
        self._broken: list[tuple[Exchange, bytes]] = []
        self._due = False
        self._second = self._refused_at = -1
        self._refused = self._more = 0
        self._stamp = ""

    def settle(self, x: Exchange, last: bytes) -> None:
        """Books the exchange. last: the reply's held bytes; if it is `broken`, the reply is aborted after them."""
        if x.settled:
            return
        x.settled = True
        self._ended.append((x, last))
        if not self._due:
            self._due = True
            self._call_soon(self.flush)

    def _book(self, x: Exchange, last: bytes, now: float) -> None:
        seconds = now - x.started
        if x.usage is None and x.committed and x.stream and x.route.operation == CHAT:
            x.usage = estimate(x.prompt_estimate or prompt_tokens(x.body), x.characters, x.partial)
        if x.usage is not None and x.cost is None and x.target is not None:
            x.cost = x.target.price(x.usage, x.wall)
            if x.absorbed and x.cost is not None:
                x.cost += x.absorbed
        if x.hold is not None:
            x.hold.settle(x)
        self._count(x, seconds)
        row = self._row(x, seconds)
        recorded = x.principal is not None or (x.fault is not None and x.fault.kind in REFUSED and self._refusal(row))
        line = _encode(row) + b"\n"
        if recorded:
            self._rows.append(line)
        if self.log is not None:
            self._lines.append(LOG_HEAD + line[1:])
        (self._broken if x.broken else self._held).append((x, last))

    def flush(self) -> None:
        """The end of a tick: rows, the journal, then the held bytes, then the log. One step for all after another: a processor that does the same
        thing again has it at hand, which is a twentieth of a request's time."""
        self._due = False
        now = perf_counter()
        ended, self._ended = self._ended, []
        for x, last in ended:
            try:
                self._book(x, last, now)
            except Exception as error:  # noqa: BLE001  a bug of ours: what could not be booked is not given, and nobody is left waiting
                traceback.print_exception(error, file=sys.stderr)
                x.client.abort(x)
        if self._rows:
            rows, self._rows = self._rows, []
            self.journal.write(rows)
        held, self._held = self._held, []
        for x, last in held:
            x.client.finish(x, last)
        if self._broken:
            broken, self._broken = self._broken, []
            for x, last in broken:
                x.client.send(last)
                x.client.abort(x)
        if self._lines and self.log is not None:
            lines, self._lines = self._lines, []
            self.log.write(lines)

    def _refusal(self, row: Row) -> bool:
        """Whether a refused authentication gets its row, for the audit log: a flood of them must not fill the disk."""
        if self._second != self._refused_at:
            self._refused_at, self._refused = self._second, 0
        self._refused += 1
        if self._refused > MOST_REFUSED:
            self._more += 1
            return False
        row.more, self._more = self._more, 0
        return True

    def _count(self, x: Exchange, seconds: float) -> None:
        metrics = self.metrics
        if x.route.label != SHADOW:  # no client asked for a copy, and none was refused if it fails
            metrics.request(x.route.label, x.method, x.status, seconds)
        target: Target | None = x.target
        if target is None:
            return
        if x.usage is not None:
            target.meter.spend(x.usage, x.cost)
        if x.fallbacks:
            metrics.fallbacks += 1
        if x.first_byte:
            target.meter.first_token.observe(x.first_byte - x.started)
        elif x.upstream_ms and x.tries == 1:  # with retries, the time between them is nobody's overhead
            metrics.overhead.observe(max(0.0, seconds - x.upstream_ms / 1e3))

    def _row(self, x: Exchange, seconds: float) -> Row:
        principal, usage, target, fault = x.principal or NOBODY, x.usage or NOTHING, x.target or NOWHERE, x.fault
        row = Row(  # by position, in one call: 3 us less than naming and setting its fields
            self._time(x.wall), x.id, x.request_id, principal.tenant, principal.key, x.peer, x.method.decode("latin-1"),
            x.route.label, x.status, int(seconds * 1e6) / 1e3, x.bytes_in, x.bytes_out, x.model, target.provider,
            target.model, target.key_id, x.upstream_id, x.stream, "ok", None, x.finish and x.finish[:LONGEST_FINISH], int(x.upstream_ms * 1e3) / 1e3,
            int((x.first_byte - x.started) * 1e6) / 1e3 if x.first_byte else 0.0, usage.input, usage.output, usage.cache_read,
            usage.cache_write_5m + usage.cache_write_1h, usage.reasoning, usage.estimated, x.cost, x.attempts, x.fallbacks,
            principal.project, principal.user, principal.id, target.prices, usage.cache_write_1h, usage.audio_input, usage.audio_output,
            usage.image_input, usage.image_output, usage.accepted_prediction, usage.rejected_prediction, usage.searches, usage.tier,
        )  # fmt: skip
        if x.cached:
            row.cached, row.saved = True, x.saved
        headers = x.headers
        if TAGS in headers:
            row.tags = words(headers[TAGS])
        if SESSION in headers:
            row.session = headers[SESSION][:LONGEST_SESSION].decode("latin-1")
        if fault is not None:
            row.outcome, row.error = fault.code, fault.message[:LONGEST_ERROR]
        return row

    def _time(self, wall: float) -> str:
        """RFC 3339 with milliseconds; the second's text is kept, it is the same for thousands of requests."""
        second = int(wall)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return "%s.%03dZ" % (self._stamp, (wall - second) * 1000)  # noqa: UP031  a third of the f-string's time


def words(header: bytes) -> list[str]:
    """The tags of a header, whether or not routing had a reason to look at it: sorted, each once, no more and no longer than it allows."""
    found = {word.strip()[:LONGEST_TAG] for word in header.decode("latin-1").split(",")} - {""}
    kept = sorted(found)[:MOST_TAGS]
    while len(",".join(kept).encode()) > LONGEST_TAGS:
        kept.pop()
    return kept
