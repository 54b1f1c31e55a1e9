"""Answers from the cache: whether a request may be, what its reply depends on, and who asks while others wait for the same.

Law: off, it is not there. Nothing of a tenant's is ever another's. Only good, whole replies are kept: no error, nothing truncated, filtered
or cut. Of those who miss the same at once one asks (`Flight`); the others wait for its reply, each until its own deadline. A leader that
fails or leaves hands over to one of them; where its reply is good but not to be kept, all go on by themselves: waiting for each other would
only put one after the other. Where replies are in Redis the same holds of all workers and replicas: who leads here has the place's lease, or
looks again until there is a reply or nobody has the lease (`_seek_there`).
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from enum import Enum, auto
from functools import partial
from hashlib import blake2b
from time import perf_counter

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.tape import Reply, Tape
from llm_gateway.formats.contract import Format
from llm_gateway.routing import ask
from llm_gateway.routing.once import HEADER
from llm_gateway.routing.plan import Plan
from llm_gateway.routing.table import Table
from llm_gateway.stores.memory import Kept, Memory, Place
from llm_gateway.stores.redis.leases import Lease, Word
from llm_gateway.stores.redis.replies import Replies
from llm_gateway.telemetry.metrics import TargetMeter

CHAT = "chat"
OPERATIONS = frozenset({CHAT, "embeddings", "moderation", "rerank"})
MOST_ASKED = 4 << 20  # bytes of a request that is looked up
MOST_SPELLED = 4096  # requests whose places are kept, by a hash of how they are spelled
LONGEST_SAID = 1000  # bytes of headers in one of them
MOST_REPEATS, LONGEST_REPEAT = 1024, 4 << 10  # requests known by every byte of theirs, and bytes of such a body
MOST_SORTED = 256 << 10  # what is larger is compared as spelled: sorting it would hold up others
# How a reply ends that is whole, in the words of all shapes. What is not known is not kept.
WHOLE = frozenset({
    "stop", "eos", "tool_calls", "function_call", "end_turn", "tool_use", "stop_sequence", "STOP", "completed",
})  # fmt: skip
NESTED = ("generationConfig", "generation_config", "inferenceConfig", "options")  # where some shapes have their parameters
ONE = (b"1", b"null")
CONTROL, TAGS = b"cache-control", b"x-gateway-tags"
NO_TAGS: frozenset[str] = frozenset()
SOON, LATER, SLOWER = 0.02, 0.25, 1.5  # seconds between two looks at what another worker has under way: the first, the longest, times
MISS, BYPASS = b"x-gateway-cache: miss\r\n", b"x-gateway-cache: bypass\r\n"


class Terms(Struct, frozen=True):
    """`ttl`: seconds; `sampling`: chat requests whose temperature is not 0 too; `ignore`: members of a body that the reply does not
    depend on."""

    enabled: bool = False
    ttl: float = 3600.0
    sampling: bool = True
    ignore: frozenset[str] = frozenset()


class Control(Struct, frozen=True):
    """What a request's `Cache-Control` says (RFC 9111 section 5.2.1)."""

    reads: bool = True
    keeps: bool = True
    most: float = float("inf")  # seconds of age


ANYTHING = Control()


class Turn(Enum):
    LEAD = auto()
    ALONE = auto()


class Flight(Struct, eq=False):
    """One request under way whose reply others wait for. `lease`: of its place, where other workers look too; `waited`: for one of theirs."""

    waiting: deque[asyncio.Future[Kept | Turn]]
    lease: Lease | None = None
    waited: bool = False


class Sought(Struct, frozen=True):
    """What requests that are spelled alike are looked up by, and for how long their reply would be kept. `place` None: they are not to be
    answered from the cache. `whole_request`: seconds, by their plan."""

    plan: Plan
    place: Place | None
    terms: Terms
    whole_request: float


class Spot(Struct, frozen=True):
    """Where a reply under way is to be kept, for `ttl` seconds, unless `purges` have become more meanwhile."""

    place: Place
    ttl: float
    tags: frozenset[str]
    purges: int


class Repeat(Struct, frozen=True, gc=False):
    """A request that was answered from memory: the same head, from the same caller, with the same body is not read again. `most`: seconds of
    age that it accepts."""

    head: object
    principal: object
    place: Place
    most: float
    model: str
    stream: bool


