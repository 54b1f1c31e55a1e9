"""How each provider is doing, judged by the traffic that goes there anyway and by the operator's probes.

Law: 5 failures in a row make a provider unhealthy, one answer makes it healthy again; latency is an exponential mean over
the answers, weight 1/8. A provider nobody used yet is healthy, with no latency but that of its probes. What clients can bring about
at will (a model that does not exist, a deadline too short, too many requests) is neither a failure nor an answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault, Kind

FALL = 5
FAILURES = frozenset({
    Kind.UPSTREAM_CONNECT, Kind.UPSTREAM_CUT, Kind.UPSTREAM_BROKEN, Kind.UPSTREAM_ERROR, Kind.OVERLOADED, Kind.TIMEOUT,
    Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_TLS, Kind.UPSTREAM_DNS,
})  # fmt: skip
CLIENTS_LIMIT = "request_timeout"
WEIGHT = 0.125


class Vital:
    """waiting: it cannot be called yet, however well it may be; probed: what the last probes found, (up, latency in ms)."""

    __slots__ = ("failures", "latency_ms", "probed", "waiting")

    def __init__(self) -> None:
        self.failures = 0
        self.waiting = False
        self.latency_ms: float | None = None
        self.probed: tuple[bool, float | None] = (True, None)

    @property
    def healthy(self) -> bool:
        return self.failures < FALL and not self.waiting and self.probed[0]

    @property
    def latency(self) -> float | None:
        return self.latency_ms if self.latency_ms is not None else self.probed[1]


class Vitals:
    def __init__(self) -> None:
        self._vitals: dict[str, Vital] = {}

    def adopt(self, providers: tuple[str, ...], waiting: frozenset[str] = frozenset()) -> None:
        """Knows exactly these from now on; what is known of those that stay is kept. waiting: those without credentials."""
        self._vitals = {name: self._vitals.get(name) or Vital() for name in providers}
        for name, vital in self._vitals.items():
            vital.waiting = name in waiting

    def answered(self, provider: str, ms: float) -> None:
        vital = self._vitals.get(provider)
        if vital is not None:
            vital.failures = 0
            old = vital.latency_ms
            vital.latency_ms = ms if old is None else old + WEIGHT * (ms - old)

    def failed(self, provider: str, fault: Fault) -> None:
        vital = self._vitals.get(provider)
        if vital is not None and fault.kind in FAILURES and fault.code != CLIENTS_LIMIT:
            vital.failures += 1

    def probed(self, found: Mapping[str, tuple[bool, float | None]]) -> None:
        """What the operator's probes say. One answer of late outweighs an old failure."""
        for name, said in found.items():
            vital = self._vitals.get(name)
            if vital is not None:
                vital.probed = said
                if said[0] and vital.failures >= FALL:
                    vital.failures = 0

    def report(self) -> dict[str, tuple[bool, float | None]]:
        """By name: (healthy, latency in ms)."""
        return {name: (vital.healthy, vital.latency) for name, vital in self._vitals.items()}
