"""In which order a plan's targets are tried for one request: who can, who is near, then the strategy.

    abilities and context: skipped while somebody is able
    nearest first, the strategy among equals, keys within a target in turn, by weight, or by session

Law: the arithmetic is policies.balance's; numbers come from conditions, dice from here. `sift` says why somebody is left out, in words
that `explain` shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import random
from time import perf_counter

from llm_gateway.core.exchange import Exchange
from llm_gateway.formats.needs import needs
from llm_gateway.policies import balance
from llm_gateway.routing import ask
from llm_gateway.routing.plan import Plan, Speeds, Stop, When
from llm_gateway.routing.target import Target

HALF_LIFE = 60.0  # seconds after which a measured latency counts half, so that the slow are tried again
LOOK = 0.02  # seconds for which what was seen of targets' speeds holds
CONTEXT = "context"


def order(plan: Plan, x: Exchange, turn: int, hit: float = 0.0) -> list[Target]:
    """All targets, best first. hit: the caller's share of cached prompt tokens."""
    stops, rest = (plan.stops, plan.fallbacks) if not plan.checks else able(plan, x)
    sticky = b""
    if plan.sticky == "prefix" or (b"x-gateway-session" in x.headers and plan.sticky != "none"):
        sticky = ask.session(x, prefix=plan.sticky == "prefix")
    ranked = _ranked(plan, x, stops, turn, sticky, hit)
    if plan.single:
        return [stop.keys[0] for stop in (*ranked, *rest)]
    targets: list[Target] = []
    for stop in (*ranked, *rest):
        targets += _keys(stop, turn, sticky)
    return targets


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


def _ranked(plan: Plan, x: Exchange, stops: tuple[Stop, ...], turn: int, sticky: bytes, hit: float) -> Sequence[Stop]:
    if len(stops) < 2 or plan.strategy == "priority":
        return stops
    if plan.near:
        groups = sorted({stop.distance for stop in stops})
        ranked: list[Stop] = []
        for distance in groups:
            group = tuple(stop for stop in stops if stop.distance == distance)
            ranked += [group[place] for place in _places(plan, x, group, turn, sticky, hit)]
        return ranked
    return [stops[place] for place in _places(plan, x, stops, turn, sticky, hit)]


def _places(plan: Plan, x: Exchange, stops: tuple[Stop, ...], turn: int, sticky: bytes, hit: float) -> Sequence[int]:
    if sticky:
        return balance.rendezvous([stop.mark for stop in stops], [stop.weight for stop in stops], sticky)
    match plan.strategy:
        case "weighted":
            return balance.weighted([stop.weight for stop in stops], [random() for _ in stops])  # noqa: S311
        case "round_robin":
            return balance.rotated(len(stops), turn)
        case "least_busy":
            return balance.least([_busy(stop) / stop.weight for stop in stops], turn)
        case "latency":
            return balance.two_choices(_latencies(plan, stops, x), (random(), random()))  # noqa: S311
        case "throughput":
            return balance.least([pace for _, pace, _ in _speeds(plan, stops).seen], turn)
        case "cost":
            return balance.ranked(_costs(plan, stops, x, hit), turn)
        case _:
            return _adaptive(plan, stops, x, hit, turn)


def _adaptive(plan: Plan, stops: tuple[Stop, ...], x: Exchange, hit: float, turn: int) -> list[int]:
    costs = _costs(plan, stops, x, hit) if plan.weights[1] else [None] * len(stops)
    errors = [wrong for _, _, wrong in _speeds(plan, stops).seen]
    return balance.least(balance.blended(plan.weights, _latencies(plan, stops, x), costs, errors), turn)


def _keys(stop: Stop, turn: int, sticky: bytes) -> tuple[Target, ...] | list[Target]:
    keys = stop.keys
    if len(keys) == 1:
        return keys
    if sticky:
        return [keys[place] for place in balance.rendezvous([key.key_id.encode() for key in keys], stop.weights or (1,) * len(keys), sticky)]
    if stop.weights:
        return [keys[place] for place in balance.weighted(stop.weights, [random() for _ in keys])]  # noqa: S311
    start = turn % len(keys)
    return (*keys[start:], *keys[:start])


def _busy(stop: Stop) -> int:
    keys = stop.keys
    return keys[0].condition.busy if len(keys) == 1 else sum([key.condition.busy for key in keys])


def _speeds(plan: Plan, stops: tuple[Stop, ...]) -> Speeds:
    """As seen at most LOOK seconds ago: at thousands of requests a second, nobody looks at every target for each of them."""
    speeds, now = plan.speeds or Speeds(), perf_counter()
    if now < speeds.until and stops is speeds.stops:
        return speeds
    speeds.until, speeds.stops, speeds.seen = now + LOOK, stops, []
    for stop in stops:
        conditions = [key.condition for key in stop.keys]
        meter = max(conditions, key=lambda each: each.meter.pace.seen).meter  # of the key that was heard last
        first, pace = meter.first.faded(now, HALF_LIFE), meter.pace.faded(now, HALF_LIFE)
        speeds.seen.append((first, pace, min(each.meter.errors for each in conditions)))
        speeds.output = meter.output.value or speeds.output
    return speeds


def _latencies(plan: Plan, stops: tuple[Stop, ...], x: Exchange) -> list[float]:
    """Expected seconds to the last token; 0 where nothing was seen yet, so that it will be."""
    speeds = _speeds(plan, stops)
    output = ask.output(x, speeds.output)
    return [first + pace * output for first, pace, _ in speeds.seen]


def _costs(plan: Plan, stops: tuple[Stop, ...], x: Exchange, hit: float) -> list[float | None]:
    """Expected, in nano-USD; None where it is unpriced."""
    prompt = x.prompt_estimate or ask.prompt(x)
    output = ask.output(x, _speeds(plan, stops).output)
    cached, now = prompt * hit, x.wall
    found: list[float | None] = []
    for stop in stops:
        slopes = stop.keys[0].slopes(now)
        found.append(None if slopes is None else (prompt - cached) * slopes[0] + cached * slopes[1] + output * slopes[2])
    return found
