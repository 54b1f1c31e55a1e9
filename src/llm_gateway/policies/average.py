"""Averages of what is measured again and again, newer values weighing more. Pure: time is an argument."""

from __future__ import annotations

import math

from msgspec import Struct

WEIGHT = 1 / 8
FIRST = 8  # values that count alike


class Average(Struct):
    """An exponential mean. `seen`: when a value came last; `value` means nothing before `count`."""

    value: float = 0.0
    count: int = 0
    seen: float = 0.0

    def add(self, value: float, now: float) -> None:
        """The first few count alike, so that one odd start is soon forgotten."""
        self.count = count = self.count + 1
        self.value += (value - self.value) * (WEIGHT if count > FIRST else 1.0 / count)
        self.seen = now

    def faded(self, now: float, half_life: float) -> float:
        """The value, halved for every `half_life` seconds that nobody looked: who was slow once is tried again some day, sooner the
        less slow it was."""
        return self.value * math.exp2(-(now - self.seen) / half_life) if self.count else 0.0


class Sample(Struct):
    """The last `size` values; `quantile` of them, None before there are `least`."""

    size: int = 100
    least: int = 10
    values: list[float] = []
    place: int = 0

    def add(self, value: float) -> None:
        if len(self.values) < self.size:
            self.values.append(value)
        else:
            self.values[self.place] = value
            self.place = (self.place + 1) % self.size

    def quantile(self, share: float) -> float | None:
        if len(self.values) < self.least:
            return None
        return sorted(self.values)[min(len(self.values) - 1, int(share * len(self.values)))]
