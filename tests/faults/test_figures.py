"""What failing over costs those who are served: figures that were promised, measured beside their own baseline in one run."""

from __future__ import annotations

import http.client
import json
import signal
import statistics
import threading
import time

import pytest

from faults.conftest import Seen
from faults.house import KEY, Gateway, House, free_port, percentile

pytestmark = pytest.mark.slow
ASKED = 60


def asked(client: http.client.HTTPConnection, model: str) -> tuple[int, float]:
    """One request on a connection that is kept: (status, seconds)."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})
    began = time.perf_counter()
    client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    reply = client.getresponse()
    reply.read()
    return reply.status, time.perf_counter() - began


@pytest.mark.row("figures")
def test_failing_over_from_a_refusing_upstream_costs_less_than_20_ms(house: House, seen: Seen) -> None:
    """A port on which nobody listens, tried first by every request (its breaker is off), beside the fallback alone."""
    good = house.upstream()
    refusing = {"base_url": f"http://127.0.0.1:{free_port()}", "breaker": {"enabled": False}}
    gateway = house.gateway({"refusing": refusing, "good": good.url}, models={"m": {"targets": ["refusing/x"], "fallbacks": ["good/ok"]}})
    client = http.client.HTTPConnection("127.0.0.1", gateway.port)
    direct, over = [], []
    for _ in range(ASKED):  # in turns, so that a busy machine slows both
        direct.append(asked(client, "good/ok"))
        over.append(asked(client, "m"))
    assert {status for status, _ in (*direct, *over)} == {200}
    added = statistics.median(seconds for _, seconds in over) - statistics.median(seconds for _, seconds in direct)
    seen(f"failover from a refusing upstream adds {1e3 * added:.1f} ms to a request at the median of {ASKED}")
    assert added < 0.02


@pytest.mark.row("figures")
def test_one_of_three_upstreams_dead_is_seen_by_nobody(house: House, seen: Seen) -> None:
    """Three upstreams in turn, eight clients without pause; one is killed."""
    upstreams = [house.upstream() for _ in range(3)]
    names = "abc"
    gateway = house.gateway(
        {name: {"base_url": each.url, "max_retries": 0} for name, each in zip(names, upstreams, strict=True)},
        models={"m": {"strategy": "round_robin", "targets": [f"{name}/ok" for name in names]}},
    )
    found: list[tuple[float, int, float]] = []
    stop = threading.Event()
    clients = [threading.Thread(target=_steadily, args=(gateway, stop, found)) for _ in range(8)]
    for each in clients:
        each.start()
    time.sleep(4)
    upstreams[1].send(signal.SIGKILL)
    killed = time.perf_counter()
    time.sleep(6)
    stop.set()
    for each in clients:
        each.join()
    failed = [status for _, status, _ in found if status != 200]
    before = [seconds for at, _, seconds in found if at < killed]
    after = [seconds for at, _, seconds in found if at > killed + 2]
    was, now = percentile(before, 0.99), percentile(after, 0.99)
    seen(f"one of three upstreams killed: {len(failed)} of {len(found)} requests failed; p99 {1e3 * was:.1f} ms before, {1e3 * now:.1f} ms once it was known")
    assert not failed
    assert now < 2 * was + 0.005


def _steadily(gateway: Gateway, stop: threading.Event, found: list[tuple[float, int, float]]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", gateway.port)
    while not stop.is_set():
        status, seconds = asked(client, "m")
        found.append((time.perf_counter(), status, seconds))
