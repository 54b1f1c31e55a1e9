"""Breakers, cooling, lost keys, limits and queue as clients and upstreams see them: the real gateway, real sockets.

Each test has providers of its own, so that what one does to a target is not held against it in the next.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from processes import eventually
from replay.faulty import FaultyUpstream, refused_port
from routing.test_failover import KEY, Loop, Reply

PACES = {"ejection": 1.0, "recovery": 0, "probe_interval": 1.0}


class Gateway:
    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.port, self.metrics, self.folder = refused_port(), refused_port(), folder
        server = {"host": "127.0.0.1", "port": self.port, "metrics_port": self.metrics, **config.get("server", {})}
        config = {"data_dir": str(folder / "data"), "keys": [{"name": "f", "key": KEY}], **config, "server": server}
        (folder / "config.json").write_text(json.dumps(config))
        command = [Path(sys.executable).with_name("llm-gateway"), "serve", "-c", str(folder / "config.json")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        eventually(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/live", timeout=1).status == 200, 20)

    def ask(self, model: str, *, stream: bool = False, **headers: str) -> Reply:
        body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/chat/completions", json.dumps(body).encode())
        for name, value in {"content-type": "application/json", "authorization": f"Bearer {KEY}", **headers}.items():
            request.add_header(name.replace("_", "-"), value)
        begun = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:
                return Reply(reply.status, reply.headers, reply.read(), time.perf_counter() - begun)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read(), time.perf_counter() - begun)

    def scrape(self) -> str:
        return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=5).read().decode()


PROVIDERS = ("trips", "limited", "keyed", "dead", "spills", "bare", "queued", "quota", "streams", "explained")


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultyUpstream]:
    loop, faulty = Loop(), FaultyUpstream()
    loop.run(faulty.start())
    yield faulty
    loop.run(faulty.stop())
    loop.loop.call_soon_threadsafe(loop.loop.stop)


@pytest.fixture(scope="module")
def gateway(upstream: FaultyUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    at: dict[str, Any] = {"type": "openai_compatible", "base_url": upstream.url, "max_retries": 0}
    providers = {name: {**at, "api_key": f"sk-{name}"} for name in PROVIDERS}
    providers["keyed"] = {**at, "keys": [{"key": "sk-a", "name": "a"}, {"key": "sk-b", "name": "b"}]}
    providers["dead"]["base_url"] = f"http://127.0.0.1:{refused_port()}"
    for name in ("spills", "bare"):
        providers[name]["rate_limit"] = {"requests_per_minute": 2}
    providers["queued"]["rate_limit"] = {"requests_per_minute": 60}
    providers["other"] = {**at, "api_key": "sk-other"}
    config = {
        "providers": providers,
        "models": {f"{name}-then-other": {"targets": [f"{name}/x"], "fallbacks": ["other/y"]} for name in PROVIDERS},
        "resilience": {"breaker": PACES, "queue": {"max_wait": 8}, "health": {"enabled": False}},  # what is counted is clients' own
    }
    made = Gateway(tmp_path_factory.mktemp("breakers"), config)
    yield made
    made.process.send_signal(2)
    made.process.wait(10)


def met(upstream: FaultyUpstream) -> Counter[str]:
    """How often each key was used; forgets them."""
    used = Counter((each.header("authorization") or "").removeprefix("Bearer sk-") for each in upstream.received)
    upstream.received.clear()
    return used


def test_a_target_that_fails_five_times_is_left_alone_probed_and_taken_back(gateway, upstream):
    met(upstream)
    upstream.script(*(["status:500", "ok"] * 5))
    assert [gateway.ask("trips-then-other").way for _ in range(5)] == [("other", "2", "1")] * 5
    assert gateway.ask("trips-then-other").way == ("other", "1", "1"), "the sixth does not even ask"
    assert met(upstream) == {"trips": 5, "other": 6}
    eventually(lambda: 'llm_gateway_target_held{provider="trips",model="x",key="0",by="breaker"} 1' in gateway.scrape(), 5)
    eventually(lambda: 'llm_gateway_events_total{event="breaker_opened"}' in gateway.scrape(), 5)
    time.sleep(1.0)
    eventually(lambda: gateway.ask("trips-then-other").way == ("trips", "1", "0"), 5)
    eventually(lambda: 'llm_gateway_events_total{event="breaker_closed"}' in gateway.scrape(), 5)


def test_a_retry_after_is_kept(gateway, upstream):
    met(upstream)
    upstream.script("status:429,retry-after=30")
    replies = [gateway.ask("limited/x") for _ in range(3)]
    assert [reply.status for reply in replies] == [429, 429, 429]
    assert met(upstream) == {"limited": 1}, "asked once, and then not for thirty seconds"
    assert 25 <= int(replies[-1].headers["retry-after"]) <= 30


def test_a_refused_key_is_not_used_again(gateway, upstream):
    met(upstream)
    upstream.script("status:401", "ok", "ok", "ok")
    replies = [gateway.ask("keyed/x") for _ in range(4)]
    assert [reply.status for reply in replies] == [200] * 4
    assert sorted(met(upstream).values()) == [1, 4]


def test_with_nobody_left_clients_hear_at_once(gateway, upstream):
    faults = [gateway.ask("dead/x") for _ in range(5)]
    assert [reply.status for reply in faults] == [502, 502, 502, 502, 503]
    refused = [gateway.ask("dead/x") for _ in range(5)]
    assert {reply.status for reply in refused} == {503}
    told = next(reply for reply in refused if reply.status == 503)
    assert told.headers["retry-after"] == "1"
    assert told.json()["error"]["code"] == "service_unavailable"


def test_over_its_limit_the_next_target_is_asked(gateway, upstream):
    assert [gateway.ask("spills-then-other").way[0] for _ in range(4)] == ["spills", "spills", "other", "other"]


def test_with_nobody_else_it_is_a_429_that_says_when(gateway, upstream):
    replies = [gateway.ask("bare/x") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert 25 <= int(replies[-1].headers["retry-after"]) <= 30


def test_what_soon_has_room_is_waited_for_by_priority(gateway, upstream):
    with ThreadPoolExecutor(20) as pool:
        assert {reply.status for reply in pool.map(lambda _: gateway.ask("queued/x"), range(60))} == {200}
        order: list[str] = []
        lock = threading.Lock()

        def one(priority: str) -> int:
            status = gateway.ask("queued/x", x_gateway_priority=priority).status
            with lock:
                order.append(priority)
            return status

        waiting = [pool.submit(one, priority) for priority in ("low", "low", "low")]
        time.sleep(0.3)
        waiting.append(pool.submit(one, "high"))
        assert {each.result() for each in waiting} == {200}
    assert order[-1] == "low", "it came last and was served before those who still waited"


def test_a_priority_that_is_none_is_refused_by_name(gateway, upstream):
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda _: gateway.ask("queued/x", x_gateway_priority="urgent"), range(65)))
    refused = [reply for reply in replies if reply.status == 400]
    assert refused
    assert "x-gateway-priority" in refused[0].json()["error"]["message"]


def test_a_provider_that_says_it_has_nothing_left_is_believed(gateway, upstream):
    met(upstream)
    upstream.script("headers:x-ratelimit-remaining-requests=0;x-ratelimit-reset-requests=20s", "ok", "ok")
    assert [gateway.ask("quota-then-other").way[0] for _ in range(3)] == ["quota", "other", "other"]


def test_it_is_believed_where_it_streams_too(gateway, upstream):
    met(upstream)
    upstream.script("streamed:x-ratelimit-remaining-requests=0;x-ratelimit-reset-requests=20s", "ok", "ok")
    assert b"[DONE]" in gateway.ask("streams-then-other", stream=True).body
    assert [gateway.ask("streams-then-other", stream=stream).way[0] for stream in (True, False)] == ["other", "other"]


def test_the_operator_explains_by_what_the_worker_knows(gateway, upstream):
    folder = gateway.folder
    token = (folder / "data" / "admin.token").read_text().strip()

    def explained(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(f"http://127.0.0.1:{gateway.metrics}/admin/v1/explain", json.dumps(body).encode())
        request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    upstream.script("status:429,retry-after=60", "ok")
    assert gateway.ask("explained-then-other").status == 200
    asked = {"model": "explained-then-other", "messages": [{"role": "user", "content": "hi"}]}
    status, told = explained({"request": asked, "key": "f"})
    assert (status, [row["would"] for row in told["order"]]) == (200, ["be passed over", "answer"])
    assert told["order"][0]["state"].startswith("cooling for ")
    assert explained({"request": asked, "key": "nobody"})[1]["refusal"]["param"] == "key"
    assert explained({"requests": asked})[0] == 400
    command = [Path(sys.executable).with_name("llm-gateway"), "explain", "explained-then-other", "-c", str(folder / "config.json")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert "be passed over" in done.stdout


@pytest.mark.slow
def test_what_one_worker_finds_out_the_others_know(upstream, tmp_path):
    at = {"type": "openai_compatible", "base_url": upstream.url, "max_retries": 0}
    config = {
        "workers": 2,
        "providers": {"shared": {**at, "api_key": "sk-shared"}, "other": {**at, "api_key": "sk-other"}},
        "models": {"m": {"targets": ["shared/x"], "fallbacks": ["other/y"]}},
        "resilience": {"breaker": {"failures": 1, "ejection": 60}, "health": {"enabled": False}},
    }
    gateway = Gateway(tmp_path, config)
    try:
        met(upstream)
        upstream.script("status:500", "ok")
        assert gateway.ask("m").way == ("other", "2", "1")

        def known() -> bool:
            return {gateway.ask("m").way for _ in range(20)} == {("other", "1", "1")}  # each its own connection, on either worker

        eventually(known, 10)
        met(upstream)
        assert known()
        assert met(upstream) == {"other": 20}
    finally:
        gateway.process.send_signal(2)
        gateway.process.wait(10)
