"""What is counted of Redis is in the table of metrics, and a page of it can be read."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from llm_gateway.stores.redis.meter import Meter
from llm_gateway.telemetry.exposition import Merger
from llm_gateway.telemetry.families import FAMILIES
from stores.redis.conftest import ask, budget, store


class Report:
    index, pid = 0, 1

    def __init__(self, families):
        self.families = families


async def test_a_page(fresh):
    async with store(fresh, patient=True) as one:
        await one.bind(budget()).reserve(ask("a", cost=1))
        one.shared.meter.fail("timeout", 3)
        one.shared.meter.stand_in("granted")
        families = one.shared.gauges()
        assert families.keys() <= FAMILIES.keys()
        merger = Merger()
        merger.feed(Report(families))
        page = merger.render({})
        samples = {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples if "redis" in sample.name}
        assert samples["redis_operations_total"] == samples["llm_gateway_redis_latency_seconds_count"] == 10
        assert samples["llm_gateway_redis_unavailable"] == 0
        assert 'llm_gateway_redis_errors_total{kind="timeout"} 3' in page


def test_a_latency_falls_into_its_bucket():
    meter = Meter()
    for seconds in (0.00001, 0.0003, 7.0):
        meter.observe(seconds)
    assert meter.seconds.counts[0] == meter.seconds.counts[3] == meter.seconds.counts[-1] == 1
