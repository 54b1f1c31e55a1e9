"""Row 23: many ask the same at once."""

from __future__ import annotations

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.conftest import Seen
from faults.house import Gateway, House, Upstream, descendants, kill
from processes import eventually
from redis_server import redis_server


@pytest.fixture(scope="module")
def upstream(block: House) -> Upstream:
    return block.upstream()


@pytest.fixture(scope="module")
def gateway(block: House, upstream: Upstream) -> Gateway:
    return block.gateway({"up": upstream.url}, cache={"enabled": True})


@pytest.mark.row(23)
def test_a_hundred_identical_misses_are_one_call(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """100 clients ask the same at once, plainly and as a stream; the upstream takes half a second."""
    told = []
    for stream in (False, True):
        model = f"fault-slow_ok:0.{5 + stream}"
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _: gateway.ask(f"up/{model}", stream=stream), range(100)))  # noqa: B023  used at once
        assert [each.status for each in answers] == [200] * 100
        assert len({each.body for each in answers}) == 1
        assert sum(each.headers["x-gateway-cache"] == "hit" for each in answers) == 99
        assert upstream.seen()["models"][model] == 1
        told.append(max(each.seconds for each in answers))
    seen(f"one call, 99 replies from it, the last after {told[0]:.1f} s; as streams {told[1]:.1f} s")


@pytest.mark.row(23)
def test_a_leader_that_leaves_takes_nobody_with_it(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """The client whose request is under way closes its socket while 20 others wait for its reply."""
    model = "fault-slow_ok:1.2"
    leader = gateway.opened(f"up/{model}", headers="X-Request-ID: row-23-leader\r\n", temperature=0)
    eventually(lambda: upstream.seen()["models"].get(model) == 1)
    with ThreadPoolExecutor(20) as pool:
        others = [pool.submit(gateway.ask, f"up/{model}", stream=True, temperature=0) for _ in range(20)]
        time.sleep(0.3)
        leader.close()
        answers = [each.result() for each in others]
    assert all(each.well for each in answers)
    assert gateway.row("row-23-leader")["status"] == 499
    assert upstream.seen()["models"][model] == 2
    seen("one of the 20 asked in its place: two calls in all, 20 whole replies")


@pytest.mark.row(23)
def test_a_leader_that_fails_is_followed_by_one_at_a_time(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """The upstream refuses the first, half a second late, and is well then."""
    upstream.told("late:0.5,503")

    def recover() -> None:
        eventually(lambda: upstream.seen()["models"].get("moody"))
        upstream.told("ok")

    recovers = threading.Thread(target=recover)
    recovers.start()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: gateway.ask("up/moody"), range(20)))
    recovers.join()
    failed = [each for each in answers if each.status != 200]
    calls = upstream.seen()["models"]["moody"]
    assert calls == len(failed) + 1
    assert 1 <= len(failed) < 5
    assert json.loads(failed[0].body)["error"]["code"]
    seen(f"{len(failed)} of 20 met the fault, each its own; then one call answered all others")


@pytest.mark.slow
@pytest.mark.row(23)
def test_two_gateways_ask_once_and_one_goes_on_where_the_other_is_killed(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """Two gateways with one Redis: 100 clients ask at both; then the gateway whose request is under way is killed with SIGKILL, with all its
    processes, while 20 wait at the other."""
    with redis_server(tmp_path) as (url, _):
        both = [house.gateway({"up": upstream.url}, cache={"enabled": True, "backend": "redis"}, redis={"url": url, "timeout_ms": 1000}) for _ in range(2)]
        for each in both:
            eventually(lambda: each.metric("llm_gateway_redis_unavailable") == 0 and each.metric("redis_operations_total"))  # noqa: B023  used at once
        model = "fault-slow_ok:0.7"
        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda number: both[number % 2].ask(f"up/{model}"), range(100)))
        assert [each.status for each in answers] == [200] * 100
        assert len({each.body for each in answers}) == 1
        assert sum(each.headers["x-gateway-cache"] == "hit" for each in answers) == 99
        assert upstream.seen()["models"][model] == 1
        last, model = max(each.seconds for each in answers), "fault-slow_ok:2"
        leader = both[0].opened(f"up/{model}")
        eventually(lambda: upstream.seen()["models"].get(model) == 1)
        with ThreadPoolExecutor(20) as pool:
            others = [pool.submit(both[1].ask, f"up/{model}", stream=True) for _ in range(20)]
            time.sleep(0.3)
            for pid in (both[0].process.pid, *descendants(both[0].process.pid)):
                kill(pid, signal.SIGKILL)
            answers = [each.result() for each in others]
        leader.close()
        assert all(each.well for each in answers)
        assert upstream.seen()["models"][model] == 2
    slowest = max(each.seconds for each in answers)
    seen(f"one call for both, 99 replies from it, the last after {last:.1f} s; one more call for the 20 of the other, answered within {slowest:.1f} s")
