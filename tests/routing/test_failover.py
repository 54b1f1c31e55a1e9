"""Failover as a client sees it: the real gateway in front of upstreams that break, asked in both shapes."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from processes import eventually
from replay.faulty import FaultyUpstream, refused_port

KEY = "sk-failover-0123456789"
SECRETS = ("sk-upstream-a", "sk-upstream-b", "sk-upstream-c")


class Loop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)


class Reply:
    def __init__(self, status: int, headers: Any, body: bytes, seconds: float) -> None:
        self.status, self.body, self.seconds = status, body, seconds
        self.headers = {name.lower(): value for name, value in headers.items()}

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def way(self) -> tuple[str | None, ...]:
        """(provider that answered, attempts, fallbacks)."""
        return tuple(self.headers.get(f"x-gateway-{name}") for name in ("provider", "attempts", "fallbacks"))


class Gateway:
    def __init__(self, folder: Path, primary: FaultyUpstream, secondary: FaultyUpstream, tls_port: int) -> None:
        self.primary, self.secondary = primary, secondary
        self.port, self.folder = refused_port(), folder
        a, b, c = SECRETS
        at = "openai_compatible"
        providers = {
            "one": {"type": at, "base_url": primary.url, "keys": [{"key": a, "name": "a"}, {"key": b, "name": "b"}]},
            "solo": {"type": at, "base_url": primary.url, "api_key": a},
            "slow": {"type": at, "base_url": primary.url, "api_key": a, "timeout_seconds": 0.4, "max_retries": 0},
            "two": {"type": at, "base_url": secondary.url, "api_key": c},
            "refusing": {"type": at, "base_url": f"http://127.0.0.1:{refused_port()}", "api_key": a},
            "nameless": {"type": at, "base_url": "http://nobody.invalid", "api_key": a},
            "untrusted": {"type": at, "base_url": f"https://127.0.0.1:{tls_port}", "api_key": a},
        }
        chains = ("one", "solo", "slow", "refusing", "nameless", "untrusted")
        config = {
            "server": {"host": "127.0.0.1", "port": self.port, "metrics_port": refused_port()},
            "data_dir": str(folder / "data"),
            "providers": providers,
            "models": {f"{name}-then-two": {"targets": [f"{name}/x"], "fallbacks": ["two/y"]} for name in chains},
            "prices": {"slow/x": {"input": 2, "output": 2}, "two/y": {"input": 1, "output": 1}},
            "keys": [{"name": "f", "key": KEY}],
            # What a test did to a target must not be held against it in the next; tests/routing/test_breakers.py has the holds.
            "resilience": {
                "retry": {"base_seconds": 0.02, "cap_seconds": 0.05},
                "breaker": {"enabled": False, "key_ejection": 0, "cooling": False},
                "health": {"enabled": False},  # what an upstream meets is what a test asked for
            },
        }
        (folder / "config.json").write_text(json.dumps(config))
        command = [Path(sys.executable).with_name("llm-gateway"), "serve", "-c", str(folder / "config.json")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        eventually(lambda: urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/live", timeout=1).status == 200, 15)

    def ask(self, model: str, *, messages: bool = False, stream: bool = False, **headers: str) -> Reply:
        path = "/v1/messages" if messages else "/v1/chat/completions"
        body = {"model": model, "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        sent = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
        for name, value in (sent | {name.replace("_", "-"): value for name, value in headers.items()}).items():
            request.add_header(name, value)
        begun = time.perf_counter()
        try:
            with urllib.request.urlopen(request, timeout=15) as reply:
                return Reply(reply.status, reply.headers, reply.read(), time.perf_counter() - begun)
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read(), time.perf_counter() - begun)

    def met(self) -> list[str | None]:
        """The upstreams' keys, in the order in which they were used; forgets them."""
        used = [each.header("authorization") for each in (*self.primary.received, *self.secondary.received)]
        self.primary.received.clear()
        self.secondary.received.clear()
        return [each.removeprefix("Bearer sk-upstream-") if each else None for each in used]

    def row(self, request_id: str) -> dict[str, Any]:
        lines = "".join(path.read_text() for path in (self.folder / "data" / "journal").glob("*.jsonl")).splitlines()
        (row,) = [row for row in map(json.loads, lines) if row["request_id"] == request_id]
        return row


