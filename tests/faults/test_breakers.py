"""Rows 11, 12, 16: upstreams that fail again and again are left alone, probed, and taken back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest

from faults.conftest import Seen
from faults.house import Answer, House, free_port
from processes import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_gateway.policies.breaker") is None, reason="this version has no breakers yet"),
]


@pytest.mark.row(11)
@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_burst_of_failures_opens_the_breaker_and_one_probe_closes_it(house: House, seen: Seen, status: int) -> None:
    """An upstream that answers with this status until told to behave, beside a good one; then both as ever."""
    bad, good = house.upstream(), house.upstream()
    gateway = house.gateway(
        {"bad": bad.url, "good": good.url}, models={"first": {"targets": ["bad/moody"], "fallbacks": ["good/ok"]}}
    )
    bad.told(f"status:{status}")
    answers = [gateway.ask("first") for _ in range(40)]
    assert {(each.status, each.headers["x-gateway-provider"]) for each in answers} == {(200, "good")}
    asked = bad.seen()["models"]["moody"]
    assert asked == 5, "opens at five in a row, and asks no more"
    bad.told("ok")
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        stop, found = threading.Event(), list[Answer]()

        def keep_asking() -> None:
            while not stop.is_set():
                found.append(gateway.ask("first"))
                time.sleep(0.02)

        busy = [pool.submit(keep_asking) for _ in range(8)]
        eventually(lambda: any(each.headers.get("x-gateway-provider") == "bad" for each in found), 30)
        back = time.perf_counter() - began
        stop.set()
        for each in busy:
            each.result()
    assert {each.status for each in found} == {200}
    eventually(lambda: Counter(gateway.ask("first").headers["x-gateway-provider"] for _ in range(20))["bad"] >= 18, 60)
    seen(f"{status}: left alone after {asked} failures, 35 more requests went straight to the fallback; taken back {back:.0f} s after it was well")
    assert back > 2


@pytest.mark.row(11)
def test_a_half_open_breaker_lets_one_request_through_at_a_time(house: House, seen: Seen) -> None:
    """The upstream stays bad for a probe's time, and is slow to say so, while 20 clients ask."""
    bad, good = house.upstream(), house.upstream()
    gateway = house.gateway(
        {"bad": bad.url, "good": good.url}, models={"first": {"targets": ["bad/moody"], "fallbacks": ["good/ok"]}}
    )
    bad.told("status:500")
    for _ in range(8):
        gateway.ask("first")
    assert bad.seen()["models"]["moody"] == 5
    bad.told("late:2,500")
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            gateway.ask("first")
            time.sleep(0.05)

    with ThreadPoolExecutor(20) as pool:
        busy = [pool.submit(keep_asking) for _ in range(20)]
        eventually(lambda: bad.seen()["models"]["moody"] == 6, 20)
        time.sleep(1)
        during = bad.seen()["models"]["moody"]
        stop.set()
        for each in busy:
            each.result()
    assert during == 6
    seen("20 clients asking, one probe on its way for 2 s: nobody else was sent there meanwhile")


@pytest.mark.row(12)
def test_a_key_that_is_limited_is_not_called_again_until_it_may(house: House, seen: Seen) -> None:
    """429 with Retry-After 30 from one of two targets; requests for 33 s."""
    limited, good = house.upstream(), house.upstream()
    gateway = house.gateway(
        {"limited": limited.url, "good": good.url}, models={"first": {"targets": ["limited/moody"], "fallbacks": ["good/ok"]}}
    )
    limited.told("limited:30")
    assert gateway.ask("first").headers["x-gateway-provider"] == "good"
    began, calls = time.monotonic(), []
    limited.told("ok")
    while (at := time.monotonic() - began) < 33:
        answer = gateway.ask("first")
        assert answer.status == 200
        if answer.headers["x-gateway-provider"] == "limited":
            calls.append(at)
        time.sleep(0.1)
    assert calls
    assert calls[0] > 28
    seen(f"no call for {calls[0]:.1f} s, all requests answered by the other target; then called again")


@pytest.mark.row(16)
def test_with_everybody_down_clients_are_told_at_once_and_upstreams_are_spared(house: House, seen: Seen) -> None:
    """Two upstreams that answer 503, and one that is not there; 400 requests by 8 clients, then all well again."""
    one, two = house.upstream(), house.upstream()
    gateway = house.gateway(
        {"one": {"base_url": one.url, "max_retries": 2}, "two": two.url, "gone": f"http://127.0.0.1:{free_port()}"},
        models={"all": {"targets": ["one/moody"], "fallbacks": ["two/moody", "gone/moody"]}},
    )
    for each in (one, two):
        each.told("status:503")
    eventually(lambda: all(gateway.ask("all", timeout=20).status == 503 for _ in range(5)), 60)  # until they are open
    before = sum(each.seen()["models"].get("moody", 0) for each in (one, two))
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.ask("all", timeout=20), range(400)))
    took = time.monotonic() - began
    sent = sum(each.seen()["models"].get("moody", 0) for each in (one, two)) - before
    assert {each.status for each in answers} == {503}
    assert all(each.headers.get("retry-after") for each in answers)
    slowest = max(each.seconds for each in answers)
    for each in (one, two):
        each.told("ok")
    eventually(lambda: gateway.ask("all").status == 200, 30)
    seen(f"400 requests in {took:.1f} s: all 503 with Retry-After, the slowest after {1e3 * slowest:.0f} ms; upstreams saw {sent} calls; well again by itself")
    assert slowest < 1
    assert sent <= 1.2 * 400
    assert sent < 50 + 5 * took, "probes, one a second for each"
