"""The response cache of a whole gateway, as the official SDKs and an operator see it."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from e2e.conftest import KEY, OTHER_KEY, Gateway, Loop, free_port, running
from e2e.whole import COMMAND, ENVIRON, TOKEN
from processes import eventually
from replay.faulty import FaultyUpstream, answering, event

LIMITED_KEY = "sk-e2e-limited-01"
SLOW_KEY = "sk-e2e-slow-0001"
ASK = [{"role": "user", "content": "hi"}]


class Cached:
    """A gateway with a cache in front of an upstream that counts."""

    def __init__(self, gateway: Gateway, upstream: FaultyUpstream, metrics_port: int) -> None:
        self.gateway, self.upstream, self.metrics_port = gateway, upstream, metrics_port
        self.openai = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
        self.anthropic = anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20)

    def asked(self) -> int:
        return len(self.upstream.received)

    def post(self, model: str, path: str = "/v1/chat/completions", key: str = KEY, headers: dict[str, str] | None = None, **more: Any) -> tuple[Any, bytes]:
        """(reply, body)."""
        client = http.client.HTTPConnection(self.gateway.url.removeprefix("http://"), timeout=20)
        body = {"model": model, "messages": ASK, **more}
        client.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **(headers or {})})
        reply = client.getresponse()
        content = reply.read()
        client.close()
        return reply, content

    def said(self, model: str, **more: Any) -> str:
        """What the reply says of the cache."""
        return str(self.post(model, **more)[0].headers["x-gateway-cache"])

    def rows(self, request_id: str) -> list[dict[str, Any]]:
        lines = [line for file in (self.gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
        return [row for row in map(json.loads, lines) if row["request_id"] == request_id]

    def admin(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        client.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        reply = client.getresponse()
        return reply.status, reply.read().decode()

    def metric(self, name: str) -> float:
        return sum(float(each) for each in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.admin("GET", "/metrics")[1], re.MULTILINE))


@pytest.fixture(scope="module")
def cached(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    upstream = FaultyUpstream()
    loop_thread.run(upstream.start())
    place = tmp_path_factory.mktemp("cached")
    port, metrics_port = free_port(), free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port},
        "data_dir": str(place / "data"),
        "providers": {name: {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk-upstream", "max_retries": 0} for name in ("up", "two")},
        "models": {
            "cold": {"targets": ["up/m"], "cache": False}, "calm": {"targets": ["up/m"], "cache": {"sampling": False}},
            "either": {"targets": ["up/m"], "fallbacks": ["two/m"]},
        },
        "keys": [
            {"name": "e2e", "key": KEY}, {"name": "other", "key": OTHER_KEY, "tenant": "other"},
            {"name": "slow", "key": SLOW_KEY, "tenant": "slow", "limits": {"requests_per_minute": 3}},
            {"name": "limited", "key": LIMITED_KEY, "models": ["up/allowed"]},
        ],
        "prices": {"up/m": {"input": 100, "output": 200}},
        "admin": {"token": TOKEN},
        "cache": {"enabled": True, "max_size_mb": 1},
    }  # fmt: skip
    with running(place, config) as gateway:
        yield Cached(gateway, upstream, metrics_port)
    loop_thread.run(upstream.stop())


@pytest.fixture(autouse=True)
def _fresh(cached: Cached) -> None:
    cached.upstream.forget()
    cached.post("up/m", seed=-1)
    assert cached.admin("POST", "/admin/v1/cache/purge", "{}") == (200, '{"workers":1}')
    eventually(lambda: cached.said("up/m", seed=-1) == "miss")  # the worker hears it a moment later
    cached.upstream.forget()


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_played_back_to_an_idempotent_request_is_replayed_as_it_was(cached: Cached, stream: bool) -> None:
    headers = {"Idempotency-Key": f"cached-{stream}"}
    said = [cached.post("up/m", stream=stream, headers=each) for each in ({}, headers, headers)]
    assert [reply.headers["x-gateway-cache"] for reply, _ in said] == ["miss", "hit", None]
    assert said[2][0].headers["idempotent-replayed"] == "true"
    assert len({body for _, body in said[1:]}) == 1
    assert said[2][0].headers["content-type"] == said[0][0].headers["content-type"]
    assert cached.asked() == 1


def test_a_reply_is_played_back_byte_for_byte_and_costs_nothing(cached: Cached) -> None:
    first, body = cached.post("up/m")
    again, same = cached.post("up/m", headers={"X-Request-ID": "cache-hit"})
    assert (first.headers["x-gateway-cache"], again.headers["x-gateway-cache"]) == ("miss", "hit")
    assert same == body
    assert cached.asked() == 1
    assert (first.headers["x-gateway-cost"], again.headers["x-gateway-cost"]) == ("0.0007", "0")
    assert (again.headers["x-gateway-provider"], again.headers["x-gateway-attempts"], again.headers["age"]) == ("up", "0", "0")
    assert first.headers["age"] is None
    changing = {"x-request-id", "x-gateway-cache", "x-gateway-cost", "age", "x-gateway-attempts", "x-gateway-upstream-ms", "x-gateway-overhead-ms"}
    told = [{name.lower(): value for name, value in reply.headers.items()} for reply in (first, again)]
    assert {name: told[0][name] for name in told[0] if name not in {*changing, "server-timing"}} == {
        name: told[1][name] for name in told[1] if name not in changing
    }
    (row,) = cached.rows("cache-hit")
    assert (row["cached"], row["saved"], row["cost"], row["input"], row["output"]) == (True, 700_000, 0, 5, 1)
    assert (row["provider"], row["upstream_model"], row["finish"]) == ("up", "m", "stop")
    (missed,) = cached.rows(first.headers["x-request-id"])
    assert "cached" not in missed
    assert "saved" not in missed


def test_a_stream_is_played_back_as_a_stream(cached: Cached) -> None:
    first, body = cached.post("up/m", stream=True)
    again, same = cached.post("up/m", stream=True, headers={"X-Request-ID": "cache-stream"})
    assert (first.headers["x-gateway-cache"], again.headers["x-gateway-cache"]) == ("miss", "hit")
    assert same == body
    assert body.endswith(b"data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"] == "text/event-stream"
    assert cached.asked() == 1
    (row,) = cached.rows("cache-stream")
    assert (row["cached"], row["stream"], row["cost"]) == (True, True, 0)
    assert cached.said("up/m") == "miss"  # a plain one is another thing


def test_what_comes_again_in_every_byte_is_answered_alike(cached: Cached) -> None:
    """From the second hit on, head and body are not read any more."""
    for stream in (False, True):
        made = [cached.openai.chat.completions.with_raw_response.create(model="up/m", messages=ASK, stream=stream, seed=8) for _ in range(5)]
        assert [each.headers["x-gateway-cache"] for each in made] == ["miss", *["hit"] * 4]
        assert len({each.http_response.read() for each in made}) == 1
        told = [{name: value for name, value in each.headers.items() if name not in {"x-request-id", "age"}} for each in made[1:]]
        assert told == [told[0]] * 4
        assert {each.headers["x-gateway-cost"] for each in made[1:]} == {"0"}
        rows = [cached.rows(each.headers["x-request-id"]) for each in made]
        assert [len(each) for each in rows] == [1] * 5
        kept = [{name: value for name, value in row.items() if name not in {"ts", "id", "request_id", "ms", "first_token_ms"}} for (row,) in rows[1:]]
        assert kept == [kept[0]] * 4
        assert (kept[0]["cached"], kept[0]["stream"] if stream else False, kept[0]["model"]) == (True, stream, "up/m")
    assert cached.asked() == 2


def test_a_key_that_comes_again_in_every_byte_is_looked_at_each_time(cached: Cached) -> None:
    """Its limit of three requests a minute counts replies from the cache too."""
    client = openai.OpenAI(base_url=f"{cached.gateway.url}/v1", api_key=SLOW_KEY, max_retries=0, timeout=20)
    said = [client.chat.completions.with_raw_response.create(model="up/m", messages=ASK, seed=9).headers["x-gateway-cache"] for _ in range(3)]
    assert said == ["miss", "hit", "hit"]
    with pytest.raises(openai.RateLimitError, match="3 requests a minute") as refused:
        client.chat.completions.create(model="up/m", messages=ASK, seed=9)
    (row,) = cached.rows(refused.value.response.headers["x-request-id"])
    assert (row["status"], row["outcome"], "cached" in row) == (429, "rate_limit_exceeded", False)


def test_a_streams_usage_is_the_true_one_and_its_cost_that_of_the_hit(cached: Cached) -> None:
    usage = b'data: {"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\n'
    whole = b"".join([event("hello"), event(finish="stop"), usage, b"data: [DONE]\n\n"])
    cached.upstream.script(f"streaming:{whole.hex()}")
    said = []
    for _ in range(2):
        chunks = cached.openai.chat.completions.create(model="up/m", messages=ASK, stream=True, stream_options={"include_usage": True})
        said.append([chunk.usage.to_dict() for chunk in chunks if chunk.usage])
    counts = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    assert said == [[counts | {"cost": 0.0007}], [counts | {"cost": 0.0}]]
    assert cached.asked() == 1


def test_the_openai_sdk_cannot_tell_but_by_the_headers(cached: Cached) -> None:
    made = [cached.openai.chat.completions.with_raw_response.create(model="up/m", messages=ASK, user=name) for name in ("ann", "bob")]
    assert [each.headers["x-gateway-cache"] for each in made] == ["miss", "hit"]
    assert made[0].parse().to_dict() == made[1].parse().to_dict()
    streams = [[chunk.to_dict() for chunk in cached.openai.chat.completions.create(model="up/m", messages=ASK, stream=True)] for _ in range(2)]
    assert streams[0] == streams[1] != []
    assert cached.asked() == 2


def test_the_anthropic_sdk_cannot_tell_but_by_the_headers(cached: Cached) -> None:
    made = [cached.anthropic.messages.with_raw_response.create(model="up/m", messages=ASK, max_tokens=9) for _ in range(2)]
    assert [each.headers["x-gateway-cache"] for each in made] == ["miss", "hit"]
    assert made[0].parse().to_dict() == made[1].parse().to_dict()
    messages = []
    for _ in range(2):
        with cached.anthropic.messages.stream(model="up/m", messages=ASK, max_tokens=9) as stream:
            messages.append(stream.get_final_message().to_dict())
    assert messages[0] == messages[1]
    assert messages[0]["content"][0]["text"] == "One two three"
    assert cached.asked() == 2


def test_no_tenant_sees_anothers_reply_and_no_key_a_model_it_may_not_use(cached: Cached) -> None:
    assert cached.said("up/m") == "miss"
    assert cached.said("up/m", key=OTHER_KEY) == "miss"
    assert cached.said("up/m", key=OTHER_KEY) == "hit"
    reply, _ = cached.post("up/m", key=LIMITED_KEY)
    assert reply.status == 404
    assert cached.said("up/allowed", key=LIMITED_KEY) == "miss"
    assert cached.said("up/allowed") == "hit"  # the same tenant


def test_what_a_request_says_of_caching_is_heard(cached: Cached) -> None:
    assert cached.said("up/m", headers={"Cache-Control": "no-store"}) == "bypass"
    assert cached.said("up/m") == "miss"
    assert cached.said("up/m", headers={"Cache-Control": "no-cache"}) == "bypass"
    assert cached.said("up/m", headers={"Cache-Control": "max-age=600"}) == "hit"
    assert cached.said("up/m", headers={"Cache-Control": "max-age=0"}) == "miss"
    assert cached.said("up/m") == "hit"
    assert cached.asked() == 4


def test_an_alias_has_its_own_say(cached: Cached) -> None:
    assert [cached.said("cold") for _ in range(2)] == ["bypass"] * 2
    assert [cached.said("calm") for _ in range(2)] == ["bypass"] * 2
    assert [cached.said("calm", temperature=0) for _ in range(2)] == ["miss", "hit"]


def test_what_a_request_wishes_of_routing_holds_also_where_it_is_looked_up_first(cached: Cached) -> None:
    for model, headers in (("either", {}), ("either", {"cache-control": "no-cache"}), ("either", {"cache-control": "no-store"})):
        first, _ = cached.post(model, headers=headers, seed=1, provider={"only": ["two"], "zdr": True})
        assert (first.headers["x-gateway-provider"], first.headers["x-gateway-dropped-params"]) == ("two", "provider.zdr")
    assert [received.json().keys() for received in cached.upstream.received] == [{"model", "messages", "seed"}] * 3
    again, _ = cached.post("either", seed=1, provider={"only": ["two"], "zdr": True})
    assert (again.headers["x-gateway-provider"], again.headers["x-gateway-cache"]) == ("two", "hit")
    other, _ = cached.post("either", seed=1)
    assert (other.headers["x-gateway-provider"], other.headers["x-gateway-cache"]) == ("up", "miss")
    cached.upstream.script("status:500")
    assert cached.post("up/m", seed=2, models=["two/m"])[0].headers["x-gateway-provider"] == "two"


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_what_is_truncated_or_filtered_is_asked_for_again(cached: Cached, finish: str) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "he"}, "finish_reason": finish}
    reply = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}
    cached.upstream.script(*[answering(200, json.dumps(reply).encode())] * 2)
    assert [cached.said("up/m") for _ in range(3)] == ["miss"] * 3
    stream = b"".join([event("he"), event(finish=finish), b"data: [DONE]\n\n"])
    cached.upstream.script(f"streaming:{stream.hex()}")
    assert [cached.said("up/m", stream=True) for _ in range(3)] == ["miss", "miss", "hit"]


@pytest.mark.parametrize("fault", ["status:500", "status:400", "html", "short_body"])
def test_an_error_is_never_played_back(cached: Cached, fault: str) -> None:
    cached.upstream.script(fault)
    reply, _ = cached.post("up/m")
    assert reply.status >= 400
    assert [cached.said("up/m") for _ in range(2)] == ["miss", "hit"]


@pytest.mark.parametrize("fault", ["cut_midstream", "rst_midstream", "error_midstream", "clean_end_without_finish"])
def test_a_stream_that_broke_is_never_played_back(cached: Cached, fault: str) -> None:
    for each in (fault, "ok"):
        cached.upstream.script(each)
        try:
            reply, _ = cached.post("up/m", stream=True)
        except http.client.IncompleteRead:
            continue
        assert reply.headers["x-gateway-cache"] == "miss"
    assert cached.said("up/m", stream=True) == "hit"


def test_the_memory_is_bounded(cached: Cached) -> None:
    """A megabyte, and replies of 300 kB."""
    words = "x" * 300_000
    choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
    reply = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    cached.upstream.script(*[answering(200, json.dumps(reply).encode())] * 4)
    before = cached.metric("llm_gateway_cache_evictions_total")
    assert [cached.said("up/m", seed=seed) for seed in range(4)] == ["miss"] * 4
    assert cached.said("up/m", seed=3) == "hit"
    eventually(lambda: cached.metric("llm_gateway_cache_evictions_total") > before)
    assert 0 < cached.metric("llm_gateway_cache_bytes") <= 1 << 20
    assert cached.said("up/m", seed=0) == "miss"


def test_what_was_saved_is_told(cached: Cached) -> None:
    before = {name: cached.metric(name) for name in ("llm_gateway_cache_saved_usd_total", "llm_cost_usd_total", "llm_tokens_total")}
    hits = cached.metric("llm_gateway_cache_requests_total")
    for _ in range(4):
        cached.post("up/m", seed=77)
    eventually(lambda: cached.metric("llm_gateway_cache_saved_usd_total") >= before["llm_gateway_cache_saved_usd_total"] + 0.0021 - 1e-9)
    eventually(lambda: cached.metric("llm_gateway_cache_requests_total") >= hits + 4)
    assert 0 < cached.metric("cache_hit_ratio") < 1


def test_purging_takes_what_was_named(cached: Cached) -> None:
    def fill() -> None:
        cached.post("up/m", seed=1, headers={"x-gateway-tags": "red"})
        cached.post("up/m", seed=2, headers={"x-gateway-tags": "blue"})
        cached.post("up/m", seed=1, key=OTHER_KEY)

    fill()
    command = [COMMAND, "cache", "purge", "--config", str(cached.gateway.data.parent / "config.json"), "--tag", "red"]
    told = subprocess.run(command, capture_output=True, text=True, env=ENVIRON, check=True)
    assert json.loads(told.stdout) == {"workers": 1}
    asked = cached.asked()
    assert eventually(lambda: cached.said("up/m", seed=1, headers={"Cache-Control": "max-age=60"}) and cached.asked() > asked)
    assert cached.said("up/m", seed=2) == "hit"
    assert cached.said("up/m", seed=1, key=OTHER_KEY) == "hit"
    assert cached.admin("POST", "/admin/v1/cache/purge", '{"tenants": "other"}')[0] == 400
    assert cached.admin("POST", "/admin/v1/cache/purge", "[")[0] == 400


def test_other_operations_too(cached: Cached) -> None:
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    embedding = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "m", "usage": usage}
    cached.upstream.script(answering(200, json.dumps(embedding).encode()))
    made = [cached.openai.embeddings.create(model="up/m", input="hi", encoding_format="float").data[0].embedding for _ in range(2)]
    assert made == [[0.5], [0.5]]
    assert cached.asked() == 1


def test_a_configuration_that_changes_elsewhere_keeps_what_is_kept(cached: Cached) -> None:
    place = cached.gateway.data.parent / "config.json"
    before = place.read_text()
    assert cached.said("up/m", seed=5) == "miss"
    try:
        rewrite(place, json.dumps(json.loads(before) | {"heartbeat": {"interval": 20}}))
        assert cached.admin("POST", "/admin/v1/reload")[0] == 200
        eventually(lambda: (told := json.loads(cached.admin("GET", "/admin/v1/config")[1]))["workers"] == [told["generation"]])
        assert cached.said("up/m", seed=5) == "hit"
        rewrite(place, json.dumps(json.loads(before) | {"cache": {"enabled": False}}))
        assert cached.admin("POST", "/admin/v1/reload")[0] == 200
        eventually(lambda: cached.post("up/m", seed=5)[0].headers["x-gateway-cache"] is None or None)
    finally:
        rewrite(place, before)
        assert cached.admin("POST", "/admin/v1/reload")[0] == 200
        eventually(lambda: cached.post("up/m", seed=6)[0].headers["x-gateway-cache"])


def rewrite(place: Path, text: str) -> None:
    draft = place.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(place)
