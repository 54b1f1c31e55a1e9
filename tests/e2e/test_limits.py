"""Limits and budgets of a whole gateway, as the official SDKs meet them."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from e2e.conftest import KEY, OTHER_KEY, Gateway, Loop, free_port, running
from processes import eventually
from replay.faulty import FaultyUpstream, answering

CAPPED_KEY, TIGHT_KEY, SOLO_KEY, POOR_KEY, EAGER_KEY, MEAGRE_KEY = (
    f"sk-e2e-{name}-0123456" for name in ("capped", "tight", "solo", "poor", "eager", "meagre")
)
ASK: Any = [{"role": "user", "content": "hi"}]
NANO = 1_000_000_000


class Limited:
    def __init__(self, gateway: Gateway, upstream: FaultyUpstream, metrics_port: int) -> None:
        self.gateway, self.upstream, self.metrics_port = gateway, upstream, metrics_port

    def openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=key, max_retries=0, timeout=20)

    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.upstream.received]

    def rows(self, key: str) -> list[dict[str, Any]]:
        lines = [line for file in (self.gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
        return [row for row in map(json.loads, lines) if row["key"] == key]

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())


@pytest.fixture(scope="module")
def limited(loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    upstream = FaultyUpstream()
    loop_thread.run(upstream.start())
    place = tmp_path_factory.mktemp("limited")
    metrics_port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port},
        "data_dir": str(place / "data"),
        "providers": {"up": {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk-upstream", "max_retries": 0},
                      "slow": {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/ok:0.05", "api_key": "sk", "max_retries": 0},
                      "rare": {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk", "max_retries": 0,
                               "rate_limit": {"requests_per_minute": 1}},
                      "few": {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk", "max_retries": 0,
                              "rate_limit": {"requests_per_minute": 3, "tokens_per_minute": 3000}}},
        "models": {"long": {"targets": ["up/m"], "context_fallbacks": ["rare/m"]}},
        "prices": {"rare/m": {"input": 1_000_000, "output": 0}, "up/m": {"input": 1000, "output": 2000}, "slow/m": {"input": 1000, "output": 2000}},
        "catalogue": {"up/m": {"max_output": 4000}, "slow/m": {"max_output": 4000}},
        "tenants": {"acme": {"users": {"bob": {"limits": {"requests_per_minute": 2}}}}},
        "budgets": {"min_output_tokens": 16},
        "keys": [
            {"name": "e2e", "key": KEY, "tenant": "acme", "user": "bob"},
            {"name": "other", "key": OTHER_KEY, "tenant": "other"},
            {"name": "capped", "key": CAPPED_KEY, "max_output_tokens": 50},
            {"name": "tight", "key": TIGHT_KEY, "limits": {"tokens_per_minute": 1000}},
            {"name": "solo", "key": SOLO_KEY, "limits": {"concurrent": 1}},
            {"name": "eager", "key": EAGER_KEY, "tenant": "eager", "limits": {"requests_per_minute": 1}},
            {"name": "meagre", "key": MEAGRE_KEY, "budgets": [{"usd": 0.5, "period": "total"}]},
            {"name": "poor", "key": POOR_KEY, "budgets": [{"usd": 0.5, "period": "total", "alerts": [0.01]}]},
        ],
        "admin": {"token": "admin-token-of-the-tests"},
    }  # fmt: skip
    with running(place, config) as gateway:
        yield Limited(gateway, upstream, metrics_port)
    loop_thread.run(upstream.stop())


@pytest.fixture(autouse=True)
def _fresh(limited: Limited) -> None:
    limited.upstream.forget()


def test_requests_a_minute_are_counted_down_and_then_refused(limited: Limited) -> None:
    client = limited.openai(KEY)
    left = [client.chat.completions.with_raw_response.create(model="up/m", messages=ASK).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert left == ["1", "0"]
    with pytest.raises(openai.RateLimitError, match="The limit of 2 requests a minute of this user is reached") as caught:
        client.chat.completions.create(model="up/m", messages=ASK)
    assert 20 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(limited.sent()) == 2
    with pytest.raises(anthropic.RateLimitError, match="requests a minute"):
        anthropic.Anthropic(base_url=limited.gateway.url, api_key=KEY, max_retries=0, timeout=20).messages.create(model="up/m", messages=ASK, max_tokens=9)
    limited.openai(OTHER_KEY).chat.completions.create(model="up/m", messages=ASK)
    assert eventually(lambda: re.search(r'^llm_gateway_limit_refused_total{holder="user",limit="requests"} 2', limited.metrics(), re.MULTILINE))
    assert 'llm_rate_limit_exceeded_total{scope="user"} 2' in limited.metrics()


def test_what_was_refused_is_still_counted_after_a_reload(tmp_path: Path) -> None:
    metrics_port = free_port()
    config: dict[str, Any] = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port},
        "data_dir": str(tmp_path / "data"),
        "providers": {"echo": {}, "full": {"type": "echo", "rate_limit": {"requests_per_minute": 1}}},
        "resilience": {"queue": {"max_wait": 120, "max_length": 1}},
        "keys": [{"name": "e2e", "key": KEY, "limits": {"models": {"echo/m": {"requests_per_minute": 1}}}}],
    }

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())

    with running(tmp_path, config) as gateway:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
        for model in ("echo/m", "full/m"):
            client.chat.completions.create(model=model, messages=ASK)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="echo/m", messages=ASK)
        with ThreadPoolExecutor() as pool:  # of two, one waits in the queue until its client leaves; it has no room for the other
            impatient = client.with_options(timeout=2)
            both = [pool.submit(impatient.chat.completions.create, model="full/m", messages=ASK) for _ in range(2)]
            assert {type(each.exception()) for each in both} == {openai.APITimeoutError, openai.RateLimitError}
        counted = ('llm_gateway_limit_refused_total{holder="key",limit="requests"} 1', "llm_gateway_queue_refused_total 1")
        assert eventually(lambda: all(each in metrics() for each in counted))
        config["keys"].append({"name": "other", "key": OTHER_KEY})
        (tmp_path / "config.json").write_text(json.dumps(config))
        other = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=OTHER_KEY, max_retries=0, timeout=20)

        def reloaded() -> bool:
            try:
                return bool(other.models.list())
            except openai.AuthenticationError:
                return False

        assert eventually(reloaded)
        other.chat.completions.create(model="echo/m", messages=ASK)
        assert eventually(lambda: 'path="/v1/chat/completions",method="POST",status="200"} 3' in metrics())
        assert [each for each in counted if each not in metrics()] == []


def test_the_upstream_s_own_rate_limit_headers_are_nobodys_business(limited: Limited) -> None:
    reply = limited.openai(OTHER_KEY).chat.completions.with_raw_response.create(model="up/m", messages=ASK)
    assert not [name for name in reply.headers if name.startswith("x-ratelimit")]


def test_tokens_are_estimated_while_a_reply_is_under_way_and_known_after_it(limited: Limited) -> None:
    client = limited.openai(TIGHT_KEY)
    long: Any = [{"role": "user", "content": "word " * 450}]
    stream = client.chat.completions.create(model="slow/m", messages=long, max_tokens=400, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError, match="The limit of 1000 tokens a minute of this key is reached"):
        client.chat.completions.create(model="up/m", messages=long, max_tokens=400)
    for _ in stream:
        pass
    reply = client.chat.completions.with_raw_response.create(model="up/m", messages=ASK, max_tokens=10)
    assert 350 < int(reply.headers["x-ratelimit-remaining-tokens"]) < 500  # of 819 that were reserved, 565 were used
    assert len(limited.sent()) == 2


def test_output_is_capped_in_every_shape_and_the_caller_told(limited: Limited) -> None:
    reply = limited.openai(CAPPED_KEY).chat.completions.with_raw_response.create(model="up/m", messages=ASK, max_tokens=3000)
    assert reply.headers["x-gateway-adjusted-params"] == "max_tokens=50"
    claude = anthropic.Anthropic(base_url=limited.gateway.url, api_key=CAPPED_KEY, max_retries=0, timeout=20)
    assert claude.messages.with_raw_response.create(model="up/m", messages=ASK, max_tokens=51).headers["x-gateway-adjusted-params"] == "max_tokens=50"
    reply = limited.openai(CAPPED_KEY).chat.completions.with_raw_response.create(model="up/m", messages=ASK, max_tokens=7)
    assert "x-gateway-adjusted-params" not in reply.headers
    assert [body["max_tokens"] for body in limited.sent()] == [50, 50, 7]


def test_one_at_a_time_means_until_the_reply_is_over_or_its_client_gone(limited: Limited) -> None:
    client = limited.openai(SOLO_KEY)
    stream = client.chat.completions.create(model="slow/m", messages=ASK, stream=True)
    next(iter(stream))
    with pytest.raises(openai.RateLimitError, match="1 requests at once") as caught:
        client.chat.completions.create(model="up/m", messages=ASK)
    assert caught.value.code == "concurrency_limit_exceeded"
    stream.close()

    def free() -> bool:
        try:
            client.chat.completions.create(model="up/m", messages=ASK)
        except openai.RateLimitError:
            return False
        return True

    assert eventually(free, 3.0)


def test_who_is_refused_takes_nothing_of_what_providers_allow(limited: Limited) -> None:
    eager, other = limited.openai(EAGER_KEY), limited.openai(OTHER_KEY)
    eager.chat.completions.create(model="few/m", messages=ASK, max_tokens=500)
    for _ in range(5):
        with pytest.raises(openai.RateLimitError, match="The limit of 1 requests a minute of this key is reached"):
            eager.chat.completions.create(model="few/m", messages=ASK, max_tokens=500)
        with pytest.raises(openai.BadRequestError, match="x-gateway-timeout"):
            other.chat.completions.create(model="few/m", messages=ASK, max_tokens=500, extra_headers={"x-gateway-timeout": "soon"})
    for _ in range(2):
        other.chat.completions.create(model="few/m", messages=ASK, max_tokens=500)
    assert len(limited.sent()) == 3


def test_who_cannot_pay_for_a_fallback_takes_nothing_of_what_its_provider_allows(limited: Limited) -> None:
    meagre, other = limited.openai(MEAGRE_KEY), limited.openai(OTHER_KEY)
    assert eventually(lambda: meagre.chat.completions.create(model="up/m", messages=ASK, max_tokens=1), 8.0, openai.InternalServerError)
    too_long = b'{"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}'
    for _ in range(3):
        limited.upstream.script(answering(400, too_long))
        with pytest.raises(openai.RateLimitError, match="budget of this key"):
            meagre.chat.completions.create(model="long", messages=ASK, max_tokens=1)
    assert other.chat.completions.create(model="rare/m", messages=ASK, max_tokens=1).choices


async def test_parallel_clients_never_overspend(limited: Limited) -> None:
    """$0.50; a reply costs at most $0.045 by its bound, and $0.007 in truth. 40 at once, again and again, until nothing fits any more."""
    codes: list[str] = []
    assert eventually(lambda: limited.openai(POOR_KEY).chat.completions.create(model="up/m", messages=ASK, max_tokens=1), 8.0, openai.InternalServerError)
    async with openai.AsyncOpenAI(base_url=f"{limited.gateway.url}/v1", api_key=POOR_KEY, max_retries=0, timeout=30) as client:

        async def one() -> None:
            try:
                await client.chat.completions.create(model="slow/m", messages=ASK, max_tokens=10)
                codes.append("ok")
            except openai.RateLimitError as error:
                codes.append(f"{error.code} {error.response.headers['retry-after']}" if error.code == "budget_reserved" else error.code or "")

        for _ in range(60):
            await asyncio.gather(*(one() for _ in range(40)))
            if "budget_exceeded" in codes:
                break
    spent = sum(row.get("cost", 0) for row in limited.rows("poor"))
    bound = max(row.get("cost", 0) for row in limited.rows("poor")) + 40_000_000
    assert {"ok", "budget_reserved 1"} <= set(codes)
    assert spent <= 0.5 * NANO + bound
    assert spent >= 0.5 * NANO - bound
