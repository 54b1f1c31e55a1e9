"""Requests with an `Idempotency-Key`: sent once, however often and by however many connections they are asked for (RELIABILITY.md).

Law: such a request outlives its client; within its deadline it runs to its end, is billed once and its reply is kept for `KEPT_SECONDS`. The
same key with the same body joins the one under way, or gets its reply; with another body it is refused. A failure is told to those who
wait and then forgotten, so that the next try is a new one. Keys are by tenant, API key and path. A reply over 1 MiB is not kept: asking for
it again is refused, and nothing is sent twice.

In one worker's memory; replies go first where there is no room, the keys themselves stay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from functools import partial
from hashlib import blake2b
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.detached import Detached
from llm_gateway.egress.slices import LARGE
from llm_gateway.egress.tape import Reply, Tape, play
from llm_gateway.stores.memory import Kept, Place
from llm_gateway.telemetry.metrics import TargetMeter

HEADER = b"idempotency-key"
KEPT_SECONDS = 24 * 3600.0
LONGEST = 255
MOST_KEYS = 200_000
REPLAYED = b"idempotent-replayed: true\r\n"

Outcome = Kept | Fault | None


class Run(Struct, eq=False):
    """Under way. `mark`: of its body."""

    mark: bytes
    waiting: list[asyncio.Future[Outcome]]


class Done(Struct, eq=False):
    """`kept` None: its reply was too long, or had to go."""

    mark: bytes
    until: float
    kept: Kept | None


class Once:
    """One per worker; outlives configurations. `room`: bytes of replies."""

    def __init__(self, room: int = 64 << 20) -> None:
        self.room = room
        self.bytes = 0
        self.running = 0
        self.replayed = 0
        self.whole_request = 590.0
        self._meter = TargetMeter("", "")
        self._known: OrderedDict[Place, Run | Done] = OrderedDict()
        self._replies: deque[Done] = deque()  # the oldest first

    def __repr__(self) -> str:
        return f"<Once {len(self._known)} keys, {self.running} under way>"

    async def join(self, x: Exchange) -> bytes:
        """The whole reply, if this was asked before; b"" where it is to be sent now. Raises Fault INVALID, UNPROCESSABLE (another body),
        CONFLICT (its reply was not kept), TIMEOUT, or what the one under way fails with."""
        place, mark = await _marked(x)
        now = perf_counter()
        known = self._known.get(place)
        if isinstance(known, Done) and now >= known.until:
            self._drop(place)
            known = None
        if known is None:
            self._begin(x, place, mark)
            return b""
        if known.mark != mark:
            message = "This Idempotency-Key was used with another request body; take a new key for a new request."
            raise Fault(Kind.UNPROCESSABLE, message, param="Idempotency-Key", code="idempotency_key_reused")
        outcome = known.kept if isinstance(known, Done) else await self._wait(x, known)
        if isinstance(outcome, Fault):
            raise outcome
        if outcome is None:
            message = "The request with this Idempotency-Key was answered, but its reply was too long to be kept; it is not sent again."
            raise Fault(Kind.CONFLICT, message, param="Idempotency-Key", code="idempotency_reply_not_kept")
        self.replayed += 1
        last = play(x, outcome, self._meter, perf_counter(), REPLAYED)
        x.saved = None
        return last

    def sweep(self, now: float) -> None:
        """Forgets what is over, from the oldest on."""
        while self._known:
            place, known = next(iter(self._known.items()))
            if isinstance(known, Run) or now < known.until:
                break
            self._drop(place)
        while self._replies and self._replies[0].kept is None:
            self._replies.popleft()

    def report(self) -> dict[str, dict[str, float]]:
        """For /metrics, once a second."""
        return {
            "llm_gateway_idempotent_running": {"": float(self.running)},
            "llm_gateway_idempotent_keys": {"": float(len(self._known))},
            "llm_gateway_idempotent_replays_total": {"": float(self.replayed)},
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, x: Exchange, place: Place, mark: bytes) -> None:
        if len(self._known) >= MOST_KEYS:
            self._drop(next(iter(self._known)))
        run = self._known[place] = Run(mark, [])
        self.running += 1
        x.detached = True
        x.client = Tape(Detached(x.client), partial(self._landed, place, run))

    async def _wait(self, x: Exchange, run: Run) -> Outcome:
        turn: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run.waiting.append(turn)
        try:
            async with asyncio.timeout(max(0.0, x.started + self.whole_request - perf_counter())):
                return await turn
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout") from None

    def _landed(self, place: Place, run: Run, x: Exchange, reply: Reply | None) -> None:
        """The ledger has settled the request."""
        self.running -= 1
        outcome: Outcome
        if 200 <= x.status < 300 and x.fault is None and not x.broken:
            outcome = _kept(x, reply) if reply is not None else None
            self._keep(place, run, outcome)
        else:
            outcome = x.fault or Fault(Kind.UNAVAILABLE, "The request under way with this Idempotency-Key failed; send it again.")
            if self._known.get(place) is run:
                del self._known[place]
        for turn in run.waiting:
            if not turn.done():
                turn.set_result(outcome)

    def _keep(self, place: Place, run: Run, kept: Kept | None) -> None:
        if self._known.get(place) is not run:
            return  # so many keys came since that this one had to go
        done = self._known[place] = Done(run.mark, perf_counter() + KEPT_SECONDS, kept)
        self._known.move_to_end(place)
        self.bytes += kept.size if kept is not None else 0
        self._replies.append(done)
        while self.bytes > self.room:
            oldest = self._replies.popleft()
            if oldest.kept is not None:
                self.bytes -= oldest.kept.size
                oldest.kept = None

    def _drop(self, place: Place) -> None:
        known = self._known.pop(place)
        if isinstance(known, Done) and known.kept is not None:
            self.bytes -= known.kept.size
            known.kept = None


async def _marked(x: Exchange) -> tuple[Place, bytes]:
    """Where the key stands, and its body's hash. Raises Fault INVALID."""
    said = x.headers[HEADER]
    if not 0 < len(said) <= LONGEST:
        raise Fault(Kind.INVALID, f"Idempotency-Key must have 1 to {LONGEST} characters.", param="Idempotency-Key")
    if x.http10 and x.stream:
        raise Fault(Kind.INVALID, "Streams with an Idempotency-Key need HTTP/1.1.", param="Idempotency-Key")
    principal = x.principal
    tenant, key = (principal.tenant, principal.id or principal.key) if principal is not None else ("", "")
    where = blake2b(b"\0".join((key.encode(), x.method, x.path, said)), digest_size=32).digest()
    if len(x.body) > LARGE:  # hashing lets go of the interpreter's lock
        mark = await asyncio.get_running_loop().run_in_executor(None, _hash, x.body)
    else:
        mark = _hash(x.body)
    return Place(tenant, where), mark


def _hash(body: bytes) -> bytes:
    return blake2b(body, digest_size=32).digest()


def _kept(x: Exchange, reply: Reply) -> Kept:
    target, now = x.target, perf_counter()
    return Kept(
        reply.body, reply.content_type, x.model, target.provider, target.model, target.key_id, target.lines, x.usage, x.finish, x.cost,
        frozenset(), x.dropped, now, now + KEPT_SECONDS,
    )  # fmt: skip
