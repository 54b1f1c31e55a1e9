"""Limits and budgets counted in this worker's memory: what one worker alone needs, and what stands in while Redis is away.

Law: keeps core/gauges' contract and answers at once. State is by claim's name, so it outlives configurations: a limit that changed goes on
from where it was. What nobody uses is forgotten, but for budgets, which are money.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from llm_gateway.core.gauges import Ask, Seeds, Verdict
from llm_gateway.core.tenancy import Claim
from llm_gateway.policies.bucket import Bucket
from llm_gateway.policies.purse import Purse
from llm_gateway.policies.windows import ends

Alert = Callable[[str, Claim, float, int], None]
HELD_WAIT = 1.0  # seconds; what others have reserved or occupy is free again at any moment


class Day(Struct):
    """Requests of the UTC day that is over at `until`."""

    count: int = 0
    until: float = 0.0

    def turn(self, wall: float) -> None:
        if wall >= self.until:
            self.count, self.until = 0, ends("day", wall)


class Slots(Struct):
    busy: int = 0


State = Bucket | Day | Slots | Purse


class Account:
    """One tenant's claims and where they are counted; core.gauges.Bound."""

    __slots__ = ("_alert", "_days", "_purses", "_rated", "_requests", "_seeds", "_slots", "_tokens", "claims", "tenant")

    def __init__(self, tenant: str, claims: tuple[Claim, ...], states: tuple[State, ...], seeds: Seeds | None, alert: Alert | None) -> None:
        self.tenant = tenant
        self.claims = claims
        self._seeds = seeds
        self._alert = alert
        pairs = tuple(zip(claims, states, strict=True))
        self._requests = tuple((claim, state) for claim, state in pairs if isinstance(state, Bucket) and claim.measure == "requests")
        self._tokens = tuple((claim, state) for claim, state in pairs if isinstance(state, Bucket) and claim.measure == "tokens")
        self._days = tuple((claim, state) for claim, state in pairs if isinstance(state, Day))
        self._slots = tuple((claim, state) for claim, state in pairs if isinstance(state, Slots))
        self._purses = tuple((claim, state) for claim, state in pairs if isinstance(state, Purse))
        self._rated = tuple(state for state in states if isinstance(state, Bucket))

    def reserve(self, ask: Ask) -> Verdict:
        now, tokens, granted = ask.now, ask.tokens, ask.cost
        for claim, bucket in self._requests:
            if claim.limit <= 0 or bucket.wait(1.0, now):
                return self._refusal(ask)
        for claim, bucket in self._tokens:
            if claim.limit <= 0 or bucket.wait(tokens, now):
                return self._refusal(ask)
        for claim, slots in self._slots:
            if slots.busy >= claim.limit:
                return self._refusal(ask)
        if self._days or self._purses:
            granted = self._grant(ask)
            if granted < 0:
                return self._refusal(ask)
        for _, bucket in self._requests:
            bucket.level -= 1.0
        for _, bucket in self._tokens:
            bucket.level -= tokens
        for _, slots in self._slots:
            slots.busy += 1
        return Verdict(cost=granted, left=self._left())

    def extend(self, ask: Ask) -> Verdict:
        for claim, purse in self._purses:
            purse.turn(ask.wall)
            if claim.hard and purse.left(claim.limit) < ask.cost:
                return _short(claim, purse, ask)
        for _, purse in self._purses:
            purse.take(ask.cost)
        return Verdict(cost=ask.cost)

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        for _, slots in self._slots:
            slots.busy -= 1
        for _, bucket in self._tokens:
            bucket.correct(tokens - ask.tokens)
        for claim, purse in self._purses:
            purse.turn(ask.wall)
            purse.settle(ask.cost, cost)
            if claim.alerts and self._alert is not None and (share := purse.alert(claim.limit, claim.alerts)):
                self._alert(self.tenant, claim, share, purse.spent)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _grant(self, ask: Ask) -> int:
        """Takes the day's request and the money, as much as is wanted and left, and returns that; -1: not all of it is there, none is taken."""
        granted = ask.cost
        for claim, day in self._days:
            day.turn(ask.wall)
            if day.count >= claim.limit:
                return -1
        for claim, purse in self._purses:
            if ask.wall >= purse.until or not purse.seeded:
                self._open(claim, purse, ask.wall)
            if claim.hard:
                rest = claim.limit - purse.spent - purse.reserved
                if rest < ask.least or not purse.seeded:
                    return -1
                granted = min(granted, rest)
        for _, purse in self._purses:
            purse.reserved += granted
        for _, day in self._days:
            day.count += 1
        return granted

    def _refusal(self, ask: Ask) -> Verdict:
        """What stands in the way, the longest wait of all limits first. Called when something does; nothing is taken."""
        worst, wait = None, 0.0
        for claim, bucket in self._requests:
            missing = _forever(claim) or bucket.wait(1.0, ask.now)
            if missing > wait:
                worst, wait = claim, missing
        for claim, bucket in self._tokens:
            missing = _forever(claim) or bucket.wait(ask.tokens, ask.now)
            if missing > wait:
                worst, wait = claim, missing
        for claim, day in self._days:
            day.turn(ask.wall)
            if day.count >= claim.limit and day.until - ask.wall > wait:
                worst, wait = claim, day.until - ask.wall
        if worst is None:
            for claim, slots in self._slots:
                if slots.busy >= claim.limit:
                    worst, wait = claim, HELD_WAIT
        if worst is not None:
            return Verdict(worst, wait, left=self._left())
        for claim, purse in self._purses:
            if claim.hard and not purse.seeded:
                return Verdict(claim, HELD_WAIT, unknown=True, left=self._left())
            if claim.hard and purse.left(claim.limit) < ask.least:
                return _short(claim, purse, ask)
        raise AssertionError("refused by nothing")

    def _open(self, claim: Claim, purse: Purse, wall: float) -> None:
        """The present window, and what was spent in it before anything was counted here, once that is known."""
        purse.turn(wall)
        if not purse.seeded:
            spent = self._seeds.spent(claim, wall) if self._seeds is not None else 0
            if spent is not None:
                purse.seed(spent)

    def _left(self) -> tuple[int, ...]:
        return tuple([int(each.level) if each.level > 0 else 0 for each in self._rated])


