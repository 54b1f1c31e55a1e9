"""A token bucket that may be overdrawn: what a call will cost is estimated before and corrected after. Pure.

Law: `take` either takes all or nothing and says how long to wait; `correct` settles the difference to what it was in truth, and may
leave a debt that the next callers wait for. A cost above the whole bucket is let through once it is full: else it never would be.
The burst is one minute's worth, as the providers that publish their limits have it.
"""

from __future__ import annotations

from msgspec import Struct


class Bucket(Struct):
    """`rate`: per second; `size`: the most it holds; `level`: what is in it, at `at` (seconds on the caller's clock)."""

    rate: float
    size: float
    level: float
    at: float = 0.0

    @classmethod
    def per_minute(cls, amount: float) -> Bucket:
        return cls(amount / 60.0, amount, amount)

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `cost` could be taken; 0: now. Takes nothing."""
        self._fill(now)
        missing = min(cost, self.size) - self.level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, cost: float, now: float) -> float:
        """Takes `cost` and returns 0, or takes nothing and returns the seconds to wait."""
        wait = self.wait(cost, now)
        if not wait:
            self.level -= cost
        return wait

    def correct(self, difference: float) -> None:
        """What the call cost beyond its estimate; negative: less."""
        self.level = min(self.size, self.level - difference)

    def _fill(self, now: float) -> None:
        if now > self.at:
            if self.at:
                self.level = min(self.size, self.level + (now - self.at) * self.rate)
            self.at = now
