"""What is counted of the way to Redis: operations and how long they took, failures by kind, who stood in meanwhile. Ints in slots."""

from __future__ import annotations

from llm_gateway.telemetry.families import FAMILIES
from llm_gateway.telemetry.metrics import Families, Histogram

BOUNDS = FAMILIES["llm_gateway_redis_latency_seconds"].buckets


class Meter:
    """`counts`: of operations, by how long they took (places in `BOUNDS`); whoever counts adds the seconds to `seconds.sum`."""

    __slots__ = ("booked", "counts", "failures", "local", "seconds")

    def __init__(self) -> None:
        self.seconds = Histogram(BOUNDS)
        self.counts = self.seconds.counts
        self.failures: dict[str, int] = {}
        self.local: dict[str, int] = {}
        self.booked = 0

    def fail(self, kind: str, count: int = 1) -> None:
        self.failures[kind] = self.failures.get(kind, 0) + count

    def stand_in(self, outcome: str) -> None:
        """A request that was judged without Redis (granted, refused, closed: a hard budget)."""
        self.local[outcome] = self.local.get(outcome, 0) + 1

    def report(self) -> Families:
        return {
            "redis_operations_total": {"": sum(self.counts)},
            "llm_gateway_redis_latency_seconds": {"": self.seconds.value()},
            "llm_gateway_redis_errors_total": {f'kind="{kind}"': count for kind, count in self.failures.items()},
            "llm_gateway_redis_stand_in_total": {f'outcome="{outcome}"': count for outcome, count in self.local.items()},
            "llm_gateway_redis_booked_late_total": {"": self.booked},
        }