class Memory:
    """core.gauges.Gauges. `alert`: told of a tenant, a claim, a share of a budget that was passed, and what was spent."""

    def __init__(self, seeds: Seeds | None = None, alert: Alert | None = None) -> None:
        self._seeds = seeds
        self._alert = alert
        self._states: dict[tuple[str, str], State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def bind(self, tenant: str, claims: tuple[Claim, ...]) -> Account:
        return Account(tenant, claims, tuple(self._state(tenant, claim) for claim in claims), self._seeds, self._alert)

    def rest(self, now: float, wall: float) -> None:
        self._states = {name: state for name, state in self._states.items() if not _at_rest(state, now, wall)}

    def _state(self, tenant: str, claim: Claim) -> State:
        at = (tenant, claim.name)
        state = self._states.get(at)
        if state is None:
            state = self._states[at] = _fresh(claim)
        if isinstance(state, Bucket) and state.size != claim.limit:
            state.resize(claim.limit)
        return state


def _fresh(claim: Claim) -> State:
    match claim.measure:
        case "requests" | "tokens":
            return Bucket.per_minute(claim.limit)
        case "day":
            return Day()
        case "concurrent":
            return Slots()
        case "budget":
            return Purse(claim.period)


def _forever(claim: Claim) -> float:
    """A limit of 0 never lets anything through."""
    return 60.0 if claim.limit <= 0 else 0.0


def _short(claim: Claim, purse: Purse, ask: Ask) -> Verdict:
    """A budget that has less left than what is asked: others may give theirs back, or only its next window helps."""
    held = claim.limit - purse.spent >= (ask.least or ask.cost)
    return Verdict(claim, HELD_WAIT if held else purse.until - ask.wall, held=held)


def _at_rest(state: State, now: float, wall: float) -> bool:
    if isinstance(state, Bucket):
        return not state.wait(state.size, now)
    if isinstance(state, Day):
        return wall >= state.until
    return isinstance(state, Slots) and not state.busy
