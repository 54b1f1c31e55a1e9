"""Many workers' counters as one page: read by the parsers Prometheus itself publishes, and never going back."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from llm_gateway.core.types import Usage
from llm_gateway.telemetry.exposition import Merger
from llm_gateway.telemetry.families import FAMILIES
from llm_gateway.telemetry.metrics import Families, Metrics


class Report(Struct):
    index: int
    pid: int
    families: Families


def busy(times: int = 1, provider: str = "openai") -> Metrics:
    metrics = Metrics()
    meter = metrics.target(provider, 'gpt-"4o"\n\\')
    for number in range(times):
        metrics.request("/v1/chat/completions", b"POST", 200 if number % 3 else 502, 0.01 * number)
        meter.requests += 1
        meter.latency.observe(0.3 * number)
        meter.first_token.observe(0.2)
        meter.spend(Usage(input=7, output=3), 1_234_567)
        meter.fail("timeout")
        metrics.overhead.observe(0.00007)
        metrics.limit("provider")
    metrics.fallbacks = times
    metrics.active = metrics.streams = 2
    metrics.gauges = {
        "llm_gateway_open_connections": {"": 3},
        "llm_gateway_upstream_connections": {'state="idle"': 1, 'state="busy"': 2},
        "llm_gateway_journal_rows_total": {"": times},
        "llm_gateway_loop_lag_seconds_max": {"": 0.25},
        "llm_gateway_config_generation": {"": 4},
    }
    return metrics


EXTRA = {
    "llm_gateway_config_generation": {"": 4.0},
    "llm_gateway_worker_restarts_total": {"": 1.0},
    "llm_gateway_build_info": {'version="1.0.0"': 1.0},
}


def page(merger: Merger, *, openmetrics: bool = False) -> dict[tuple[str, str], float]:
    """(sample, sorted labels) -> value, as a Prometheus server would read it."""
    text = merger.render(EXTRA, openmetrics=openmetrics)
    families = list((parse_openmetrics if openmetrics else parse_text)(text))
    return {
        (sample.name, str(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples
    }


def merged(*reports: Report) -> Merger:
    merger = Merger()
    for report in reports:
        merger.feed(report)
    return merger


def test_both_formats_say_the_same_and_their_parsers_take_it() -> None:
    merger = merged(Report(0, 10, busy(5).report()), Report(1, 11, busy(3, "azure").report()))
    plain, strict = page(merger), page(merger, openmetrics=True)
    assert plain == strict
    assert len(plain) > 100


def test_every_family_is_on_the_page_with_its_type_and_help() -> None:
    families = {family.name: family for family in parse_openmetrics(Merger().render(EXTRA, openmetrics=True))}
    for name, family in FAMILIES.items():
        shown = families[name.removesuffix("_total") if family.type == "counter" else name]
        assert (shown.type, shown.documentation) == (family.type, family.help)


def test_openmetrics_ends_and_plain_does_not_say_so() -> None:
    assert Merger().render({}, openmetrics=True).endswith("\n# EOF\n")
    assert "EOF" not in Merger().render({})


def test_histograms_add_up() -> None:
    merger = merged(Report(0, 10, busy(20).report()), Report(1, 11, busy(7).report()))
    for family in parse_openmetrics(merger.render(EXTRA, openmetrics=True)):
        if family.type != "histogram":
            continue
        series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        counts: dict[str, float] = {}
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            if sample.name.endswith("_bucket"):
                series[str(labels)].append((float(sample.labels["le"]), sample.value))
            elif sample.name.endswith("_count"):
                counts[str(labels)] = sample.value
        assert series or family.name in {"llm_shadow_duration_seconds", "llm_gateway_redis_latency_seconds"}, "what nobody asked for has none"
        for labels, buckets in series.items():
            bounds, values = zip(*buckets, strict=True)
            assert list(bounds) == sorted(bounds)
            assert bounds[-1] == float("inf")
            assert list(values) == sorted(values), "cumulative"
            assert values[-1] == counts[labels]


def test_gauges_are_summed_but_for_the_worst_and_the_newest() -> None:
    one, two = busy(), busy()
    two.gauges |= {"llm_gateway_loop_lag_seconds_max": {"": 0.75}, "llm_gateway_config_generation": {"": 3}}
    seen = page(merged(Report(0, 10, one.report()), Report(1, 11, two.report())))
    assert seen["llm_gateway_open_connections", "[]"] == 6
    assert seen["llm_gateway_upstream_connections", "[('state', 'busy')]"] == 4
    assert seen["llm_gateway_loop_lag_seconds_max", "[]"] == 0.75
    assert seen["llm_gateway_config_generation", "[]"] == 4
    assert seen["llm_gateway_build_info", "[('version', '1.0.0')]"] == 1


def test_a_dead_workers_counters_stay_and_its_gauges_go() -> None:
    merger = merged(Report(0, 10, busy(5).report()))
    before = page(merger)
    merger.forget(0, 10)
    after = page(merger)
    assert after["llm_gateway_open_connections", "[]"] == 0
    for name in ("llm_gateway_journal_rows_total", "llm_fallbacks_total"):
        assert after[name, "[]"] == before[name, "[]"] == 5
    merger.feed(Report(0, 12, busy(1).report()))
    assert page(merger)["llm_fallbacks_total", "[]"] == 6


def test_forgetting_a_stranger_changes_nothing() -> None:
    merger = merged(Report(0, 10, busy(5).report()))
    before = page(merger)
    merger.forget(3, 99)
    assert page(merger) == before


class World:
    """Workers that count, report, die and are replaced."""

    def __init__(self) -> None:
        self.merger = Merger()
        self.workers = {index: (100 + index, Metrics()) for index in range(2)}
        self.next_pid = 200
        self.counted = 0

    def act(self, action: str, index: int) -> None:
        pid, metrics = self.workers[index]
        match action:
            case "count":
                metrics.request("/health", b"GET", 200, 0.01)
                metrics.fallbacks += 1
            case "report":
                self.merger.feed(Report(index, pid, metrics.report()))
            case "die":
                self.merger.forget(index, pid)
                self.next_pid += 1
                self.workers[index] = (self.next_pid, Metrics())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["count", "count", "report", "die"]), st.integers(0, 1)), max_size=40))
def test_no_counter_ever_goes_back(actions: list[tuple[str, int]]) -> None:
    world = World()
    before: dict[tuple[str, str], float] = {}
    for action, index in actions:
        world.act(action, index)
        now = page(world.merger)
        for key, value in before.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert now[key] >= value, (action, key)
        before = now
