"""What is counted, and how it is reported."""

from __future__ import annotations

import pytest

from llm_gateway.core.types import Usage
from llm_gateway.telemetry.families import FAMILIES
from llm_gateway.telemetry.metrics import Histogram, Metrics, TargetMeter, escape

BRIEFS = {
    "http_requests_total", "http_request_duration_seconds", "llm_provider_requests_total", "llm_provider_errors_total",
    "llm_provider_latency_seconds", "llm_rate_limit_exceeded_total", "redis_operations_total", "cache_hit_ratio",
}  # fmt: skip


def test_the_briefs_eight_are_first_and_by_their_names() -> None:
    assert set(list(FAMILIES)[:8]) == BRIEFS
    assert FAMILIES["cache_hit_ratio"].type == "gauge"


@pytest.mark.parametrize(("value", "bucket"), [(0.0, 0), (1.0, 0), (1.5, 1), (2.0, 1), (2.1, 2), (99.0, 2)])
def test_a_value_on_a_bound_belongs_to_it(value: float, bucket: int) -> None:
    histogram = Histogram((1.0, 2.0))
    histogram.observe(value)
    assert histogram.counts.index(1) == bucket
    assert histogram.value() == [*histogram.counts, value]


def test_requests_by_route_method_and_status() -> None:
    metrics = Metrics()
    metrics.request("/v1/messages", b"POST", 200, 0.2)
    metrics.request("/v1/messages", b"POST", 200, 700.0)
    metrics.request("/health", b"GET", 200, 0.001)
    report = metrics.report()
    assert report["http_requests_total"] == {
        'path="/v1/messages",method="POST",status="200"': 2,
        'path="/health",method="GET",status="200"': 1,
    }
    *counts, total = report["http_request_duration_seconds"]['path="/v1/messages"']
    assert (sum(counts), counts[-1], total) == (2, 1, 700.2)


def test_a_targets_tokens_money_and_mishaps() -> None:
    metrics = Metrics()
    meter = metrics.target("openai", "gpt-4o")
    assert metrics.target("openai", "gpt-4o") is meter
    assert metrics.report()["llm_provider_requests_total"] == {}, "nothing is shown of what was never used"
    meter.requests = 2
    meter.spend(Usage(input=10, output=5, cache_read=3, cache_write_5m=1, cache_write_1h=1, reasoning=2), 1_500_000_000)
    meter.spend(Usage(input=1), None)
    meter.fail("timeout")
    meter.fail("timeout")
    report = metrics.report()
    labels = 'provider="openai",model="gpt-4o"'
    tokens = {key.rpartition('="')[2][:-1]: value for key, value in report["llm_tokens_total"].items()}
    assert tokens == {"input": 11, "output": 5, "cache_read": 3, "cache_write": 2, "reasoning": 2}
    assert report["llm_cost_usd_total"] == {labels: 1.5}
    assert report["llm_unpriced_replies_total"] == {labels: 1}
    assert report["llm_provider_errors_total"] == {f'{labels},kind="timeout"': 2}


def test_bare_families_show_zero_before_anything_happened() -> None:
    report = Metrics().report()
    assert report["redis_operations_total"] == {"": 0}
    assert report["cache_hit_ratio"] == {"": 0}
    assert report.keys() == FAMILIES.keys()


def test_gauges_are_set_and_limits_counted_by_scope() -> None:
    metrics = Metrics()
    metrics.gauges = {"llm_gateway_body_bytes": {"": 7}}
    metrics.limit("provider")
    metrics.limit("provider")
    report = metrics.report()
    assert report["llm_gateway_body_bytes"] == {"": 7}
    assert report["llm_rate_limit_exceeded_total"] == {'scope="provider"': 2}


def test_a_report_is_not_changed_by_what_comes_after() -> None:
    metrics = Metrics()
    metrics.request("/health", b"GET", 200, 0.1)
    before = metrics.report()
    metrics.request("/health", b"GET", 200, 0.1)
    assert list(before["http_requests_total"].values()) == [1]
    assert sum(before["http_request_duration_seconds"]['path="/health"'][:-1]) == 1


def test_labels_are_escaped() -> None:
    assert escape('a"b\\c\nd') == 'a\\"b\\\\c\\nd'
    assert TargetMeter('x"', "y\n").labels == 'provider="x\\"",model="y\\n"'


def test_media_by_outcome_and_bytes() -> None:
    metrics = Metrics()
    assert metrics.report()["llm_gateway_media_bytes_total"] == {"": 0}
    metrics.fetched("fetched", 700)
    metrics.fetched("fetched", 300)
    metrics.fetched("refused")
    report = metrics.report()
    assert report["llm_gateway_media_fetches_total"] == {'outcome="fetched"': 2, 'outcome="refused"': 1}
    assert report["llm_gateway_media_bytes_total"] == {"": 1000}
