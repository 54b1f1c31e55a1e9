"""What a request may use, taken before it is sent and settled after: requests, tokens, slots, money (ADR 009).

Law: nothing is sent that was not reserved. Of money an upper bound is: the prompt's estimate and a tenth more, and the most output that can
come, at the dearest target the request may go to; so that all requests at once overspend by at most what one reply costs beyond its own
bound. Under a hard budget a chat request without a limit of its own gets the largest that what is left affords. What refuses says which
limit it was and when to try again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from math import ceil, isfinite
from time import perf_counter

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.admission import bounds
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.gauges import Ask, Bound, Gauges, Verdict
from llm_gateway.core.headers import render
from llm_gateway.core.tenancy import Claim, Grant, Limits
from llm_gateway.formats import caps
from llm_gateway.routing import ask as said
from llm_gateway.routing.plan import Course, Plan
from llm_gateway.routing.target import Target

MOST_BOUND = 20_000  # keys and models whose claims are kept looked up
CHAT = "chat"
RATED = ("requests", "tokens")  # what callers are told the state of
LEASE_SLACK = 30.0  # seconds beyond a request's deadline for which its reservation is held
_NAMES = {"requests": "requests a minute", "tokens": "tokens a minute", "day": "requests a day", "concurrent": "requests at once"}


# Where it stands in a verdict's `left`, the limit, milliseconds for each of it; header lines for less than a second until it is whole, and for more.
Shown = tuple[int, int, float, bytes, bytes]


class Kept(Struct, eq=False):
    """One principal's claims for one model. `principal`: held, so that no other has its id. `bound` None: nothing is counted. `hard`: money may
    run out; `tokens`: they are counted. `shown`: by measure, what callers are told of each such limit."""

    principal: Principal
    bound: Bound | None
    hard: bool
    tokens: bool
    shown: tuple[tuple[Shown, ...], ...]


class TopUps(Struct, eq=False):
    """Streams that came near what was reserved for them, for /metrics: how often more was granted, refused, and how many were ended for it."""

    granted: int = 0
    refused: int = 0
    ended: int = 0


class Hold(Struct, eq=False):
    """What one request has reserved. `hard`: its money may run out; `tally`: of all requests."""

    bound: Bound
    ask: Ask
    hard: bool
    tally: TopUps

    def settle(self, x: Exchange) -> None:
        """Called by the ledger, once."""
        usage = x.usage
        tokens = usage.input + usage.output if usage is not None else 0
        self.bound.settle(self.ask, 0 if x.cached else tokens, x.cost if x.cost is not None else x.absorbed)


class Quota:
    """`least_output`: tokens; a budget that affords no reply as long as that refuses. `shares`: by how many each limit is divided. `on_limit`:
    told whose limit was reached; a budget is none."""

    def __init__(self, gauges: Gauges, *, least_output: int = 256, shares: int = 1, on_limit: Callable[[str], None] | None = None) -> None:
        self.gauges = gauges
        self.refused: dict[tuple[str, str], int] = {}  # by holder and measure, for /metrics
        self.topups = TopUps()
        self._least = least_output
        self._shares = shares
        self._on_limit = on_limit
        self._kept: dict[tuple[int, str], Kept] = {}

    def reserve(self, x: Exchange, plan: Plan | None, course: Course | None) -> Awaitable[None] | None:
        """Takes all that the request may use; without a plan, that of a reply from the cache. What is returned is to be awaited.

        Raises Fault RATE_LIMIT; FORBIDDEN where a hard budget cannot tell the price; OVERLOADED while what was spent is not known."""
        principal = x.principal
        if principal is None or not (principal.holders or principal.max_output):
            return None
        kept = self._kept.get((id(principal), x.model))
        if kept is None:
            kept = self._bind(principal, x.model, x.wall)
        if principal.max_output is not None and course is not None:
            _cap(x, principal.max_output, course.target)
        if kept.bound is None:
            return None
        under_way = x.deadline - x.started if course is not None else 0.0  # a reply from the cache has no deadline, it is there
        ask = Ask(x.id, 0, 0, 0, under_way + LEASE_SLACK, perf_counter(), x.wall)
        if course is not None and plan is not None:
            if kept.tokens:
                ask.tokens = said.size(x) + said.output(x, 0)
            if _pays(x, kept):
                self._price(x, ask, plan, course)
        verdict = kept.bound.reserve(ask)
        if isinstance(verdict, Verdict):
            if verdict.refused is None and ask.least == ask.cost:  # all of it, as mostly
                if verdict.left:
                    x.extra += _headers(kept.shown, verdict.left)
                x.hold = Hold(kept.bound, ask, _pays(x, kept), self.topups)
            else:
                self._enter(x, kept, ask, verdict, course, _runs(plan))
            return None
        x.hold = Hold(kept.bound, ask, _pays(x, kept), self.topups)  # whatever the answer will be, should nobody wait for it any more
        return self._later(x, kept, ask, verdict, course, _runs(plan))

    def cover(self, x: Exchange, target: Target) -> Awaitable[None] | None:
        """Before another attempt: what it may cost at this target, beside what earlier ones have. Raises Fault RATE_LIMIT, FORBIDDEN."""
        hold: Hold = x.hold
        if not hold.hard:
            return None
        cost = bounds.cost(x, [target], None)
        if cost is None:
            raise _unpriced(target)
        more = x.absorbed + cost - hold.ask.cost
        if more <= 0:
            return None
        ask = replace(hold.ask, cost=more, least=more, now=perf_counter())
        verdict = hold.bound.extend(ask)
        if isinstance(verdict, Verdict):
            self._extended(hold, verdict)
            return None
        return self._extended_later(hold, verdict)

    def inherit(self, before: Quota) -> None:
        """Counts go on where a reload puts this one in the other's place; what is under way there counts here, too."""
        self.refused, self.topups = before.refused, before.topups

    def rest(self, wall: float) -> None:
        """What was looked up is forgotten, and with it what counts nothing at present. wall: Unix seconds."""
        self._kept.clear()
        self.gauges.rest(perf_counter(), wall)

    def report(self) -> dict[str, dict[str, float]]:
        """For /metrics, once a second."""
        counts = {f'holder="{holder}",limit="{measure}"': float(count) for (holder, measure), count in self.refused.items()}
        told = self.topups
        asked = {'verdict="granted"': float(told.granted), 'verdict="refused"': float(told.refused)}
        return {
            "llm_gateway_limit_refused_total": counts,
            "llm_gateway_budget_topups_total": asked,
            "llm_gateway_budget_ended_streams_total": {"": float(told.ended)},
        }

    # -- inside ------------------------------------------------------------------------------------------------------

    def _bind(self, principal: Principal, model: str, wall: float) -> Kept:
        if len(self._kept) >= MOST_BOUND:
            self.rest(wall)
        claims = tuple(sorted(claims_of(principal, model, self._shares), key=lambda claim: claim.measure not in RATED))
        bound = self.gauges.bind(principal.tenant, claims) if claims else None
        counted = any(each.measure == "tokens" for each in claims)
        kept = self._kept[id(principal), model] = Kept(principal, bound, _hard(claims), counted, _shown(claims))
        return kept

    def _price(self, x: Exchange, ask: Ask, plan: Plan, course: Course) -> None:
        """Between what the request may cost at most and the least that would do."""
        found = bounds.costs(x, course.targets, None)
        if len(found) == 1 and (single := found[0]) is not None and plan.hedge is None and x.peek.max_tokens:
            ask.cost = ask.least = single
            return
        if None in found:
            priced = [target for target, price in zip(course.targets, found, strict=True) if price is not None]
            course.keep(priced, _unpriced(course.target))
        twice = _runs(plan)
        ask.cost = ask.least = twice * max(price for price in found if price is not None)
        if x.route.operation == CHAT and x.route.format in caps.SHAPES and not x.peek.max_tokens:
            ask.least = min(ask.cost, twice * (bounds.cost(x, course.targets, self._least) or 0))

    def _enter(self, x: Exchange, kept: Kept, ask: Ask, verdict: Verdict, course: Course | None, runs: int) -> None:
        bound = kept.bound
        assert bound is not None  # noqa: S101  asked only where there is one
        if verdict.left:
            x.extra += _headers(kept.shown, verdict.left)
        if verdict.refused is not None:
            x.hold = None
            self._refuse(verdict)
        wanted, ask.cost = ask.cost, verdict.cost
        x.hold = Hold(bound, ask, _pays(x, kept), self.topups)
        if course is not None and kept.hard and ask.least < wanted and x.route.format in caps.SHAPES:
            _afford(x, course, wanted // runs, verdict.cost // runs)

    async def _later(self, x: Exchange, kept: Kept, ask: Ask, verdict: Awaitable[Verdict], course: Course | None, runs: int) -> None:
        self._enter(x, kept, ask, await verdict, course, runs)

    def _extended(self, hold: Hold, verdict: Verdict) -> None:
        if verdict.refused is not None:
            self._refuse(verdict)
        hold.ask.cost += verdict.cost

    async def _extended_later(self, hold: Hold, verdict: Awaitable[Verdict]) -> None:
        self._extended(hold, await verdict)

    def _refuse(self, verdict: Verdict) -> None:
        claim = verdict.refused
        if claim is not None:
            holder = claim.gauge.partition(":")[0]
            self.refused[holder, claim.measure] = self.refused.get((holder, claim.measure), 0) + 1
            if self._on_limit is not None and claim.measure in _NAMES:
                self._on_limit(holder)
            raise refusal(claim, verdict)


def _pays(x: Exchange, kept: Kept) -> bool:
    """Whether money may run out for it: what is stored was paid for when it was made."""
    return kept.hard and not x.route.asked


def claims_of(principal: Principal, model: str, shares: int = 1) -> Iterable[Claim]:
    """Every limit that a request of this principal for this model counts against."""
    for holder in principal.holders:
        grant: Grant = holder.grant
        yield from _limits(holder.id, grant.limits, shares)
        if model in grant.by_model:
            yield from _limits(f"{holder.id} {model}", grant.by_model[model], shares)
        for budget in grant.budgets:
            yield Claim(holder.id, "budget", budget.amount, budget.period, budget.hard, budget.alerts)


def refusal(claim: Claim, verdict: Verdict) -> Fault:
    """What a client is told: whose limit of what, and when again."""
    whose = claim.gauge.partition(":")[0]
    wait = max(1.0, verdict.wait)
    if verdict.unknown:
        message = "What was spent so far is not known at the moment; try again."
        return Fault(Kind.OVERLOADED, message, code="budget_unknown", retry_after=wait)
    if claim.measure != "budget":
        of_model = " for this model" if " " in claim.gauge else ""
        message = f"The limit of {claim.limit} {_NAMES[claim.measure]} of this {whose}{of_model} is reached; try again in {_spoken(wait)}."
        code = "concurrency_limit_exceeded" if claim.measure == "concurrent" else None
        return Fault(Kind.RATE_LIMIT, message, code=code, retry_after=wait)
    if verdict.held:
        message = f"What is left of the budget of this {whose} is reserved by requests under way; try again in {_spoken(wait)}."
        return Fault(Kind.RATE_LIMIT, message, code="budget_reserved", retry_after=wait)
    when = f"a new {claim.period} begins" if claim.period != "total" else "it is raised"
    message = f"The budget of this {whose} does not cover this request; ask for less, or wait until {when}."
    fault = Fault(Kind.RATE_LIMIT, message, code="budget_exceeded", retry_after=wait if isfinite(wait) else None)
    fault.headers = ((b"x-should-retry", b"false"),)
    return fault


def _limits(gauge: str, limits: Limits, shares: int) -> Iterable[Claim]:
    if limits.requests is not None:
        yield Claim(gauge, "requests", _share(limits.requests, shares))
    if limits.tokens is not None:
        yield Claim(gauge, "tokens", _share(limits.tokens, shares))
    if limits.day is not None:
        yield Claim(gauge, "day", _share(limits.day, shares))
    if limits.concurrent is not None:
        yield Claim(gauge, "concurrent", _share(limits.concurrent, shares))


def _share(limit: int, shares: int) -> int:
    return limit if shares == 1 or not limit else max(1, limit // shares)


def _hard(claims: tuple[Claim, ...]) -> bool:
    return any(each.measure == "budget" and each.hard for each in claims)


def _unpriced(target: Target) -> Fault:
    message = f"The price of {target.model[:100]!r} is not known, and this key has a hard budget. The gateway's operator can set `prices`."
    return Fault(Kind.FORBIDDEN, message, param="model", code="model_unpriced")


def _cap(x: Exchange, most: int, target: Target) -> None:
    """The caller's wish for more output than it may have is cut, and it is told."""
    asked = x.peek.max_tokens
    if x.route.format not in caps.SHAPES or (asked is not None and asked <= most):
        return
    if (thoughts := caps.thinking(x.peek, x.route.format)) >= most:
        message = f"This key's replies may have {most} tokens, and thoughts are to have {thoughts} of them: lower `budget_tokens`."
        raise Fault(Kind.INVALID, message, param="thinking.budget_tokens", code="output_limit")
    _set(x, most, target)


def _runs(plan: Plan | None) -> int:
    """How many may be under way at once for one request."""
    return 2 if plan is not None and plan.hedge is not None else 1


def _afford(x: Exchange, course: Course, wanted: int, granted: int) -> None:
    """A chat request without a limit: the largest that was granted, for all targets it may go to."""
    most = bounds.output(x, course.targets)
    if granted < wanted:
        most = min(most, bounds.affordable(x, course.targets, granted))
    elif all(target.longest is not None for target in course.targets):
        return  # the model's own limit is what was reserved
    _set(x, most, course.target)


def _set(x: Exchange, most: int, target: Target) -> None:
    x.peek, name = caps.capped(x.peek, x.route.format, most, target.model)
    x.call = x.filled = None
    if x.marked is not None:
        x.marked, _ = caps.capped(x.marked, x.route.format, most, target.model)
    x.extra += render([(b"x-gateway-adjusted-params", f"{name}={most}".encode())])


def _shown(claims: tuple[Claim, ...]) -> tuple[tuple[Shown, ...], ...]:
    """OpenAI's names of the caller's own state."""
    found = []
    for measure in RATED:
        rated = [(place, each.limit) for place, each in enumerate(claims) if each.measure == measure]
        found.append(tuple(_lines(measure.encode(), place, limit) for place, limit in rated))
    return tuple(each for each in found if each)


def _lines(name: bytes, place: int, limit: int) -> Shown:
    said = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: " % (name, limit, name, name)
    return place, limit, 60_000 / (limit or 1), said + b"%dms\r\n", said + b"%b\r\n"


def _headers(shown: tuple[tuple[Shown, ...], ...], left: tuple[int, ...]) -> bytes:
    """By whichever of the limits is the tightest."""
    told = b""
    for several in shown:
        place, limit, pace, soon, later = several[0]
        rest = left[place]
        for other in several[1:]:
            if left[other[0]] < rest:
                place, limit, pace, soon, later = other
                rest = left[place]
        wait = (limit - rest) * pace
        told += soon % (rest, ceil(wait)) if wait < 1000 else later % (rest, _duration(wait / 1000))
    return told


def _spoken(seconds: float) -> str:
    return f"{ceil(seconds)} s" if seconds <= 120 else f"{ceil(seconds / 60)} min" if seconds <= 7200 else f"{ceil(seconds / 3600)} h"


def _duration(seconds: float) -> bytes:
    """From a second on, as OpenAI writes it, rounded up: 7s, 6m0s."""
    whole = ceil(seconds)
    return b"%ds" % whole if whole < 60 else b"%dm%ds" % divmod(whole, 60)
