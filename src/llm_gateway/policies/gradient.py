"""How many calls an upstream takes at once before it gets slower, found by watching it. Pure.

After Gradient2 of Netflix's concurrency-limits: the limit follows (long-term time / present time), with head-room of its square root,
and only moves while it is actually used. Law: fed with the time to the *first token*; total time grows with what is asked for and says
nothing of load.
"""

from __future__ import annotations

import math

from msgspec import Struct

TOLERANCE = 1.5  # times the long-term mean that is still no queueing
SMOOTHING = 0.2
FIRST = 20  # samples that count alike
LONG = 600  # samples of the long-term mean
LOADED = 12_000  # while it is loaded: else the mean would learn that slow is usual, and the limit grow for ever


class Bounds(Struct, frozen=True):
    initial: int = 20
    least: int = 4
    most: int = 1000


class Gradient(Struct):
    bounds: Bounds
    limit: float
    long: float = 0.0
    samples: int = 0

    @classmethod
    def of(cls, bounds: Bounds) -> Gradient:
        return cls(bounds, float(bounds.initial))

    def add(self, seconds: float, busy: int) -> None:
        """One call's time to its first token, and how many were under way then."""
        self.samples += 1
        calm = seconds < self.long or busy < self.limit / 2
        weight = 1 / self.samples if self.samples <= FIRST else 1 / LONG if calm else 1 / LOADED
        self.long += (seconds - self.long) * weight
        if self.long > 2 * seconds:  # it was overloaded for long: come back faster
            self.long *= 0.95
        if busy < self.limit / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self.long / seconds)) if seconds > 0 else 1.0
        wanted = self.limit * gradient + math.sqrt(self.limit)
        limit = self.limit * (1 - SMOOTHING) + wanted * SMOOTHING
        self.limit = min(max(limit, self.bounds.least), self.bounds.most)

    def drop(self) -> None:
        """A call was refused or timed out for load."""
        self.limit = max(self.limit * 0.9, self.bounds.least)
