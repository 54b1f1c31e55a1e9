"""`Idempotency-Key`, of a whole gateway: one upstream call, one charge, whatever clients and connections do."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from e2e.conftest import KEY, OTHER_KEY, Gateway, Loop, free_port, running
from processes import eventually
from replay.faulty import FaultyUpstream, answering

ASK: Any = [{"role": "user", "content": "hi"}]
SECOND_KEY = "sk-e2e-second-0123"


class Asked:
    def __init__(self, gateway: Gateway, upstream: FaultyUpstream) -> None:
        self.gateway, self.upstream = gateway, upstream
        self.openai = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
        self.host = gateway.url.removeprefix("http://")

    def post(self, key: str, model: str = "up/m", api_key: str = KEY, **more: Any) -> tuple[Any, bytes]:
        client = http.client.HTTPConnection(self.host, timeout=20)
        client.request("POST", "/v1/chat/completions", json.dumps({"model": model, "messages": ASK, **more}),
                       {"Authorization": f"Bearer {api_key}", "Idempotency-Key": key})  # fmt: skip
        reply = client.getresponse()
        body = reply.read()
        client.close()
        return reply, body

    def leave(self, key: str, model: str, **more: Any) -> None:
        """Asks, and is gone as soon as the upstream was."""
        before = len(self.upstream.received)
        body = json.dumps({"model": model, "messages": ASK, **more})
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: {key}\r\n"
        host, port = self.host.split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            eventually(lambda: len(self.upstream.received) > before)

    def rows(self) -> list[dict[str, Any]]:
        lines = [line for file in (self.gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def asked(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    upstream = FaultyUpstream()
    loop_thread.run(upstream.start())
    place = tmp_path_factory.mktemp("idempotent")
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": free_port()},
        "data_dir": str(place / "data"),
        "drain": {"lame_duck": 0, "timeout": 10},
        "providers": {"up": {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk-upstream", "max_retries": 0},
                      "slow": {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/ok:0.1", "api_key": "sk", "max_retries": 0},
                      "late": {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/slow_ok:0.6", "api_key": "sk", "max_retries": 0},
                      "broken": {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/stall", "api_key": "sk", "timeout_seconds": 0.4,
                                 "max_retries": 0}},
        "prices": {"late/m": {"input": 100, "output": 200}, "up/m": {"input": 100, "output": 200}, "slow/m": {"input": 100, "output": 200}},
        "keys": [{"name": "e2e", "key": KEY}, {"name": "second", "key": SECOND_KEY}, {"name": "other", "key": OTHER_KEY, "tenant": "other"}],
    }  # fmt: skip
    with running(place, config) as gateway:
        yield Asked(gateway, upstream)
    loop_thread.run(upstream.stop())


@pytest.fixture(autouse=True)
def _fresh(asked: Asked) -> None:
    asked.upstream.forget()


def test_the_same_request_again_gets_the_same_reply_and_is_sent_once(asked: Asked) -> None:
    (first, body), (again, same) = asked.post("a"), asked.post("a")
    assert (body, again.status) == (same, 200)
    assert (first.headers["idempotent-replayed"], again.headers["idempotent-replayed"]) == (None, "true")
    assert (first.headers["x-gateway-cost"], again.headers["x-gateway-cost"]) == ("0.0007", "0")
    assert len(asked.upstream.received) == 1


def test_another_body_under_the_same_key_is_refused(asked: Asked) -> None:
    asked.post("b")
    reply, body = asked.post("b", temperature=0.5)
    assert (reply.status, json.loads(body)["error"]["code"], json.loads(body)["error"]["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    with pytest.raises(openai.UnprocessableEntityError):
        asked.openai.chat.completions.create(model="up/m", messages=ASK, temperature=0.7, extra_headers={"Idempotency-Key": "b"})


def test_keys_are_each_callers_own(asked: Asked) -> None:
    for api_key in (KEY, SECOND_KEY, OTHER_KEY):
        assert asked.post("c", api_key=api_key)[0].headers["idempotent-replayed"] is None
    assert len(asked.upstream.received) == 3


@pytest.mark.row(22)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_and_asks_again_gets_the_whole_reply_of_one_call(asked: Asked, *, stream: bool) -> None:
    options: Any = {"model": "slow/m", "messages": ASK, "extra_headers": {"Idempotency-Key": f"left-{stream}"}}
    if stream:
        begun = asked.openai.chat.completions.create(**options, stream=True)
        next(iter(begun))
        begun.close()
        reply = asked.openai.chat.completions.create(**options, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices) == "One two three"
    else:
        with pytest.raises(openai.APITimeoutError):
            asked.openai.with_options(timeout=0.15).chat.completions.create(**options | {"model": "late/m"})
        assert asked.openai.chat.completions.create(**options | {"model": "late/m"}).choices[0].message.content == "hello"
    assert len(asked.upstream.received) == 1
    rows = [row for row in asked.rows() if row.get("model") == ("slow/m" if stream else "late/m") and row.get("stream", False) == stream]
    paid = [row for row in rows if row.get("cost")]
    assert len(paid) == 1
    assert paid[0].get("outcome", "ok") == "ok"


def test_many_at_once_are_one_call(asked: Asked) -> None:
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: asked.post("many", "slow/m", stream=True), range(20)))
    assert len(asked.upstream.received) == 1
    assert len({body for _, body in replies}) == 1
    assert sorted(reply.headers["idempotent-replayed"] or "" for reply, _ in replies) == [""] + 19 * ["true"]


def test_a_failure_is_not_kept(asked: Asked) -> None:
    asked.upstream.script(answering(500, b"{}"))
    assert asked.post("failed")[0].status == 502
    assert asked.post("failed")[0].status == 200
    assert len(asked.upstream.received) == 2


def test_a_failure_is_told_to_all_who_wait(asked: Asked) -> None:
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(lambda _: asked.post("bad", "broken/m"), range(5)))
    assert [reply.status for reply, _ in replies] == 5 * [504]
    assert len(asked.upstream.received) == 1


def test_a_key_has_a_length(asked: Asked) -> None:
    reply, body = asked.post("x" * 256)
    assert (reply.status, json.loads(body)["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.slow
def test_a_worker_that_drains_ends_what_it_was_asked_for(loop_thread: Loop, asked: Asked, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("draining")
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": free_port()}, "data_dir": str(place / "data"),
        "drain": {"lame_duck": 0, "timeout": 10},
        "providers": {"slow": {"type": "openai_compatible", "base_url": f"{asked.upstream.url}/fault/ok:0.15", "api_key": "sk"}},
        "keys": [{"name": "e2e", "key": KEY}],
    }  # fmt: skip
    with running(place, config) as gateway:
        other = Asked(gateway, asked.upstream)
        other.leave("drained", "slow/m", stream=True)
        time.sleep(0.1)
        child = int(re.findall(r'"child": "worker 0", "child_pid": (\d+)', gateway.log.read_text())[0])
        os.kill(child, signal.SIGTERM)
        assert eventually(lambda: [(row["status"], row.get("outcome", "ok")) for row in other.rows()] == [(200, "ok")], 5.0)