class Replay:
    """One per worker, as long as its cache is on and kept in the same place; configurations come and go. Reads the time, and the store,
    but never a target's state."""

    def __init__(self, store: Memory | Replies, formats: Mapping[str, Format]) -> None:
        self.store = store
        self.hits = self.misses = self.bypassed = 0
        self.saved = 0  # nano-USD
        self.meter = TargetMeter("", "")
        self._formats = formats
        self._flights: dict[Place, Flight] = {}
        self._terms = Terms()
        self._by_alias: Mapping[str, Terms] = {}
        self._whole_request = 590.0
        self._spelled: dict[tuple[object, ...], Sought] = {}  # by what a request says, letter by letter
        self._repeats: dict[tuple[int, int, bytes], Repeat] = {}
        self._heeded = {name: tuple(sorted(form.request_headers)) for name, form in formats.items()}

    def adopt(self, room: int, terms: Terms, by_alias: Mapping[str, Terms], whole_request: float) -> None:
        """What is kept stays; what leads elsewhere now is not found any more."""
        if isinstance(self.store, Memory):
            self.store.resize(room)
        self._terms, self._by_alias, self._whole_request = terms, by_alias, whole_request
        self._spelled.clear()
        self._repeats.clear()

    def recall(self, x: Exchange) -> Kept | None:
        """The reply in this worker's memory to a request of which each byte came before, from the same caller. None: it is to be read."""
        repeat = self._repeats.get((id(x.known), id(x.principal), x.body))
        if repeat is None or repeat.head is not x.known or repeat.principal is not x.principal or not isinstance(self.store, Memory):
            return None
        now = perf_counter()
        kept = self.store.get(repeat.place, now)
        if kept is None or now - kept.born > repeat.most:
            return None
        self.hits += 1
        self.saved += kept.cost or 0
        x.model, x.stream = repeat.model, repeat.stream
        return kept

    async def seek(self, x: Exchange, table: Table) -> Kept | None:
        """The reply, if there is one or one is on its way. None: this request is to be sent; if it should, what comes is then kept.

        Raises Fault as `Table.course` does where a model leads nowhere, INVALID for tags that are none, and TIMEOUT where the one on its way takes too long."""
        sought = self._sought(x, table)
        tags = ask.tags(x) if TAGS in x.headers else NO_TAGS
        control = ANYTHING if CONTROL not in x.headers else _control(x.headers[CONTROL])
        place = sought.place if sought is not None else None
        if sought is None or place is None or not control.keeps:
            self._pass_by(x)
            return None
        if not control.reads:
            self._listen(x, Spot(place, sought.terms.ttl, tags, self.store.purges), None)
            self._pass_by(x)
            return None
        now = perf_counter()
        store = self.store
        turn: Kept | Turn = Turn.LEAD
        if isinstance(store, Memory):
            kept = store.get(place, now)
            if kept is not None and now - kept.born <= control.most:
                self.hits += 1
                self.saved += kept.cost or 0
                self._remember(x, place, control)
                return kept
            flight = self._flights.get(place)
            if flight is None:
                self._flights[place] = Flight(deque())
            else:
                turn = await self._wait(place, flight, _deadline(x, sought))
        else:
            turn = await self._seek_there(place, now - control.most, _deadline(x, sought), store)
        if isinstance(turn, Kept):
            self.hits += 1
            self.saved += turn.cost or 0
            return turn
        if turn is Turn.LEAD:
            self._listen(x, Spot(place, sought.terms.ttl, tags, store.purges), self._flights[place])
        self.misses += 1
        x.extra += MISS
        return None

    def gauges(self) -> dict[str, dict[str, float]]:
        """For /metrics, once a second."""
        results = {"hit": self.hits, "miss": self.misses, "bypass": self.bypassed}
        return {
            "cache_hit_ratio": {"": self.hits / ((self.hits + self.misses) or 1)},
            "llm_gateway_cache_requests_total": {f'result="{result}"': float(count) for result, count in results.items()},
            "llm_gateway_cache_saved_usd_total": {"": self.saved / 1e9},
            **self.store.report(),
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _remember(self, x: Exchange, place: Place, control: Control) -> None:
        """Not of signed requests, whose bodies are a matter of their signatures."""
        if x.known is None or x.principal is None or x.principal.signs or HEADER in x.headers or len(x.body) > LONGEST_REPEAT:
            return
        if len(self._repeats) >= MOST_REPEATS:
            self._repeats.clear()
        self._repeats[id(x.known), id(x.principal), x.body] = Repeat(x.known, x.principal, place, control.most, x.model, x.stream)

    def _pass_by(self, x: Exchange) -> None:
        self.bypassed += 1
        x.extra += BYPASS

    def _sought(self, x: Exchange, table: Table) -> Sought | None:
        """None: such a request is not to be answered from the cache. What is spelled as one before, by the same plan, is not read again."""
        if x.route.operation not in OPERATIONS or x.bytes_in > MOST_ASKED or x.pin is not None or (x.stream and x.http10):
            return None
        plan, _ = table.chosen(x)
        x.unheard = ()  # the course will say it again
        route, headers, tenant = x.route, x.headers, x.principal.tenant if x.principal is not None else ""
        said = tuple([headers.get(name) for name in self._heeded[route.format]])
        spelled = (tenant, route.operation, route.format, x.stream, x.model, said, blake2b(x.body, digest_size=32).digest())
        known = self._spelled.get(spelled)
        if known is None or known.plan is not plan:
            if len(self._spelled) >= MOST_SPELLED:
                self._spelled.clear()
            known = self._read(x, plan, tenant)
            if sum([len(each) for each in said if each is not None]) <= LONGEST_SAID:
                self._spelled[spelled] = known
        return known

    def _read(self, x: Exchange, plan: Plan, tenant: str) -> Sought:
        terms, members, mark = self._by_alias.get(plan.model, self._terms), x.peek.members, b""
        if terms.enabled and not _kept_there(x, members) and (x.route.operation != CHAT or (not _several(members) and _calm(members, terms))):
            mark = _mark(x, plan, self._formats[x.route.format], {name: raw for name, raw in members.items() if name not in terms.ignore})
        return Sought(plan, Place(tenant, mark) if mark else None, terms, min(self._whole_request, plan.timeout or self._whole_request))

    async def _seek_there(self, place: Place, oldest: float, deadline: float, store: Replies) -> Kept | Turn:
        """Where the store is all workers'. Of each worker one asks whose the lease is; the others wait for it as they do for a reply, after a look
        at what there is. oldest, deadline: by perf_counter; oldest: of a reply that will do."""
        if place in self._flights:
            kept = await store.get(place, perf_counter())
            if kept is not None and kept.born >= oldest:
                return kept
        flight = self._flights.get(place)
        if flight is None:
            flight = self._flights[place] = Flight(deque(), store.lease(place))
        elif (turn := await self._wait(place, flight, deadline)) is not Turn.LEAD:
            return turn
        found: Kept | Turn | None = None
        try:
            found = await self._agree(place, flight, oldest, deadline, store)
            return found
        finally:
            if found is None or (isinstance(found, Kept) and not flight.waited):  # others may want it newer
                self._hand_over(place, flight)
            elif found is not Turn.LEAD:
                self._tell(place, flight, found)

    async def _agree(self, place: Place, flight: Flight, oldest: float, deadline: float, store: Replies) -> Kept | Turn:
        """With other workers: LEAD where the lease is ours, or nobody knows; ALONE where the reply waited for is not to be kept. Raises Fault TIMEOUT."""
        lease = flight.lease = flight.lease or store.lease(place)
        word = await store.take(place, lease, oldest)
        if word is Word.TAKEN:
            flight.waited, pause = True, SOON
            try:
                async with asyncio.timeout(max(0.0, deadline - perf_counter())):
                    while word is Word.TAKEN:
                        await asyncio.sleep(pause * (0.5 + os.urandom(1)[0] / 510))
                        pause = min(pause * SLOWER, LATER)
                        word = await store.take(place, lease, oldest)
            except TimeoutError:
                raise _too_long() from None
        if isinstance(word, Kept):
            return word
        if word is Word.LOOSE and flight.waited:
            return Turn.ALONE
        if word is Word.MINE:
            lease.hold()
        return Turn.LEAD

    async def _wait(self, place: Place, flight: Flight, deadline: float) -> Kept | Turn:
        turn: asyncio.Future[Kept | Turn] = asyncio.get_running_loop().create_future()
        flight.waiting.append(turn)
        try:
            async with asyncio.timeout(max(0.0, deadline - perf_counter())):
                return await turn
        except TimeoutError:
            self._forgo(place, flight, turn)
            raise _too_long() from None
        except asyncio.CancelledError:
            self._forgo(place, flight, turn)
            raise

    def _forgo(self, place: Place, flight: Flight, turn: asyncio.Future[Kept | Turn]) -> None:
        """Who waited leaves. If it was to lead from this very moment, another does."""
        if turn.done() and not turn.cancelled() and turn.result() is Turn.LEAD:
            self._hand_over(place, flight)
        turn.cancel()

    def _listen(self, x: Exchange, spot: Spot, flight: Flight | None) -> None:
        x.client = Tape(x.client, partial(self._landed, spot, flight))

    def _landed(self, spot: Spot, flight: Flight | None, x: Exchange, reply: Reply | None) -> None:
        """The ledger has settled a request that was listened to. What was purged meanwhile is not kept."""
        good = x.status == 200 and x.fault is None and not x.broken
        kept = None
        fit = (x.route.operation != CHAT or x.finish in WHOLE) and not x.stands_in
        if good and reply is not None and fit and spot.purges == self.store.purges:
            kept = self._keep(spot, x, reply)
        if flight is None:
            return
        if not good:
            self._hand_over(spot.place, flight)
            return
        if flight.lease is not None and (kept is None or not self.store.purges):
            flight.lease.loosen()
        self._tell(spot.place, flight, Turn.ALONE if kept is None else kept)

    def _keep(self, spot: Spot, x: Exchange, reply: Reply) -> Kept:
        now, target = perf_counter(), x.target
        kept = Kept(
            reply.body, reply.content_type, x.model, target.provider, target.model, target.key_id, target.lines, x.usage, x.finish, x.cost,
            spot.tags, x.dropped, now, now + spot.ttl,
        )  # fmt: skip
        self.store.put(spot.place, kept)
        return kept

    def _hand_over(self, place: Place, flight: Flight) -> None:
        while flight.waiting:
            turn = flight.waiting.popleft()
            if not turn.done():
                turn.set_result(Turn.LEAD)
                return
        self._leave(place, flight)

    def _tell(self, place: Place, flight: Flight, outcome: Kept | Turn) -> None:
        self._leave(place, flight)
        for turn in flight.waiting:
            if not turn.done():
                turn.set_result(outcome)

    def _leave(self, place: Place, flight: Flight) -> None:
        if self._flights.get(place) is flight:
            del self._flights[place]
        if flight.lease is not None:
            flight.lease.free()


def _mark(x: Exchange, plan: Plan, form: Format, members: dict[str, Raw]) -> bytes:
    """A hash of all that the reply depends on. Members' order and white space are no part of it in bodies up to `MOST_SORTED`. b"" for a
    body that cannot be read."""
    members.pop("stream", None)
    headers = sorted((name.decode(), x.headers[name].decode("latin-1")) for name in form.request_headers if name in x.headers)
    stops = [(stop.name, str(stop.keys[0].bay.origin)) for stop in plan.all()]
    route = (x.route.operation, x.route.format, x.stream, x.model, stops, headers)
    try:
        said = {name: msgspec.json.decode(raw) if x.bytes_in <= MOST_SORTED else raw for name, raw in members.items()}
        return blake2b(msgspec.json.encode((route, x.bytes_in > MOST_SORTED, said), order="sorted"), digest_size=32).digest()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return b""


def _kept_there(x: Exchange, members: Mapping[str, Raw]) -> bool:
    """Whether the provider keeps the reply for later requests: each must be its own. OpenAI's Responses do unless told not to."""
    if "previous_response_id" in members or "conversation" in members or bytes(members.get("background", b"")) == b"true":
        return True
    return bytes(members.get("store", b"null")) != b"false" and (x.route.sealed or bytes(members.get("store", b"null")) != b"null")


def _several(members: Mapping[str, Raw]) -> bool:
    """Whether several replies in one are asked for: of those only one's end is known."""
    if any(bytes(members.get(name, b"1")) not in ONE for name in ("n", "best_of")) or bytes(members.get("prompt", b"")).startswith(b"["):
        return True
    return any(_inner(members, name) not in (None, 1) for name in ("candidateCount", "candidate_count"))


def _calm(members: Mapping[str, Raw], terms: Terms) -> bool:
    """Whether the reply to a chat request is meant to be the same each time, as far as its alias cares."""
    if terms.sampling:
        return True
    said = members.get("temperature")
    return bytes(said) in (b"0", b"0.0") if said is not None else _inner(members, "temperature") == 0


def _inner(members: Mapping[str, Raw], name: str) -> object:
    for outer in NESTED:
        if outer in members:
            try:
                found = msgspec.json.decode(members[outer])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return None
            if isinstance(found, dict) and name in found:
                return found[name]
    return None


def _control(header: bytes) -> Control:
    """A max-age that is no number is left unheard, as HTTP has it."""
    said = [word.strip().lower() for word in header.split(b",")]
    ages = [float(number) for word in said if word.startswith(b"max-age=") and (number := word[8:].strip(b'"')).isdigit()]
    stores = b"no-store" not in said
    return Control(stores and b"no-cache" not in said, stores, min(ages) if ages else float("inf"))


def _deadline(x: Exchange, sought: Sought) -> float:
    """By perf_counter."""
    return x.started + min(sought.whole_request, _asked(x.headers.get(b"x-gateway-timeout")))


def _too_long() -> Fault:
    return Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout")


def _asked(header: bytes | None) -> float:
    """`x-gateway-timeout`; what is wrong with one is said when the request is sent."""
    try:
        seconds = float(header) if header is not None else 0.0
    except ValueError:
        seconds = 0.0
    return seconds if seconds > 0 else float("inf")
