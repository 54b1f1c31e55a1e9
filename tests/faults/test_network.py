"""Rows 2, 7 to 9: the gateway in one network namespace, its upstream in another, a bad wire between them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from faults.conftest import Seen
from faults.house import Gateway, House, Upstream
from faults.space import Wire

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("spaces")]


class Far:
    """A gateway with a good upstream at hand and one behind a wire."""

    def __init__(self, house: House, **provider: object) -> None:
        self.near, self.far = house.space(), house.space()
        self.wire: Wire = house.wire(self.near, self.far)
        self.upstream: Upstream = house.upstream(host=self.wire.far, space=self.far)
        self.good: Upstream = house.upstream(space=self.near)
        self.gateway: Gateway = house.gateway(
            {"far": {"base_url": self.upstream.url, **provider}, "good": self.good.url},
            space=self.near,
            models={"far-first": {"targets": ["far/ok"], "fallbacks": ["good/ok"]}},
        )


@pytest.mark.row(2)
def test_a_blackholed_upstream_is_given_up_after_the_connect_timeout(house: House, seen: Seen) -> None:
    """The wire to the upstream drops everything and tells nobody, first before a connection, then in a stream."""
    far = Far(house, timeout_seconds=3)
    far.wire.order(cut=1)
    answers = [far.gateway.ask("far-first", timeout=30) for _ in range(2)]
    assert [each.headers["x-gateway-provider"] for each in answers] == ["good"] * 2
    assert all(4.5 < each.seconds < 12 for each in answers)
    far.wire.order(cut=0)
    assert far.gateway.ask("far/ok").status == 200
    sock = far.gateway.opened("far/fault-paced:500,0.02")
    got = sock.recv(65536)
    far.wire.order(cut=1)
    began = time.perf_counter()
    while piece := sock.recv(65536):
        got += piece
    took = time.perf_counter() - began
    assert b'"error"' in got.rpartition(b"data: ")[2]
    assert took < 8
    seen(f"fallback after {answers[0].seconds:.2f} and {answers[1].seconds:.2f} s (connect timeout 5 s); a stream blackholed midway: error event "
         f"after {took:.1f} s (silence limit 3 s)")


@pytest.mark.row(7)
def test_latency_is_only_added_once_and_ejects_nobody(house: House, seen: Seen) -> None:
    """150 ms each way on the wire to the upstream."""
    far = Far(house)
    far.gateway.ask("far/ok")
    before = min(far.gateway.ask("far-first").seconds for _ in range(10))
    far.wire.order(delay=0.15)
    first = far.gateway.ask("far/ok", stream=True)
    answers = [far.gateway.ask("far-first") for _ in range(20)]
    assert {each.headers["x-gateway-provider"] for each in answers} == {"far"}
    fastest = min(each.seconds for each in answers)
    assert first.well
    assert 0.3 <= fastest < 0.3 + before + 0.15
    assert far.gateway.metric("llm_provider_errors_total") == 0
    seen(f"{1e3 * before:.0f} ms became {1e3 * fastest:.0f} ms (0.3 s are the wire's round trip), 20 of 20 by the first target, no attempt failed")


@pytest.mark.row(8)
def test_five_percent_of_packets_lost_fail_nobody(house: House, seen: Seen) -> None:
    """Every twentieth packet is lost, each way, by seeded dice; 5 ms each way; 1,000 requests, a third of them streams."""
    far = Far(house, max_retries=2)
    far.wire.order(loss=0.05, delay=0.005)

    def ask(number: int) -> tuple[bool, float]:
        answer = far.gateway.ask("far/ok", stream=not number % 3, timeout=60)
        return answer.status == 200 and answer.whole and (bool(number % 3) or answer.well), answer.seconds

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(1000)))
    good = sum(well for well, _ in found)
    seen(f"{good} of 1000 good, slowest {max(seconds for _, seconds in found):.1f} s")
    assert good >= 999


@pytest.mark.row(9)
def test_a_slow_link_is_not_taken_for_silence(house: House, seen: Seen) -> None:
    """8 kB/s each way on the wire to the upstream; a stream of 120 kB; its upstream may be silent for 3 s."""
    far = Far(house, timeout_seconds=3)
    far.gateway.ask("far/ok")
    far.wire.order(rate=8000)
    answer = far.gateway.ask("far/fault-paced:30,0,4000", stream=True, timeout=90)
    gaps = [late - early for early, late in zip(answer.arrivals, answer.arrivals[1:], strict=False)]
    seen(f"{len(answer.body) / 1e3:.0f} kB whole after {answer.seconds:.1f} s, longest gap at the client {max(gaps):.1f} s, silence limit 3 s")
    assert answer.well
    assert answer.seconds > 8
