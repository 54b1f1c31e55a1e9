"""In which order a plan's targets are tried for one request: who can, who is near, then the strategy.

    abilities and context: skipped while somebody is able
    nearest first, the strategy among equals, keys within a target in turn, by weight, or by session

Law: who is able is decided here, the order among them is group.py's. `sift` says why somebody is left out, in words
that `explain` shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_gateway.core.exchange import Exchange
from llm_gateway.formats.needs import needs
from llm_gateway.routing import ask
from llm_gateway.routing.plan import Plan, When
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.target import Target

CONTEXT = "context"


def order(plan: Plan, x: Exchange, turn: int, hit: float = 0.0) -> list[Target]:
    """All targets, best first; not to be changed. hit: the caller's share of cached prompt tokens."""
    field = plan.field
    if field is None:
        return plan.only or []
    if plan.checks:
        field = field.among(*able(plan, x))
    sticky = b""
    if plan.sticky == "prefix" or (b"x-gateway-session" in x.headers and plan.sticky != "none"):
        sticky = ask.session(x, prefix=plan.sticky == "prefix")
    return field.order(x, turn, hit, sticky)


def sift(plan: Plan, x: Exchange, stops: Sequence[Stop]) -> list[tuple[Stop, str]]:
    """Each with why it cannot serve this request; "" if it can."""
    asked = plan.checks - {CONTEXT}
    wanted = needs(x.route.format, x.peek.members, x.body, asked) if asked else frozenset()
    room = ask.prompt(x) + (x.peek.max_tokens or 0) if CONTEXT in plan.checks else 0
    return [(stop, _why_not(stop, wanted, room)) for stop in stops]


def able(plan: Plan, x: Exchange) -> tuple[tuple[Stop, ...], tuple[Stop, ...]]:
    """Stops and fallbacks that can serve it. Where none is said to be able, all are asked: the provider knows best, and says it well."""
    good = {id(stop) for stop, why in sift(plan, x, (*plan.stops, *plan.fallbacks)) if not why}
    if not good:
        return plan.stops, plan.fallbacks
    stops = tuple(stop for stop in plan.stops if id(stop) in good)
    rest = tuple(stop for stop in plan.fallbacks if id(stop) in good)
    return (stops, rest) if stops else (rest[:1], rest[1:])


def matches(when: When, x: Exchange, said: frozenset[str]) -> bool:
    """Whether a rule is for this request. said: its tags."""
    principal = x.principal
    if when.tags and not when.tags <= said:
        return False
    if when.tenants and (principal is None or principal.tenant not in when.tenants):
        return False
    if when.keys and (principal is None or principal.key not in when.keys):
        return False
    if when.stream is not None and when.stream is not x.stream:
        return False
    if when.over is not None and ask.prompt(x) <= when.over:
        return False
    if when.under is not None and ask.prompt(x) >= when.under:
        return False
    return not when.needs or when.needs <= needs(x.route.format, x.peek.members, x.body, when.needs)


# -- inside --------------------------------------------------------------------------------------------------------------


def _why_not(stop: Stop, wanted: frozenset[str], room: int) -> str:
    missing = wanted & stop.lacks
    if missing:
        return f"has no {', '.join(sorted(missing))}"
    if room and stop.context is not None and room > stop.context:
        return f"its context of {stop.context} tokens is too small for about {room}"
    return ""
