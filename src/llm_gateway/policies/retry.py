"""What to do after a failed attempt: the same target again, the next one, or give up. Pure; randomness is an argument.

Law: a caller's fault is never tried again; no wait is longer than `cap`, or than `wait_retry_after` where the upstream said
how long. Two different moves, one table. Same target again: for what may pass by itself, after full jitter, or after the
Retry-After it gave if that is short. Next key or target: at once, for those and for what is wrong on our side of the
fence. Numbers: RELIABILITY "Two different moves"; jitter: "Exponential Backoff And
Jitter", AWS Architecture Blog.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind

Verdict = Literal["same", "next", "stop"]

PASSING = frozenset({
    Kind.UPSTREAM_CONNECT, Kind.UPSTREAM_CUT, Kind.UPSTREAM_ERROR, Kind.UPSTREAM_BROKEN, Kind.OVERLOADED, Kind.TIMEOUT,
    Kind.UPSTREAM_RATE_LIMIT, Kind.UPSTREAM_CONFLICT,
})  # fmt: skip
OURS = frozenset({
    Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_NO_MODEL, Kind.UPSTREAM_TLS, Kind.UPSTREAM_DNS, Kind.UNAVAILABLE,
    Kind.ESCALATED,
})  # fmt: skip
KEYS_OWN = frozenset({
    Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_RATE_LIMIT, Kind.UPSTREAM_NO_MODEL,
})  # what another key of the same provider may not meet  # fmt: skip
STALE = "upstream_stale"
LONGEST_RETRY_AFTER = 3600.0


class Move(Struct, frozen=True):
    """`wait`: seconds before doing it."""

    verdict: Verdict
    wait: float = 0.0


NEXT, STOP = Move("next"), Move("stop")
AFRESH = Move("same")  # on a new connection, for one that died of age: no load the upstream has not asked for


class Policy(Struct, frozen=True):
    """Seconds. `max_attempts` counts all attempts of a request; `budget` is retries as a share of active requests."""

    max_attempts: int = 5
    base: float = 0.5
    cap: float = 8.0
    wait_retry_after: float = 2.0
    budget: float = 0.2
    budget_min: int = 3

    def after(self, fault: Fault, same: int, most_same: int, jitter: float, *, elsewhere: bool = False) -> Move:
        """same: how often this target was retried already; jitter: uniform in [0, 1); elsewhere: another provider or model is
        left. Who does not even pick up is then not waited for: the client's answer is one connection away."""
        kind = fault.kind
        if kind in OURS:
            return NEXT
        if kind not in PASSING:
            return STOP
        if fault.code == STALE and same == 0:
            return AFRESH
        if same >= most_same or (elsewhere and kind is Kind.UPSTREAM_CONNECT):
            return NEXT
        if fault.retry_after is None:
            return Move("same", jitter * min(self.cap, self.base * 2**same))
        return Move("same", fault.retry_after) if fault.retry_after <= self.wait_retry_after else NEXT

    def affords(self, retrying: int, active: int) -> bool:
        """Whether one more retry fits the budget, so that a broken upstream is not hammered by all its clients at once."""
        return retrying < max(self.budget_min, self.budget * active)


def clamp_retry_after(value: float | None) -> float | None:
    """Seconds out of whatever an upstream wrote: NaN and negatives say nothing, absurd ones mean an hour."""
    if value is None or math.isnan(value) or value < 0:
        return None
    return min(value, LONGEST_RETRY_AFTER)
