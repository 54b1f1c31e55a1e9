"""In which order equal candidates are tried. Pure: numbers in, places out; dice are arguments.

Every function returns all places, best first: whoever walks the order skips those that cannot be asked now, so that a candidate
that is down costs the others nothing but its share.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate, pairwise, permutations

UNKNOWN = math.inf
MOST_DEALT = 5  # candidates; all their orders are 120, those of six 720
Slopes = tuple[float, float, float]


def rotated(count: int, turn: int) -> list[int]:
    """Each first in its turn."""
    start = turn % count
    return [*range(start, count), *range(start)]


def weighted(weights: Sequence[float], dice: Sequence[float]) -> list[int]:
    """First with the probability of its weight, then the next among the rest. dice: uniform in [0, 1), one each.

    Efraimidis and Spirakis, Weighted random sampling with a reservoir, 2006: exponential keys."""
    keys = [(1.0 - die) ** (1.0 / weight) for die, weight in zip(dice, weights, strict=True)]
    return sorted(range(len(weights)), key=keys.__getitem__, reverse=True)


class Deck:
    """As `weighted`, with every order there is laid out beforehand: one die and one search instead of a die, a power and a sort each."""

    def __init__(self, weights: Sequence[float]) -> None:
        """weights: of at most `MOST_DEALT`."""
        self.orders = [*permutations(range(len(weights)))]
        self.ends = [*accumulate(_chance(order, weights) for order in self.orders)]

    def deal(self, die: float) -> tuple[int, ...]:
        """die: uniform in [0, 1)."""
        return self.orders[min(bisect_right(self.ends, die), len(self.orders) - 1)]  # the ends' last may be a hair below 1


def _chance(order: Sequence[int], weights: Sequence[float]) -> float:
    chance, left = 1.0, float(sum(weights))
    for place in order:
        chance *= weights[place] / left if left > 0 else 1.0
        left -= weights[place]
    return chance


def least(loads: Sequence[float], turn: int) -> list[int]:
    """The least loaded first; equals in turn."""
    return sorted(rotated(len(loads), turn), key=loads.__getitem__)


def two_choices(scores: Sequence[float], dice: tuple[float, float]) -> list[int]:
    """The better of two picked at random, then the rest from the best on: everybody at once does not run to the one who looks best.

    Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001. Lower scores are better."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    if len(order) > 2:
        first = better(scores, dice)
        order.remove(first)
        order.insert(0, first)
    return order


def better(scores: Sequence[float], dice: tuple[float, float]) -> int:
    """The first of `two_choices` among more than two."""
    count = len(scores)
    one = int(dice[0] * count)
    two = (one + 1 + int(dice[1] * (count - 1))) % count
    return one if scores[one] <= scores[two] else two


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


def settled(slopes: Sequence[Slopes | None]) -> list[int] | None:
    """Each one's rank by price, where that is the same for every request: whoever is cheaper is so by what is written and no dearer by
    what is read. Equal ranks for equal prices; the unpriced (None) last. None: it depends on the request."""
    known = [(UNKNOWN, UNKNOWN, UNKNOWN) if each is None else each for each in slopes]
    order = sorted(range(len(known)), key=lambda place: (known[place][2], known[place]))
    ranks = [0] * len(known)
    for before, after in pairwise(order):
        one, other = known[before], known[after]
        if one != other and not (one[2] < other[2] and one[0] <= other[0] and one[1] <= other[1]):
            return None
        ranks[after] = ranks[before] + (one != other)
    return ranks


def blended(
    weights: tuple[float, float, float], latencies: Sequence[float], costs: Sequence[float | None], errors: Sequence[float]
) -> list[float]:
    """One score from three, lower is better: latency and cost by their weights and relative to the best, both times what failures cost.
    errors: shares of calls. A latency of 0 or a cost of None is not known, and counts as the best: it is tried, and then it is known."""
    by_latency, by_cost, by_errors = weights
    return added(paced(by_latency, latencies), by_cost, costs, [fine(by_errors, wrong) for wrong in errors])


def fine(weight: float, wrong: float) -> float:
    """By what failures multiply a score. wrong: their share of calls."""
    return 1.0 + weight * 4.0 * wrong


def timed(speeds: Sequence[tuple[float, float]], output: int) -> list[float]:
    """Expected seconds to the last of `output` tokens; 0 where nothing was seen yet, so that it will be. speeds: seconds to the first, and per
    token."""
    return [first + pace * output for first, pace in speeds]


def paced(weight: float, latencies: Sequence[float]) -> list[float]:
    """What `blended` makes of latencies alone."""
    fastest = min([value for value in latencies if value] or [1.0])
    return [weight * (latency / fastest if latency else 1.0) for latency in latencies]


def added(paces: Sequence[float], weight: float, costs: Sequence[float | None], fines: Sequence[float]) -> list[float]:
    """What `blended` makes of the rest. paces: of `paced`; fines: by which failures multiply."""
    if None not in costs and (cheapest := min(costs)) > 0:  # type: ignore[type-var,operator]
        share = weight / cheapest  # type: ignore[operator]
        return [(pace + share * cost) * fine for pace, cost, fine in zip(paces, costs, fines, strict=True)]  # type: ignore[operator]
    cheapest = min([value for value in costs if value is not None] or [1.0])
    scores = []
    for pace, cost, fine in zip(paces, costs, fines, strict=True):
        relative = cost / cheapest if cost is not None and cheapest > 0 else 1.0 + (cost or 0.0)
        scores.append((pace + weight * relative) * fine)
    return scores
