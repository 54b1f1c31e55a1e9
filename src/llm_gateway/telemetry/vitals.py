"""How each provider is doing, judged by the traffic that goes there anyway.

Law: 5 failures in a row make a provider unhealthy, one answer makes it healthy again; latency is an exponential mean over
the answers, weight 1/8, and forgotten when none came for five minutes. A provider nobody used yet is healthy, with no latency.
What clients can bring about at will (a model that does not exist, a deadline too short, too many requests) is neither a
failure nor an answer.
"""

from __future__ import annotations

from llm_gateway.core.errors import Fault, Kind

FALL = 5
FAILURES = frozenset({
    Kind.UPSTREAM_CONNECT, Kind.UPSTREAM_CUT, Kind.UPSTREAM_BROKEN, Kind.UPSTREAM_ERROR, Kind.OVERLOADED, Kind.TIMEOUT,
    Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_TLS, Kind.UPSTREAM_DNS,
})  # fmt: skip
# Codes of faults that are no sign of a provider in trouble: the client's own time limit, and an answer that the model could not
# finish, which the client's question may bring about.
HARMLESS = frozenset({"request_timeout", "model_failed"})
WEIGHT = 0.125
MEMORY = 300.0  # seconds


class Vital:
    """waiting: it cannot be called yet, however well it may be."""

    __slots__ = ("answers", "failures", "latency_ms", "seen", "since", "waiting")

    def __init__(self) -> None:
        self.answers = self.seen = 0  # counted, and those there were when somebody last looked, which was new then
        self.since = 0.0
        self.failures = 0
        self.waiting = False
        self.latency_ms: float | None = None

    @property
    def healthy(self) -> bool:
        return self.failures < FALL and not self.waiting


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
            vital.answers += 1
            old = vital.latency_ms
            vital.latency_ms = ms if old is None else old + WEIGHT * (ms - old)

    def failed(self, provider: str, fault: Fault) -> None:
        vital = self._vitals.get(provider)
        if vital is not None and fault.kind in FAILURES and fault.code not in HARMLESS:
            vital.failures += 1

    def age(self, now: float) -> None:
        """Every second or so. Looked at from outside, so that an answer does not have to ask what time it is."""
        for vital in self._vitals.values():
            if vital.answers != vital.seen:
                vital.seen, vital.since = vital.answers, now
            elif vital.latency_ms is not None and now - vital.since > MEMORY:
                vital.latency_ms = None

    def report(self) -> dict[str, tuple[bool, float | None]]:
        """By name: (healthy, latency in ms)."""
        return {name: (vital.healthy, vital.latency_ms) for name, vital in self._vitals.items()}


def joint(passive: tuple[bool, float | None], active: tuple[bool, float | None] | None) -> tuple[bool, float | None]:
    """Traffic and probes together: healthy if both say so; the latency of traffic, else that of probes."""
    if active is None:
        return passive
    return passive[0] and active[0], passive[1] if passive[1] is not None else active[1]