async def untrusted() -> asyncio.Server:
    """A TLS server whose certificate nobody here trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    loop, primary, secondary = Loop(), FaultyUpstream(), FaultyUpstream()
    loop.run(primary.start())
    loop.run(secondary.start())
    tls = loop.run(untrusted())
    gateway = Gateway(tmp_path_factory.mktemp("failover"), primary, secondary, tls.sockets[0].getsockname()[1])
    yield gateway
    gateway.process.send_signal(2)
    gateway.process.wait(10)
    loop.run(primary.stop())
    loop.run(secondary.stop())
    loop.loop.call_soon_threadsafe(loop.loop.stop)


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    for upstream in (running.primary, running.secondary):
        upstream.received.clear()
        upstream._script.clear()
    return running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["status:500", "status:503", "status:529", "status:429", "status:408", "status:409"])
def test_what_passes_is_tried_again_at_the_same_target(gateway: Gateway, fault: str, stream: bool) -> None:
    gateway.primary.script(fault, fault, "ok")
    reply = gateway.ask("solo-then-two", stream=stream)
    assert (reply.status, reply.way) == (200, ("solo", "3", "0"))
    assert gateway.met() == ["a", "a", "a"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["close_at_once", "reset_at_once"])
def test_a_connection_that_is_dropped_before_a_word_is_left_at_once(gateway: Gateway, fault: str, stream: bool) -> None:
    gateway.primary.script(*[fault] * 5)
    reply = gateway.ask("solo-then-two", stream=stream)
    assert (reply.status, reply.way[0], reply.way[2]) == (200, "two", "1")
    assert reply.seconds < 0.4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_key_gives_way_to_the_next_key(gateway: Gateway, status: int, stream: bool) -> None:
    gateway.primary.script(f"status:{status}", "ok")
    reply = gateway.ask("one-then-two", stream=stream)
    assert (reply.status, reply.way) == (200, ("one", "2", "0"))
    assert sorted(gateway.met()) == ["a", "b"]


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_with_all_keys_refused_the_next_target_answers(gateway: Gateway, status: int) -> None:
    gateway.primary.script(*[f"status:{status}"] * 2)
    reply = gateway.ask("one-then-two")
    assert (reply.status, reply.way) == (200, ("two", "3", "1"))
    assert gateway.met()[-1] == "c"


@pytest.mark.parametrize("name", ["refusing", "nameless", "untrusted"])
def test_who_cannot_be_reached_is_left_at_once(gateway: Gateway, name: str) -> None:
    gateway.ask(f"{name}-then-two")  # the first look-up of a name may take its time
    replies = [gateway.ask(f"{name}-then-two") for _ in range(5)]
    assert {(reply.status, reply.way) for reply in replies} == {(200, ("two", "2", "1"))}
    assert min(reply.seconds for reply in replies) < 0.1


CODES = {"refusing": "upstream_connect", "nameless": "upstream_dns", "untrusted": "upstream_tls"}


@pytest.mark.parametrize("name", CODES)
def test_without_anybody_else_that_is_what_the_client_is_told(gateway: Gateway, name: str) -> None:
    reply = gateway.ask(f"{name}/x")
    assert (reply.status, reply.json()["error"]["code"]) == (502, CODES[name])
    assert gateway.met() == []


def test_a_broken_provider_is_tried_three_times_then_the_fallback_answers(gateway: Gateway) -> None:
    gateway.primary.script(*["status:503"] * 9)
    reply = gateway.ask("one-then-two")
    assert (reply.status, reply.way) == (200, ("two", "4", "1"))
    assert len(gateway.met()) == 4


def test_five_attempts_are_all_there_are(gateway: Gateway) -> None:
    gateway.primary.script(*["status:503"] * 9)
    gateway.secondary.script(*["status:503"] * 9)
    reply = gateway.ask("one-then-two")
    assert (reply.status, reply.way) == (503, ("two", "5", "1"))
    assert len(gateway.met()) == 5


def test_a_short_retry_after_is_waited_out(gateway: Gateway) -> None:
    gateway.primary.script("status:429,retry-after-ms=600", "ok")
    reply = gateway.ask("solo-then-two")
    assert (reply.status, reply.way) == (200, ("solo", "2", "0"))
    assert 0.6 <= reply.seconds < 1.5


def test_a_long_one_is_not_and_another_key_may_do(gateway: Gateway) -> None:
    gateway.primary.script("status:429,retry-after=30", "ok")
    reply = gateway.ask("one-then-two")
    assert (reply.status, reply.way) == (200, ("one", "2", "0"))
    assert reply.seconds < 0.5
    assert sorted(gateway.met()) == ["a", "b"]


def test_a_long_one_with_nobody_else_is_told_to_the_client(gateway: Gateway) -> None:
    gateway.primary.script("status:429,retry-after=30")
    reply = gateway.ask("solo/x")
    assert (reply.status, reply.headers["retry-after"]) == (429, "30")
    assert reply.seconds < 0.5
    assert len(gateway.met()) == 1
    assert "scripted" not in reply.json()["error"]["message"], "the provider's words about our account stay here"


@pytest.mark.parametrize("after", ["-1", "nan", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "1e400"])
def test_an_odd_retry_after_harms_nobody(gateway: Gateway, after: str) -> None:
    gateway.primary.script(f"status:503,retry-after={after.replace(',', '')}", "ok")
    reply = gateway.ask("solo-then-two")
    assert reply.status == 200
    assert reply.seconds < 0.5


@pytest.mark.parametrize("messages", [False, True], ids=["openai", "anthropic"])
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_callers_fault_goes_to_the_caller_at_once(gateway: Gateway, status: int, messages: bool) -> None:
    gateway.primary.script(f"status:{status}")
    reply = gateway.ask("one-then-two", messages=messages)
    assert (reply.status, reply.way) == (status, ("one", "1", "0"))
    assert len(gateway.met()) == 1
    body = reply.json()
    assert body["error"]["message"] == f"scripted {status}"
    assert (body.get("type") == "error") is messages


@pytest.mark.parametrize("messages", [False, True], ids=["openai", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 403])
def test_our_credentials_trouble_is_a_502_that_quotes_nothing(gateway: Gateway, status: int, messages: bool, stream: bool) -> None:
    gateway.primary.script(f"status:{status}")
    reply = gateway.ask("solo/x", messages=messages, stream=stream, x_request_id=f"auth-{status}-{messages}-{stream}")
    assert reply.status == 502
    text = reply.body.decode()
    assert "scripted" not in text
    assert not [secret for secret in SECRETS if secret in text + str(reply.headers)]
    body = reply.json()
    if messages:
        assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    else:
        assert body["error"]["code"] == "upstream_auth"
    row = gateway.row(f"auth-{status}-{messages}-{stream}")
    assert (row["outcome"], row["attempts"][0]["status"]) == ("upstream_auth", status)


def test_the_deadline_holds_over_all_attempts(gateway: Gateway) -> None:
    gateway.primary.script(*["stall:5"] * 5)
    reply = gateway.ask("solo-then-two", x_gateway_timeout="0.7")
    assert (reply.status, reply.json()["error"]["code"]) == (504, "request_timeout")
    assert 0.6 < reply.seconds < 1.3


def test_an_attempt_that_takes_too_long_gives_way_and_is_paid_for(gateway: Gateway) -> None:
    gateway.primary.script("stall:5")
    reply = gateway.ask("slow-then-two", X_Request_ID="given-up")
    assert (reply.status, reply.way) == (200, ("two", "2", "1"))
    assert 0.3 < reply.seconds < 1.2
    row = gateway.row("given-up")
    given_up, good = row["attempts"]
    assert (given_up["outcome"], given_up["cost"], given_up["estimated"]) == ("timeout", given_up["input"] * 2000, True)
    assert row["cost"] == (row["input"] + row["output"]) * 1000 + given_up["cost"]
    assert "cost" not in good


def test_an_attempt_that_met_nobody_cost_nothing(gateway: Gateway) -> None:
    gateway.ask("refusing-then-two", X_Request_ID="met-nobody")
    row = gateway.row("met-nobody")
    assert [each.get("cost") for each in row["attempts"]] == [None, None]
    assert row["cost"] == (row["input"] + row["output"]) * 1000


@pytest.mark.parametrize("fault", ["error_in_200", "role_only_then_cut", "html"])
def test_a_stream_that_said_nothing_yet_may_still_move_on(gateway: Gateway, fault: str) -> None:
    gateway.primary.script(*[fault] * 3)
    reply = gateway.ask("solo-then-two", stream=True)
    assert (reply.status, reply.way[0]) == (200, "two")
    assert reply.body.count(b"[DONE]") == 1
    assert reply.body.count(b"One") == 1


def test_a_stream_that_has_begun_is_never_begun_again(gateway: Gateway) -> None:
    gateway.primary.script("cut_midstream", "ok")
    with pytest.raises(http.client.IncompleteRead) as caught:
        gateway.ask("solo-then-two", stream=True)
    assert b"upstream_cut" in caught.value.partial
    assert b"[DONE]" not in caught.value.partial
    assert len(gateway.met()) == 1


def test_every_attempt_is_in_the_row(gateway: Gateway) -> None:
    gateway.primary.script("status:401", "status:404")
    assert gateway.ask("one-then-two", x_request_id="walked").status == 200
    row = gateway.row("walked")
    assert [(each["provider"], each["outcome"], each["status"]) for each in row["attempts"]] == [
        ("one", "upstream_auth", 401), ("one", "model_not_found", 404), ("two", "ok", 200),
    ]  # fmt: skip
    assert (row["fallbacks"], row["provider"], row["model"]) == (1, "two", "one-then-two")
    assert {each["key"] for each in row["attempts"][:2]} == {"a", "b"}


def test_with_the_first_dead_all_of_many_clients_are_served(gateway: Gateway) -> None:
    gateway.primary.script(*["status:503"] * 400)
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda _: gateway.ask("solo-then-two"), range(60)))
    assert {reply.status for reply in replies} == {200}
    assert {reply.way[0] for reply in replies} == {"two"}


@pytest.mark.parametrize("messages", [False, True], ids=["openai", "anthropic"])
def test_an_unknown_model_is_told_in_the_callers_shape(gateway: Gateway, messages: bool) -> None:
    reply = gateway.ask("no-such-model", messages=messages)
    assert reply.status == 404
    body = reply.json()
    assert "no-such-model" in body["error"]["message"]
    assert body["error"]["type"] == ("not_found_error" if messages else "invalid_request_error")
    assert gateway.met() == []


def test_no_key_of_any_upstream_is_in_log_or_journal(gateway: Gateway) -> None:
    files = [gateway.folder / "log", *(gateway.folder / "data" / "journal").iterdir()]
    text = "".join(path.read_text() for path in files)
    assert "one-then-two" in text
    assert not [secret for secret in (*SECRETS, KEY) if secret in text]


def test_health_is_the_providers_not_what_clients_make_of_it(gateway: Gateway) -> None:
    def healthy() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/health", timeout=5) as reply:
            return next(each["healthy"] for each in json.load(reply)["providers"] if each["name"] == "solo")

    gateway.primary.script("ok", *["status:429,retry-after=30"] * 6, *["status:404"] * 6)
    assert [gateway.ask("solo/x").status for _ in range(13)] == [200, *[429] * 6, *[404] * 6]
    gateway.primary.script(*["stall:1"] * 6)
    assert {gateway.ask("solo/x", x_gateway_timeout="0.05").status for _ in range(6)} == {504}
    assert healthy()
    gateway.primary.script(*["status:503"] * 6)
    assert [gateway.ask("solo/x").status for _ in range(2)] == [503, 503]
    assert not healthy()
    gateway.primary.script("ok")
    assert gateway.ask("solo/x").status == 200
    assert healthy()


def test_a_wrong_method_is_told_once_what_is_right(gateway: Gateway) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{gateway.port}/v1/models", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)
    assert (caught.value.code, caught.value.headers.get_all("allow")) == (405, ["GET, HEAD, OPTIONS"])


def test_a_reload_says_what_it_cannot_change(gateway: Gateway) -> None:
    path = gateway.folder / "config.json"
    before = path.read_text()
    changed = json.loads(before) | {"logging": {"access": False}}
    path.write_text(json.dumps(changed))
    command = [Path(sys.executable).with_name("llm-gateway"), "reload", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    path.write_text(before)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["warnings"]
    assert [each.partition(":")[0] for each in told] == ["logging"]
