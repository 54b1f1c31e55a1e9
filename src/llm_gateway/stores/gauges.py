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
SLACK = 1e-9  # of a bucket's level, as policies.bucket has it
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
    """One tenant's claims and where they are counted; core.gauges.Bound. `_rated`: buckets and whether tokens are in them."""

    __slots__ = ("_alert", "_days", "_never", "_purses", "_rated", "_seeds", "_slots", "_tokens", "claims", "tenant")

    def __init__(self, tenant: str, claims: tuple[Claim, ...], states: tuple[State, ...], seeds: Seeds | None, alert: Alert | None) -> None:
        self.tenant = tenant
        self.claims = claims
        self._seeds = seeds
        self._alert = alert
        pairs = tuple(zip(claims, states, strict=True))
        self._rated = tuple((state, claim.measure == "tokens", claim) for claim, state in pairs if isinstance(state, Bucket))
        self._tokens = tuple(state for state, by_token, _ in self._rated if by_token)
        self._never = any(claim.limit <= 0 for _, _, claim in self._rated)
        self._days = tuple((claim, state) for claim, state in pairs if isinstance(state, Day))
        self._slots = tuple((state, claim) for claim, state in pairs if isinstance(state, Slots))
        self._purses = tuple((state, claim, claim.limit, claim.hard) for claim, state in pairs if isinstance(state, Purse))
        for purse, claim, limit, _ in self._purses:
            purse.adopt(limit, claim.alerts)

    def reserve(self, ask: Ask) -> Verdict:
        """Takes everything first and gives it back where something was short: there mostly is enough. Written out, without a call for each
        gauge: this runs for every request."""
        now, tokens, short, left = ask.now, ask.tokens, self._never, []
        for bucket, by_token, _ in self._rated:
            level, size, cost = bucket.level + (now - bucket.at) * bucket.rate, bucket.size, tokens if by_token else 1
            if level >= size:
                level = size  # as full as it gets: there is room for any cost
            elif level + SLACK < cost:
                short = True
            bucket.at = now
            bucket.level = level = level - cost
            left.append(int(level) if level > 0 else 0)
        for slots, claim in self._slots:
            if slots.busy >= claim.limit:
                short = True
            slots.busy += 1
        granted = ask.cost
        if self._purses or self._days:
            granted = self._granted(ask)
        if short or granted < 0:
            return self._refused(ask)
        for purse, _, _, _ in self._purses:
            purse.reserved += granted
        for _, day in self._days:
            day.count += 1
        return Verdict(None, 0.0, False, False, granted, tuple(left))

    def extend(self, ask: Ask) -> Verdict:
        for purse, claim, limit, hard in self._purses:
            purse.turn(ask.wall)
            if hard and purse.left(limit) < ask.cost:
                return _short(claim, purse, ask)
        for purse, _, _, _ in self._purses:
            purse.take(ask.cost)
        return Verdict(cost=ask.cost)

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        for slots, _ in self._slots:
            slots.busy -= 1
        difference = tokens - ask.tokens
        for bucket in self._tokens:
            bucket.level = min(bucket.size, bucket.level - difference)
        for purse, claim, limit, _ in self._purses:
            purse.reserved -= ask.cost
            purse.spent += cost
            if purse.spent >= purse.due and claim.alerts and self._alert is not None and (share := purse.alert(limit, claim.alerts)):
                self._alert(self.tenant, claim, share, purse.spent)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _granted(self, ask: Ask) -> int:
        """The money, as much as is wanted and left; -1: that is not enough, or the day's requests are over. Takes nothing."""
        granted, wall = ask.cost, ask.wall
        for purse, claim, limit, hard in self._purses:
            if wall >= purse.until or not purse.seeded:
                self._open(claim, purse, wall)
            if hard:
                rest = max(limit - purse.spent - purse.reserved, 0)  # what costs nothing is no matter, also where it is overspent
                if rest < ask.least or not purse.seeded:
                    return -1
                granted = min(granted, rest)
        for claim, day in self._days:
            day.turn(wall)
            if day.count >= claim.limit:
                return -1
        return granted

    def _refused(self, ask: Ask) -> Verdict:
        """Gives back what `reserve` took."""
        for bucket, by_token, _ in self._rated:
            bucket.level += ask.tokens if by_token else 1
        for slots, _ in self._slots:
            slots.busy -= 1
        return self._refusal(ask)

    def _refusal(self, ask: Ask) -> Verdict:
        """What stands in the way, the longest wait of all limits first. Called when something does; nothing is taken."""
        worst, wait = None, 0.0
        for bucket, by_token, claim in self._rated:
            missing = _forever(claim) or bucket.wait(ask.tokens if by_token else 1.0, ask.now)
            if missing > wait:
                worst, wait = claim, missing
        for claim, day in self._days:
            day.turn(ask.wall)
            if day.count >= claim.limit and day.until - ask.wall > wait:
                worst, wait = claim, day.until - ask.wall
        if worst is None:
            for slots, claim in self._slots:
                if slots.busy >= claim.limit:
                    worst, wait = claim, HELD_WAIT
        if worst is not None:
            return Verdict(worst, wait, left=self._left())
        for purse, claim, limit, hard in self._purses:
            if hard and not purse.seeded:
                return Verdict(claim, HELD_WAIT, unknown=True, left=self._left())
            if hard and purse.left(limit) < ask.least:
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
        return tuple([int(each.level) if each.level > 0 else 0 for each, _, _ in self._rated])


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
