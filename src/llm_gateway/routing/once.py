"""Requests with an `Idempotency-Key`: sent once, however often and by however many connections they are asked for (RELIABILITY.md).

Law: such a request outlives its client; within its deadline it runs to its end, is billed once and its reply is kept for `KEPT_SECONDS`. The
same key with the same body joins the one under way, or gets its reply; with another body it is refused. A failure is told to those who
wait and then forgotten, so that the next try is a new one. Keys are by tenant, API key and path. A reply over 1 MiB is not kept: asking for
it again is refused, and nothing is sent twice.

In one worker's memory; replies go first where there is no room, the keys themselves stay. With Redis (`claims`) a key is claimed there before its request
is sent: of all workers and replicas one sends it, the others ask every `AGAIN` seconds for its reply. Where the one that sends it fails or dies, one
of them sends it anew. Nobody waits for a Redis that is away, unless somebody else was seen running it less than a lease ago or it hung up
just now; what was answered meanwhile it is told when it is back.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import Enum, auto
from functools import partial
from hashlib import blake2b
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.detached import Detached
from llm_gateway.egress.slices import LARGE
from llm_gateway.egress.tape import Reply, Tape, play
from llm_gateway.formats._multipart import Form
from llm_gateway.stores.memory import Kept, Place
from llm_gateway.stores.redis.claims import LEASE, Claim, Claims, Word
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.telemetry.metrics import TargetMeter

HEADER = b"idempotency-key"
LOOKS = frozenset({b"GET", b"HEAD"})  # they change nothing, and are asked again for what is new
KEPT_SECONDS = 24 * 3600.0
LONGEST = 255
MOST_KEYS = 200_000
REPLAYED = b"idempotent-replayed: true\r\n"

AGAIN = 0.1
MOST_UNTOLD = 50_000  # answered while Redis was away
TOLD_AT_ONCE, BYTES_AT_ONCE = 200, 1 << 20  # of them with each sweep: more would not be taken in in time, and be sent again for ever


class Turn(Enum):
    SENDS = auto()  # whoever asked
    ANEW = auto()  # whoever waited looks again


Outcome = Kept | Fault | Turn | None


class Run(Struct, eq=False):
    """Under way. `mark`: of its body; `sure`: it is the key's; `claim`: where `claims` know of it."""

    mark: bytes
    waiting: list[asyncio.Future[Outcome]]
    sure: bool = True
    claims: Claims | None = None
    claim: Claim | None = None


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
        self.claims: Claims | None = None
        self._meter = TargetMeter("", "")
        self._known: OrderedDict[Place, Run | Done] = OrderedDict()
        self._replies: deque[Done] = deque()  # the oldest first
        self._claimed: set[Run] = set()
        self._untold: OrderedDict[Run, Done] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Once {len(self._known)} keys, {self.running} under way>"

    async def join(self, x: Exchange) -> bytes:
        """The whole reply, if this was asked before; b"" where it is to be sent now. Raises Fault INVALID, UNPROCESSABLE (another body),
        CONFLICT (its reply was not kept), TIMEOUT, or what the one under way fails with."""
        place, mark = await _marked(x)
        outcome: Outcome = Turn.ANEW
        while outcome is Turn.ANEW:
            outcome = await self._joined(x, place, mark)
        if outcome is Turn.SENDS:
            return b""
        if isinstance(outcome, Fault):
            raise outcome
        if not isinstance(outcome, Kept):
            message = "The request with this Idempotency-Key was answered, but its reply was too long to be kept; it is not sent again."
            raise Fault(Kind.CONFLICT, message, param="Idempotency-Key", code="idempotency_reply_not_kept")
        self.replayed += 1
        last = play(x, outcome, self._meter, perf_counter(), REPLAYED)
        x.saved = None
        return last

    def share(self, shared: Shared | None) -> None:
        """Keys are claimed there from now on; those that are claimed are renewed there, too, and what became of them is told there."""
        if shared is None or self.claims is None:
            self.claims = Claims(shared) if shared is not None else None
        else:
            self.claims.shared = shared

    def sweep(self, now: float) -> None:
        """Forgets what is over, from the oldest on; renews what is claimed."""
        for run in self._claimed:
            if run.claims is not None and run.claim is not None:
                run.claims.renew(run.claim, now)
        self._tell_again(now)
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

    async def _joined(self, x: Exchange, place: Place, mark: bytes) -> Outcome:
        known = self._known.get(place)
        if isinstance(known, Done) and perf_counter() >= known.until:
            self._drop(place)
            known = None
        if known is None:
            if len(self._known) >= MOST_KEYS:
                self._drop(next(iter(self._known)))
            run = self._known[place] = Run(mark, [])
            outcome = await self._elsewhere(x, place, run, self.claims) if self.claims is not None else Turn.SENDS
            if outcome is Turn.SENDS:
                self._begin(x, place, run)
            return outcome
        if known.mark != mark and (isinstance(known, Done) or known.sure):
            raise _reused()
        if isinstance(known, Done):
            return known.kept
        outcome = await self._wait(x, known)
        return outcome if known.mark == mark else Turn.ANEW

    async def _elsewhere(self, x: Exchange, place: Place, run: Run, claims: Claims) -> Outcome:
        """What came of it where another worker has it; SENDS where it is to be sent here. Those who wait here hear the same, or look anew."""
        run.sure, run.claims, run.claim = False, claims, claims.claim(place, run.mark)
        told: Outcome = Turn.ANEW
        try:
            async with asyncio.timeout(max(0.0, x.started + self.whole_request - perf_counter())):
                word = await self._heard(run, claims, run.claim)
            if word is Word.OTHER:
                raise _reused()
            if word is Word.MINE or word is Word.UNHEARD:
                run.sure, told = True, Turn.SENDS
            else:
                told = kept = word if isinstance(word, Kept) else None
                self._keep(place, run, kept)
        except TimeoutError:
            raise _too_long() from None
        except asyncio.CancelledError:
            claims.free(run.claim)  # if it was ours
            raise
        finally:
            if told is not Turn.SENDS:
                self._tell(place, run, told)
        return told

    async def _heard(self, run: Run, claims: Claims, claim: Claim) -> Kept | Word:
        """Until it is ours, or done."""
        word, seen = await claims.take(claim), 0.0
        while word is Word.RUNNING or word is Word.FREE or (word is Word.UNHEARD and (perf_counter() < seen + LEASE or claims.worth_waiting(claim))):
            if word is Word.RUNNING:
                run.sure, seen = True, perf_counter()
            if word is not Word.FREE:
                await asyncio.sleep(AGAIN)
            word = await (claims.look(claim) if word is Word.RUNNING else claims.take(claim))
        return word

    def _begin(self, x: Exchange, place: Place, run: Run) -> None:
        self.running += 1
        if run.claim is not None:
            self._claimed.add(run)
        x.detached = True
        x.client = Tape(Detached(x.client), partial(self._landed, place, run))

    async def _wait(self, x: Exchange, run: Run) -> Outcome:
        turn: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        run.waiting.append(turn)
        try:
            async with asyncio.timeout(max(0.0, x.started + self.whole_request - perf_counter())):
                return await turn
        except TimeoutError:
            raise _too_long() from None

    def _landed(self, place: Place, run: Run, x: Exchange, reply: Reply | None) -> None:
        """The ledger has settled the request."""
        self.running -= 1
        outcome: Outcome
        if 200 <= x.status < 300 and x.fault is None and not x.broken:
            outcome = _kept(x, reply) if reply is not None else None
            self._end(run, self._keep(place, run, outcome), perf_counter())
        else:
            if run.claims is not None and run.claim is not None:
                run.claims.free(run.claim)
            outcome = x.fault or Fault(Kind.UNAVAILABLE, "The request under way with this Idempotency-Key failed; send it again.")
        self._claimed.discard(run)
        self._tell(place, run, outcome)

    def _tell(self, place: Place, run: Run, outcome: Outcome) -> None:
        """Those who wait for a run that is over; what was kept of it has its place already."""
        if self._known.get(place) is run:
            del self._known[place]
        for turn in run.waiting:
            if not turn.done():
                turn.set_result(outcome)

    def _end(self, run: Run, done: Done, now: float) -> None:
        """Tells all others of an answer: again, as long as they cannot hear it and it counts."""
        if run.claims is None or run.claim is None or now >= done.until:
            return
        self._untold[run] = done
        if len(self._untold) > MOST_UNTOLD:
            self._untold.popitem(last=False)
        if run.claims.reaches(run.claim):
            run.claims.end(run.claim, done.kept, done.until - now, partial(self._untold.pop, run, None), KEPT_SECONDS - (done.until - now))

    def _tell_again(self, now: float) -> None:
        room = BYTES_AT_ONCE
        for _ in range(min(TOLD_AT_ONCE, len(self._untold))):
            run, done = self._untold.popitem(last=False)
            self._end(run, done, now)
            room -= done.kept.size if done.kept is not None else 0
            if room <= 0:
                break

    def _keep(self, place: Place, run: Run, kept: Kept | None) -> Done:
        done = Done(run.mark, kept.until if kept is not None else perf_counter() + KEPT_SECONDS, kept)
        if self._known.get(place) is not run:
            return done  # so many keys came since that this one had to go
        self._known[place] = done
        self._known.move_to_end(place)
        self.bytes += kept.size if kept is not None else 0
        self._replies.append(done)
        while self.bytes > self.room:
            oldest = self._replies.popleft()
            if oldest.kept is not None:
                self.bytes -= oldest.kept.size
                oldest.kept = None
        return done

    def _drop(self, place: Place) -> None:
        known = self._known.pop(place)
        if isinstance(known, Done) and known.kept is not None:
            self.bytes -= known.kept.size
            known.kept = None


def _reused() -> Fault:
    message = "This Idempotency-Key was used with another request body; take a new key for a new request."
    return Fault(Kind.UNPROCESSABLE, message, param="Idempotency-Key", code="idempotency_key_reused")


def _too_long() -> Fault:
    return Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout")


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
        mark = await asyncio.get_running_loop().run_in_executor(None, _hash, _said(x))
    else:
        mark = _hash(_said(x))
    return Place(tenant, where), mark


def _said(x: Exchange) -> Iterable[bytes]:
    """Its body; a form's parts, since clients give it another boundary each time they write it."""
    form = x.peek.form
    return form.said() if isinstance(form, Form) else (x.body,)


def _hash(said: Iterable[bytes]) -> bytes:
    mark = blake2b(digest_size=32)
    for piece in said:
        mark.update(piece)
    return mark.digest()


def _kept(x: Exchange, reply: Reply) -> Kept:
    target, now = x.target, perf_counter()
    return Kept(
        reply.body, reply.content_type, x.model, target.provider, target.model, target.key_id, target.lines, x.usage, x.finish, x.cost,
        frozenset(), x.dropped, now, now + KEPT_SECONDS,
    )  # fmt: skip
