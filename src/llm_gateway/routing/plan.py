"""Where a model's requests may go; and where one request goes next, given what happened so far.

Law: a `Plan` is made once per model name and kept; a `Course` is one request's walk along the order that `choice` made of it. Whether
to move is policies.retry's decision, whether a target may be asked its condition's; this file only walks.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import random
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.cascade import Escalation
from llm_gateway.policies.retry import AFRESH, KEYS_OWN, Policy
from llm_gateway.routing.condition import LOST, Condition
from llm_gateway.routing.group import Field
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.target import Target

NOWHERE: Mapping[Kind, tuple[Stop, ...]] = {}


class When(Struct, frozen=True):
    """A condition on requests; what is empty is not asked. `over`, `under`: tokens of the prompt; `needs`: abilities;
    `regions`: where this gateway has to be."""

    tags: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    over: int | None = None
    under: int | None = None
    stream: bool | None = None
    regions: tuple[str, ...] = ()


class Rule(Struct, frozen=True):
    """Requests that `when` says go by the plan of another alias."""

    when: When
    use: str


class Hedge(Struct, frozen=True):
    """When a second attempt is made beside a slow first: after `seconds`, or the `quantile` of recent times to the first token; for at
    most a share `budget` of requests."""

    seconds: float | None = None
    quantile: float = 0.95
    budget: float = 0.1


class Shadow(Struct, frozen=True):
    """A `share` of requests is copied to `stop`, by its first key."""

    stop: Stop
    share: float


class Plan(Struct, frozen=True):
    """`stops`: what the strategy chooses among; `fallbacks`: in order, after them; `elsewhere`: where requests go that failed for
    one kind of reason. `timeout`: the alias's own, in seconds, if it has one. `only`: all targets, where there
    is no choice to make and nothing to check.

    `tenants`: whose it is, everybody's if empty.

    `checks`: abilities, and `context`, that not all have; `weights`: of latency, cost and errors for `adaptive`; `sticky`: what keeps
    a conversation with one target; `measured`: whether somebody chooses by speed; `limited`: whether any has a rate or a
    number of calls at once to keep to; `field`: what `strategy` orders, None where there is nothing to order; `excluded`: with
    why, those that no request may go to."""

    model: str
    stops: tuple[Stop, ...]
    timeout: float | None = None
    only: list[Target] | None = None
    fallbacks: tuple[Stop, ...] = ()
    elsewhere: Mapping[Kind, tuple[Stop, ...]] = NOWHERE
    strategy: str = "priority"
    sticky: str = "session"
    weights: tuple[float, float, float] = (1.0, 1.0, 2.0)
    checks: frozenset[str] = frozenset()
    excluded: tuple[tuple[Stop, str], ...] = ()
    rules: tuple[Rule, ...] = ()
    measured: bool = False
    limited: bool = False
    field: Field | None = None
    hedge: Hedge | None = None
    shadow: Shadow | None = None
    cascade: Escalation | None = None
    policy: Policy | None = None
    retries: int | None = None
    tenants: frozenset[str] = frozenset()

    def targets(self, turn: int) -> list[Target]:
        """In the order written. turn: a running number that rotates the keys of each stop."""
        ordered: list[Target] = []
        for stop in (*self.stops, *self.fallbacks):
            start = turn % len(stop.keys)
            ordered += (*stop.keys[start:], *stop.keys[:start])
        return ordered

    def all(self) -> list[Stop]:
        """Every stop there is, for whatever reason it may be come to."""
        return [*self.stops, *self.fallbacks, *(stop for stops in self.elsewhere.values() for stop in stops)]


class Tally:
    """How many requests are being served, and how many of them are retrying."""

    __slots__ = ("active", "retrying")

    def __init__(self) -> None:
        self.active = 0
        self.retrying = 0


class Course(Struct, eq=False):
    """One request's way: `target` is where it is to go now; `failed` moves on or raises.

    `place`: of `target` in `targets`; `fallbacks`: how often another provider or model took over (another key of the same is
    none); `same`: retries of this target; `retrying`: counted in the tally; `elsewhere`: as the plan has it, each taken once.

    `tokens`: expected, where `limited`; `taken`: for the present attempt; `waits`: it has no target yet; `asks`: all workers
    together count what the present target's provider allows, and were not asked yet; `why`: the failure that led there, if any. `probe`: where this
    request is what finds out whether a target is back; it lets go when it moves on, or nobody would ever find out; `since`: then."""

    targets: list[Target]
    policy: Policy
    tally: Tally
    target: Target
    attempts: int = 1
    place: int = 0
    fallbacks: int = 0
    same: int = 0
    retrying: bool = False
    retries: int | None = None
    elsewhere: Mapping[Kind, tuple[Stop, ...]] = NOWHERE
    limited: bool = False
    tokens: int = 0
    taken: int = 0
    waits: bool = False
    asks: bool = False
    why: Fault | None = None
    probe: Condition | None = None
    since: float = 0.0

    def __repr__(self) -> str:
        return f"<Course attempt {self.attempts} at {self.target}>"

    def enter(self) -> None:
        """Begins at the first target that may be asked. Raises Fault UNAVAILABLE, UPSTREAM_RATE_LIMIT or UPSTREAM_AUTH."""
        now = perf_counter()
        place = self._next(0, now)
        if place is None:
            place = next((at for at, target in enumerate(self.targets) if target.condition.knock(now)), None)
            if place is not None and self.limited and self.targets[place].condition.full(now, self.tokens):
                self.targets[place].condition.breaker.forget()
                place = None
        if place is None:
            raise nobody(self.targets, now, self.tokens)
        self._move(place, 0, now)
        self._take(now)

    def failed(self, fault: Fault, left: float) -> float:
        """Moves to where the request goes next; returns the seconds to wait before. Raises the fault if nowhere.

        left: seconds until the request's deadline. Only asking the same target again takes from the retry budget: that is
        what multiplies a broken upstream's load. Moving on spreads it, and must work when all its clients have to."""
        policy = self.policy
        self.why = fault.with_traceback(None)  # its frames hold this course
        if fault.kind in self.elsewhere and left > 0 and self.attempts < policy.max_attempts:
            self._give_back()
            self._divert(fault)
            return 0.0
        elsewhere = not self._alike(self.targets[-1])
        retries = self.target.limits.retries if self.retries is None else self.retries
        move = policy.after(fault, self.same, retries, random(), elsewhere=elsewhere)  # noqa: S311  no secret
        if fault.kind is not Kind.ESCALATED:  # whose tokens were used
            self._give_back()
        if move.verdict == "stop" or self.attempts >= policy.max_attempts or left <= 0:
            raise fault
        stays = move.verdict == "same" and move.wait < left and not self._held()
        if stays and (move is AFRESH or self._affords()):
            self.same += 1
            self.attempts += 1
            self._take(perf_counter())
            return move.wait
        self._advance(fault)
        self.attempts += 1
        return 0.0

    def _held(self) -> bool:
        """Whether asking this target again is known to be no use; a Retry-After that is short enough is waited out all the same."""
        condition = self.target.condition
        if "breaker" in condition.holds or LOST & condition.holds.keys():
            return True
        return self.limited and bool(condition.full(perf_counter(), self.tokens))

    async def secure(self) -> None:
        """Where `asks`: takes what an attempt takes of the present target's limits; where there is no room goes on as if it had been known.
        Raises what `enter` raises, after a failure what `failed` raises."""
        for _ in self.targets:
            condition, line = self.target.condition, self.target.condition.line
            taken = await condition.claim(line, self.tokens) if line is not None else self.tokens
            if taken is not None:
                self.taken, self.asks = taken, False
                return
            if self.why is not None:
                self._advance(self.why)
                continue
            self.fallbacks = 0
            self.enter()
        raise self.why or nobody(self.targets, perf_counter(), self.tokens)

    async def spare(self, target: Target) -> bool:
        """Whether one that is now to be asked beside the present one has room, as all workers count; it is taken then."""
        condition, line = target.condition, target.condition.line
        if line is not None:
            return await condition.claim(line, self.tokens) is not None
        now = perf_counter()
        if self.limited and condition.full(now, self.tokens):
            return False
        condition.take(now, self.tokens)
        return True

    def more(self, now: float, answered: Target) -> bool:
        """Whether somebody else could still be asked, after one that may have been asked beside the present one. Takes nothing."""
        if self.attempts >= self.policy.max_attempts:
            return False
        who, place = (answered.provider, answered.model), self._place(answered)
        left = [each for each in self.targets[place + 1 :] if (each.provider, each.model) != who and not each.condition.until]
        return any(not self.limited or not each.condition.full(now, self.tokens) for each in left)

    def beside(self, now: float) -> Target | None:
        """Whom to ask as well: the next that is free, else the same again. None if that has no room. Takes nothing: see `spare`."""
        free = (each for each in self.targets[self.place + 1 :] if not each.condition.until)
        other = next(free, self.target)
        return None if self.limited and other.condition.full(now, self.tokens) else other

    def overtaken(self, target: Target) -> None:
        """Whoever was asked beside the present one answered first."""
        self._let_go()
        before, self.target, self.place = self.target, target, self._place(target)
        if (before.provider, before.model) != (target.provider, target.model):
            self.fallbacks += 1

    def _place(self, target: Target) -> int:
        return next((at for at, each in enumerate(self.targets) if each is target), self.place)

    def _advance(self, fault: Fault) -> None:
        """To the next key or target that may be asked; raises the fault if there is none. Other keys of the same are passed over
        where the key is not the trouble and there is another provider or model: attempts are few."""
        now = perf_counter()
        place = None
        if fault.kind not in KEYS_OWN:
            place = self._next(self.place + 1, now, alike=False)
        if place is None:
            place = self._next(self.place + 1, now)
        if place is None:
            # With its breaker open and nobody else left, this was the call that finds out: its client hears what all the others do.
            raise nobody(self.targets, now, self.tokens) if "breaker" in self.target.condition.holds else fault
        self._move(place, self.place, now)
        self._take(now)

    def _next(self, start: int, now: float, *, alike: bool = True) -> int | None:
        """The next place from `start` on that may be asked; not alike: of another provider or model."""
        for place in range(start, len(self.targets)):
            target = self.targets[place]
            if not alike and self._alike(target):
                continue
            condition = target.condition
            if self.limited and condition.full(now, self.tokens):
                continue
            if not condition.until or condition.admit(now, random()):  # noqa: S311  no secret
                return place
        return None

    def _move(self, place: int, start: int, now: float) -> None:
        self._let_go()
        condition = self.targets[place].condition
        if condition.breaker.probing == now:  # since this very moment: it is ours
            self.probe, self.since = condition, now
        before, self.target, self.place, self.same = self.targets[start], self.targets[place], place, 0
        if (before.provider, before.model) != (self.target.provider, self.target.model):
            self.fallbacks += 1

    def _let_go(self) -> None:
        """A probe that ended without a verdict; another may try."""
        if self.probe is not None:
            if self.probe.breaker.probing == self.since:
                self.probe.breaker.forget()
            self.probe = None

    def _take(self, now: float) -> None:
        if self.limited:
            condition = self.target.condition
            self.asks = condition.line is not None
            self.taken = 0 if self.asks else condition.take(now, self.tokens)

    def _give_back(self) -> None:
        """A failed attempt: its request counts, the tokens it never got do not."""
        if self.taken:
            self.target.condition.correct(-self.taken)
            self.taken = 0

    def forgo(self) -> None:
        """Nothing is sent to the present target: what was taken of its limits is others'."""
        if self.taken:
            self.target.condition.give_back(self.taken)
            self.taken = 0

    def _divert(self, fault: Fault) -> None:
        """The caller's own fault, unless somebody else takes it: another context length, another filter."""
        kinds = {kind: stops for kind, stops in self.elsewhere.items() if kind is not fault.kind}
        stops, self.elsewhere = self.elsewhere[fault.kind], kinds
        more = [target for stop in stops for target in stop.keys]
        self.targets = [*self.targets[: self.place + 1], *more]
        self._advance(fault)
        self.attempts += 1

    def _alike(self, other: Target) -> bool:
        return (other.provider, other.model) == (self.target.provider, self.target.model)

    def _affords(self) -> bool:
        tally = self.tally
        if not self.retrying and self.policy.affords(tally.retrying, tally.active):
            self.retrying = True
            tally.retrying += 1
        return self.retrying

    def keep(self, targets: list[Target], fault: Fault) -> None:
        """From now on only these; raises the fault where that is nobody, and what `enter` raises where none may be asked now."""
        if not targets:
            raise fault
        if len(targets) == len(self.targets):
            return
        present, self.targets = self.target, targets
        if present in targets:
            self.place = targets.index(present)
            return
        self.forgo()
        self._let_go()
        self.target, self.place = targets[0], 0
        if self.limited or targets[0].condition.until:
            self.enter()

    def done(self) -> None:
        self.tally.active -= 1
        if self.probe is not None:
            self._let_go()
        if self.retrying:
            self.retrying = False
            self.tally.retrying -= 1


def nobody(targets: list[Target], now: float, tokens: int = 0) -> Fault:
    """None of them may be asked: why, and when again."""
    holds = [frozenset(target.condition.holds) for target in targets]
    full = [target.condition.full(now, tokens) for target in targets]
    wait = min(max(room, target.condition.wait(now) if target.condition.until else 0.0) for target, room in zip(targets, full, strict=True))
    if all("cooling" in held or room for held, room in zip(holds, full, strict=True)):
        return Fault(
            Kind.UPSTREAM_RATE_LIMIT, "All that could answer have reached their providers' rate limits.", retry_after=wait
        )
    if all(LOST & held for held in holds):
        return Fault(Kind.UPSTREAM_AUTH, "The providers refuse the gateway's credentials.", retry_after=wait)
    return Fault(Kind.UNAVAILABLE, "None of the model's providers is available at the moment; try again.", retry_after=wait)
