"""What is counted of Redis is in the table of metrics, and a page of it can be read."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter

from prometheus_client.parser import text_string_to_metric_families

from llm_gateway.stores.redis.meter import BOUNDS
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
        assert samples["redis_operations_total"] == samples["llm_gateway_redis_latency_seconds_count"] == len(one.shared.scripts.all) + 5
        assert samples["llm_gateway_redis_unavailable"] == 0
        assert 'llm_gateway_redis_errors_total{kind="timeout"} 3' in page


async def test_a_latency_falls_into_its_bucket(fresh):
    async with store(fresh, patient=True) as one:
        bound = one.bind(budget())
        await bound.reserve(ask("a", cost=1))  # seeds it
        before, begun = [*one.shared.meter.counts], one.shared.meter.seconds.sum
        at = perf_counter()
        await bound.reserve(ask("b", cost=1))
        taken = perf_counter() - at
        (place,) = [at for at, count in enumerate(one.shared.meter.counts) if count > before[at]]
        spent = one.shared.meter.seconds.sum - begun
        assert 0 < spent <= taken
        assert place == bisect_left(BOUNDS, spent)
