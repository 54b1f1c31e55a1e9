"""A plan as one caller may and wants to have it: other models after it, fewer targets, another order. Plans in, plans out.

Law: narrows and orders, never adds what the configuration or the caller's key does not allow; keeps what it left out, with why.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal
from llm_gateway.core.types import Usage
from llm_gateway.policies import regions
from llm_gateway.routing.group import Field
from llm_gateway.routing.options import Options
from llm_gateway.routing.plan import Plan
from llm_gateway.routing.stop import Stop

MILLION = 1_000_000


def may(principal: Principal | None, model: str) -> bool:
    return principal is None or not principal.models or model in principal.models


def joined(plan: Plan, more: Sequence[Plan]) -> Plan:
    """With other models' targets behind its own."""
    if not more:
        return plan
    known = {stop.name for stop in (*plan.stops, *plan.fallbacks)}
    added = []
    for other in more:
        for stop in (*other.stops, *other.fallbacks):
            if stop.name not in known:
                known.add(stop.name)
                added.append(stop)
    checks = plan.checks.union(*(other.checks for other in more))
    limited = plan.limited or any(other.limited for other in more)
    return replace(plan, fallbacks=(*plan.fallbacks, *added), checks=checks, limited=limited, only=None)


def narrowed(plan: Plan, wish: Options, residency: tuple[str, ...], now: float) -> Plan:
    """Only what may and should be asked, in the order wished for. now: Unix seconds, for prices."""
    excluded = list(plan.excluded)

    def left_out(stop: Stop) -> str:
        return unwanted(stop, wish, now) or astray(stop, residency)

    def left(stops: tuple[Stop, ...]) -> tuple[Stop, ...]:
        kept = []
        for stop in stops:
            why = left_out(stop)
            if why:
                excluded.append((stop, why))
            else:
                kept.append(stop)
        return tuple(kept)

    stops, fallbacks = left(plan.stops), left(plan.fallbacks)
    if not stops:
        stops, fallbacks = fallbacks[:1], fallbacks[1:]
    if wish.strategy:  # the whole list is to be sorted, whoever would have been a fallback
        stops, fallbacks = (*stops, *fallbacks), ()
    elif wish.order:
        stops, fallbacks = _ordered((*stops, *fallbacks), wish.order)
    if not wish.fallbacks:
        stops, fallbacks = stops[:1] if wish.order else stops, ()
    elsewhere = {kind: left(others) for kind, others in plan.elsewhere.items()} if wish.fallbacks else {}
    shadow = plan.shadow if plan.shadow is not None and not left_out(plan.shadow.stop) else None
    strategy = wish.strategy or ("priority" if wish.order else plan.strategy)
    return replace(
        plan, stops=stops, fallbacks=fallbacks, elsewhere=elsewhere, strategy=strategy, only=None,
        field=Field(stops, fallbacks, strategy, plan.weights, near=plan.strategy != "priority"), excluded=tuple(excluded), shadow=shadow,
        measured=plan.measured or strategy in {"latency", "throughput"},
    )  # fmt: skip


def unwanted(stop: Stop, wish: Options, now: float) -> str:
    """Why the caller does not want it; "" if it does."""
    target = stop.keys[0]
    names = {target.provider, target.account.type, stop.name}
    if wish.only and not names & wish.only:
        return "is not among provider.only"
    if names & wish.ignore:
        return "is in provider.ignore"
    if wish.regions and not resides(stop, wish.regions):
        return f"does not run in {', '.join(wish.regions)}"
    for usage, limit, word in (
        (Usage(input=MILLION), wish.max_prompt, "prompt"),
        (Usage(output=MILLION), wish.max_completion, "completion"),
    ):
        price = target.price(usage, now) if limit is not None else None
        if limit is not None and (price is None or price > limit * 1e9):
            return f"its {word} price is {'unknown' if price is None else f'{price / 1e9:g}'}, above {limit:g}"
    return ""


def resides(stop: Stop, wanted: tuple[str, ...]) -> bool:
    """Whether all the places it may run in are wanted ones. Who does not say where it runs is nowhere."""
    return bool(stop.regions) and all(regions.within(region, wanted) for region in stop.regions)


def astray(stop: Stop, residency: tuple[str, ...]) -> str:
    """Why data that may only be in these places must not go there; "" if it may."""
    if not residency or resides(stop, residency):
        return ""
    return f"runs in {', '.join(stop.regions) or 'an unknown region'}, not in {', '.join(residency)}"


def nobody(plan: Plan, residency: tuple[str, ...]) -> Fault:
    """Everything was excluded."""
    if residency and any(" not in " in why for _, why in plan.excluded):
        return stranded(plan.model, residency)
    said = "; ".join(f"{stop.name} {why}" for stop, why in plan.excluded[:5])
    return Fault(Kind.INVALID, f"The request's routing options leave no provider: {said}.", param="provider", code="no_provider_left")


def stranded(model: str, residency: tuple[str, ...]) -> Fault:
    return Fault(
        Kind.FORBIDDEN,
        f"No provider of the model {model[:100]!r} runs where this request's data may be: {', '.join(residency)}.",
        code="residency",
        param="model",
    )


def _ordered(stops: tuple[Stop, ...], order: tuple[str, ...]) -> tuple[tuple[Stop, ...], tuple[Stop, ...]]:
    """Those named first, in the order named; the rest behind, as fallbacks."""
    named = []
    for name in order:
        for stop in stops:
            if stop not in named and name in (stop.keys[0].provider, stop.keys[0].account.type, stop.name):
                named.append(stop)
    rest = tuple(stop for stop in stops if stop not in named)
    return (tuple(named), rest) if named else (stops, ())
