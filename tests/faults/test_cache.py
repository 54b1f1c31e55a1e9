"""Row 23: many ask the same at once."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from faults.conftest import Seen
from faults.house import Gateway, House, Upstream
from processes import eventually


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
