"""A worker's counters: plain ints in slots and dicts, no lock, no labels rendered until somebody asks.

Law: counting costs a dict look-up and an addition; all string work is in `report`, once a second. Counters of one target
live together in its `TargetMeter`, found without a look-up because the target holds it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeAlias

from llm_gateway.core.types import Usage
from llm_gateway.telemetry.families import FAMILIES

Value: TypeAlias = int | float | list[float]
Families: TypeAlias = dict[str, dict[str, Value]]


class Histogram:
    """Counts per bucket (not cumulative; the last is +Inf) and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def value(self) -> list[float]:
        return [*self.counts, self.sum]


class TargetMeter:
    """What happened at one provider and model."""

    __slots__ = (
        "cache_read", "cache_write", "cost", "errors", "first_token", "input", "labels", "latency", "output", "provider",
        "reasoning", "requests", "unpriced",
    )  # fmt: skip

    def __init__(self, provider: str, model: str) -> None:
        self.provider = provider
        self.labels = f'provider="{escape(provider)}",model="{escape(model)}"'
        self.requests = self.unpriced = 0
        self.errors: dict[str, int] = {}
        self.latency = Histogram(FAMILIES["llm_provider_latency_seconds"].buckets)
        self.first_token = Histogram(FAMILIES["llm_time_to_first_token_seconds"].buckets)
        self.input = self.output = self.cache_read = self.cache_write = self.reasoning = 0
        self.cost = 0  # nano-USD

    def fail(self, kind: str) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def spend(self, usage: Usage, cost: int | None) -> None:
        self.input += usage.input
        self.output += usage.output
        self.cache_read += usage.cache_read
        self.cache_write += usage.cache_write_5m + usage.cache_write_1h
        self.reasoning += usage.reasoning
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost

    def report(self, families: Families) -> None:
        if not self.requests:
            return
        labels = self.labels
        _into(families, "llm_provider_requests_total", labels, self.requests)
        _into(families, "llm_provider_latency_seconds", labels, self.latency.value())
        for kind, count in self.errors.items():
            _into(families, "llm_provider_errors_total", f'{labels},kind="{kind}"', count)
        if self.first_token.sum:
            _into(families, "llm_time_to_first_token_seconds", labels, self.first_token.value())
        for direction in ("input", "output", "cache_read", "cache_write", "reasoning"):
            _into(families, "llm_tokens_total", f'{labels},direction="{direction}"', getattr(self, direction))
        _into(families, "llm_cost_usd_total", labels, self.cost / 1e9)
        _into(families, "llm_unpriced_replies_total", labels, self.unpriced)


class Metrics:
    """All counters of one worker. Gauges are set by their owners just before `report`."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, bytes, int], int] = {}
        self.durations: dict[str, Histogram] = {}
        self.targets: dict[tuple[str, str], TargetMeter] = {}
        self.limited: dict[str, int] = {}
        self.overhead = Histogram(FAMILIES["llm_gateway_overhead_seconds"].buckets)
        self.media: dict[str, int] = {}
        self.media_bytes = 0
        self.fallbacks = 0
        self.hedges = 0
        self.shadows: dict[tuple[str, str], int] = {}
        self.shadow_seconds: dict[str, Histogram] = {}
        self.active = 0
        self.streams = 0
        self.gauges: Mapping[str, Mapping[str, Value]] = {}

    def target(self, provider: str, model: str) -> TargetMeter:
        key = (provider, model)
        meter = self.targets.get(key)
        if meter is None:
            meter = self.targets[key] = TargetMeter(provider, model)
        return meter

    def request(self, label: str, method: bytes, status: int, seconds: float) -> None:
        key = (label, method, status)
        self.requests[key] = self.requests.get(key, 0) + 1
        durations = self.durations.get(label)
        if durations is None:
            durations = self.durations[label] = Histogram(FAMILIES["http_request_duration_seconds"].buckets)
        durations.counts[bisect_left(durations.bounds, seconds)] += 1
        durations.sum += seconds

    def limit(self, scope: str) -> None:
        self.limited[scope] = self.limited.get(scope, 0) + 1

    def shadow(self, model: str, outcome: str, seconds: float | None = None) -> None:
        key = (model, outcome)
        self.shadows[key] = self.shadows.get(key, 0) + 1
        if seconds is not None:
            histogram = self.shadow_seconds.setdefault(model, Histogram(FAMILIES["llm_shadow_duration_seconds"].buckets))
            histogram.observe(seconds)

    def fetched(self, outcome: str, size: int = 0) -> None:
        self.media[outcome] = self.media.get(outcome, 0) + 1
        self.media_bytes += size

    def report(self) -> Families:
        families: Families = {name: {} for name, family in FAMILIES.items() if not family.bare}
        for name, family in FAMILIES.items():
            if family.bare:
                families[name] = {"": 0}
        for (label, method, status), count in self.requests.items():
            labels = f'path="{label}",method="{escape(method.decode("latin-1"))}",status="{status}"'
            _into(families, "http_requests_total", labels, count)
        for label, histogram in self.durations.items():
            _into(families, "http_request_duration_seconds", f'path="{label}"', histogram.value())
        for scope, count in self.limited.items():
            _into(families, "llm_rate_limit_exceeded_total", f'scope="{scope}"', count)
        for outcome, count in self.media.items():
            _into(families, "llm_gateway_media_fetches_total", f'outcome="{outcome}"', count)
        _into(families, "llm_gateway_media_bytes_total", "", self.media_bytes)
        for meter in self.targets.values():
            meter.report(families)
        _into(families, "llm_fallbacks_total", "", self.fallbacks)
        _into(families, "llm_hedges_total", "", self.hedges)
        for (model, outcome), count in self.shadows.items():
            _into(families, "llm_shadow_requests_total", f'model="{escape(model)}",outcome="{escape(outcome)}"', count)
        for model, histogram in self.shadow_seconds.items():
            _into(families, "llm_shadow_duration_seconds", f'model="{escape(model)}"', histogram.value())
        _into(families, "llm_gateway_overhead_seconds", "", self.overhead.value())
        _into(families, "llm_gateway_active_requests", "", self.active)
        _into(families, "llm_gateway_open_streams", "", self.streams)
        for name, values in self.gauges.items():
            families[name] = dict(values)
        return families


def escape(value: str) -> str:
    """A label value (Prometheus text format: backslash, quote and newline are escaped)."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _into(families: Families, family: str, labels: str, value: Value) -> None:
    families[family][labels] = value
