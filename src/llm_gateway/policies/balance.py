"""In which order equal candidates are tried. Pure: numbers in, places out; dice are arguments.

Every function returns all places, best first: whoever walks the order skips those that cannot be asked now, so that a candidate
that is down costs the others nothing but its share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

UNKNOWN = math.inf


def rotated(count: int, turn: int) -> list[int]:
    """Each first in its turn."""
    start = turn % count
    return [*range(start, count), *range(start)]


def weighted(weights: Sequence[float], dice: Sequence[float]) -> list[int]:
    """First with the probability of its weight, then the next among the rest. dice: uniform in [0, 1), one each.

    Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006: exponential keys."""
    keys = [(1.0 - die) ** (1.0 / weight) for die, weight in zip(dice, weights, strict=True)]
    return sorted(range(len(weights)), key=keys.__getitem__, reverse=True)


def least(loads: Sequence[float], turn: int) -> list[int]:
    """The least loaded first; equals in turn."""
    return sorted(rotated(len(loads), turn), key=loads.__getitem__)


def two_choices(scores: Sequence[float], dice: tuple[float, float]) -> list[int]:
    """The better of two picked at random, then the rest from the best on: everybody at once does not run to the one who looks best.

    Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001. Lower scores are better."""
    count = len(scores)
    order = sorted(range(count), key=scores.__getitem__)
    if count > 2:
        one = int(dice[0] * count)
        two = (one + 1 + int(dice[1] * (count - 1))) % count
        first = one if scores[one] <= scores[two] else two
        order.remove(first)
        order.insert(0, first)
    return order


def rendezvous(names: Sequence[bytes], weights: Sequence[float], key: bytes) -> list[int]:
    """The same order for the same key everywhere and always; when a candidate goes, only its own keys move.

    Thaler and Ravishankar, 1998; weights by logarithm (Schindelhauer and Schomaker, 2005)."""
    scores = []
    for name, weight in zip(names, weights, strict=True):
        drawn = int.from_bytes(blake2b(name, key=key[:64], digest_size=8).digest(), "big")
        scores.append(-math.log((drawn + 0.5) / 2.0**64) / weight)
    return sorted(range(len(names)), key=scores.__getitem__)


def ranked(values: Sequence[float | None], turn: int) -> list[int]:
    """The lowest first; the unknown last; equals in turn."""
    known = [UNKNOWN if value is None else value for value in values]
    return sorted(rotated(len(known), turn), key=known.__getitem__)


def blended(
    weights: tuple[float, float, float], latencies: Sequence[float], costs: Sequence[float | None], errors: Sequence[float]
) -> list[float]:
    """One score from three, lower is better: latency and cost by their weights and relative to the best, both times what failures cost.
    errors: shares of calls. A latency of 0 or a cost of None is not known, and counts as the best: it is tried, and then it is known."""
    by_latency, by_cost, by_errors = weights
    fastest = min([value for value in latencies if value] or [1.0])
    cheapest = min([value for value in costs if value is not None] or [1.0])
    scores = []
    for latency, cost, wrong in zip(latencies, costs, errors, strict=True):
        score = by_latency * (latency / fastest if latency else 1.0)
        if cost is not None and cheapest > 0:
            score += by_cost * cost / cheapest
        else:
            score += by_cost * (1.0 + (cost or 0.0))
        scores.append(score * (1.0 + by_errors * 4.0 * wrong))
    return scores
