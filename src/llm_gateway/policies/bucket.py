"""A token bucket that may be overdrawn: what a call will cost is estimated before and corrected after. Pure.

Law: `take` either takes all or nothing and says how long to wait; `correct` settles the difference to what it was in truth, and may
leave a debt that the next callers wait for. A cost above the whole bucket is let through once it is full: else it never would be.
The burst is one minute's worth, as the providers that publish their limits have it.
"""

from __future__ import annotations

from msgspec import Struct


class Rate(Struct, frozen=True):
    """What may go there in a minute; None: any number."""

    requests: float | None = None
    tokens: float | None = None


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
        level, size = self.level, self.size
        if now > self.at:
            if self.at:
                level += (now - self.at) * self.rate
                self.level = level = min(size, level)
            self.at = now
        missing = (min(size, cost)) - level
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

    def resize(self, amount: float) -> None:
        """A new limit, by the minute; what is in it stays, as far as there is room."""
        self.rate, self.size = amount / 60.0, amount
        self.level = min(self.level, amount)


class Allowance(Struct):
    """The buckets of one `Rate`."""

    requests: Bucket | None = None
    tokens: Bucket | None = None

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until one request of so many tokens could go. Takes nothing."""
        first = self.requests.wait(1.0, now) if self.requests is not None else 0.0
        return max(first, self.tokens.wait(tokens, now)) if self.tokens is not None else first

    def take(self, tokens: int, now: float) -> None:
        """After `wait` said 0."""
        if self.requests is not None:
            self.requests.take(1.0, now)
        if self.tokens is not None:
            self.tokens.take(tokens, now)

    def correct(self, difference: float) -> None:
        if self.tokens is not None:
            self.tokens.correct(difference)

    def give_back(self, tokens: int) -> None:
        """Of a call that was not made after all."""
        if self.requests is not None:
            self.requests.correct(-1.0)
        if self.tokens is not None:
            self.tokens.correct(-tokens)

    def adopt(self, rate: Rate) -> None:
        """New limits."""
        self.requests = _adopted(self.requests, rate.requests)
        self.tokens = _adopted(self.tokens, rate.tokens)


def _adopted(bucket: Bucket | None, amount: float | None) -> Bucket | None:
    if amount is None:
        return None
    if bucket is None:
        return Bucket.per_minute(amount)
    if bucket.size != amount:
        bucket.resize(amount)
    return bucket
