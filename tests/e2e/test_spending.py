"""Streams under a hard budget whose provider knows no limits: ended in the client's own shape, or topped up. With limits in memory and in Redis."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest
from botocore.eventstream import EventStreamBuffer
from google import genai
from google.genai import types

from e2e.conftest import Gateway, Loop, free_port, running
from e2e.endless import PIECE, Endless, Played
from processes import eventually
from redis_server import redis_server

ASK: Any = [{"role": "user", "content": "hi"}]
NANO = 1_000_000_000
OUTPUT = 2_000_000  # nano-USD of a token of output
MOST = 100  # tokens that are asked for
# What a client can have been sent: of six characters a token, and what was under way meanwhile.
LONGEST = MOST * 6 + 30 * len(PIECE)
SHAPES = ("chat", "messages", "responses", "gemini", "converse", "ollama")


class Spent:
    def __init__(self, gateway: Gateway, upstream: Endless, metrics_port: int) -> None:
        self.gateway, self.upstream, self.metrics_port = gateway, upstream, metrics_port
        self._keys = iter(range(100))

    def key(self, size: str = "tight") -> str:
        """One that nobody used yet. tight: $0.25, room for one reservation of 100 tokens and no more; ample: $10."""
        return f"sk-{size}-{next(self._keys)}-0123456789"

    def openai(self, key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway.url}/v1", api_key=key, max_retries=0, timeout=30)

    def row(self, key: str) -> dict[str, Any]:
        """The journal's only row of that key."""
        name = "-".join(key.split("-")[1:3])
        lines = [line for file in (self.gateway.data / "journal").glob("*.jsonl") for line in file.read_text().splitlines()]
        (row,) = [row for row in map(json.loads, lines) if row["key"] == name]
        return dict(row)

    def played(self) -> Played:
        return self.upstream.played[-1]

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as reply:
            return sum(float(line.split()[-1]) for line in reply.read().decode().splitlines() if line.startswith(name))

    def post(self, path: str, key: str, body: object) -> bytes:
        request = urllib.request.Request(self.gateway.url + path, json.dumps(body).encode(), {"authorization": f"Bearer {key}"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bytes(reply.read())


@pytest.fixture(scope="module", params=["memory", "redis"])
def spent(request: pytest.FixtureRequest, loop_thread: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spent]:
    upstream = Endless()
    loop_thread.run(upstream.start())
    place = tmp_path_factory.mktemp("spent")
    metrics_port, url = free_port(), upstream.url
    more: dict[str, Any] = {"max_retries": 0}
    providers: dict[str, Any] = {
        "chat": {"type": "openai_compatible", "base_url": url, "api_key": "k", **more},
        "messages": {"type": "anthropic", "base_url": url, "api_key": "k", **more},
        "responses": {"type": "openai", "base_url": url, "api_key": "k", **more},
        "gemini": {"type": "gemini", "base_url": url, "api_key": "k", **more},
        "converse": {"type": "bedrock", "base_url": url, "api_key": "k", **more},
        "ollama": {"type": "ollama", "base_url": url, **more},
    }
    models = ("endless", "told", "polite-40", "polite-150")
    names = [f"{provider}/{model}" for provider in providers for model in models]
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port},
        "data_dir": str(place / "data"),
        "providers": providers,
        "prices": {name: {"input": 1000, "output": 2000} for name in names},
        "catalogue": {name: {"max_output": 4000} for name in names},
        "budgets": {"min_output_tokens": 16},
        "resilience": {"health": {"enabled": False}},
        "keys": [
            {"name": f"{size}-{number}", "key": f"sk-{size}-{number}-0123456789", "budgets": [{"usd": usd, "period": "total"}]}
            for size, usd in (("tight", 0.25), ("ample", 10.0)) for number in range(100)
        ],
    }  # fmt: skip
    if request.param == "memory":
        with running(place, config) as gateway:
            yield Spent(gateway, upstream, metrics_port)
    else:
        folder = tmp_path_factory.mktemp("redis")
        with redis_server(folder) as (redis, _), running(place, config | {"redis": {"url": redis, "timeout_ms": 1000}}) as gateway:
            yield Spent(gateway, upstream, metrics_port)
    loop_thread.run(upstream.stop())


@pytest.fixture(autouse=True)
def _ready(spent: Spent) -> None:
    """What was spent before is known a moment after the start."""
    if not spent.upstream.played:
        client = spent.openai(spent.key())
        ask = lambda: client.chat.completions.create(model="chat/polite-40", messages=ASK, max_tokens=9, stream=True)  # noqa: E731
        stream: Any = eventually(ask, 20.0, openai.InternalServerError)
        stream.close()


def ended(spent: Spent, key: str, text: str) -> None:
    """The reply was cut at about the length that was reserved for it, and no later; the upstream heard of it; the books are right."""
    assert MOST * 4 < len(text) < LONGEST
    assert text.replace(PIECE, "") == ""
    row: Any = eventually(lambda: spent.row(key))
    assert (row["status"], row.get("outcome", "ok"), row["estimated"]) == (200, "ok", True)
    assert MOST <= row["output"] < LONGEST / 4
    assert row["cost"] == pytest.approx(row["output"] * OUTPUT + row["input"] * OUTPUT / 2, rel=0.01)
    played = spent.played()
    assert eventually(lambda: played.gone)
    assert played.gone - played.last < 1.0
    with pytest.raises(openai.RateLimitError):  # and all of it counts
        spent.openai(key).chat.completions.create(model="chat/polite-40", messages=ASK, max_tokens=MOST)


def by_chat(spent: Spent, key: str, model: str) -> tuple[str, str]:
    text, finish, usage = "", "", None
    with spent.openai(key).chat.completions.create(model=model, messages=ASK, max_tokens=MOST, stream=True, stream_options={"include_usage": True}) as stream:
        for piece in stream:
            for choice in piece.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
            usage = piece.usage or usage
    assert usage is not None
    assert usage.completion_tokens == -(-len(text) // 4) or model.endswith("told")
    assert usage.model_extra is not None
    assert usage.model_extra["cost"] > 0.2
    return text, finish


def by_messages(spent: Spent, key: str, model: str) -> tuple[str, str]:
    client = anthropic.Anthropic(base_url=spent.gateway.url, api_key=key, max_retries=0, timeout=30)
    with client.messages.stream(model=model, messages=ASK, max_tokens=MOST) as stream:
        message: Any = stream.get_final_message()
    assert message.usage.output_tokens >= MOST
    return "".join(block.text for block in message.content), message.stop_reason


def by_responses(spent: Spent, key: str, model: str) -> tuple[str, str]:
    text, last = "", None
    with spent.openai(key).responses.create(model=model, input="hi", max_output_tokens=MOST, stream=True) as stream:
        for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
            last = event
    assert last is not None
    assert last.type == "response.incomplete"
    response = last.response
    assert (response.output_text, response.status) == (text, "incomplete")
    assert response.usage is not None
    assert response.incomplete_details is not None
    return text, response.incomplete_details.reason or ""


def by_gemini(spent: Spent, key: str, model: str) -> tuple[str, str]:
    client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=spent.gateway.url, timeout=30_000))
    text, finish, counted = "", "", 0
    for piece in client.models.generate_content_stream(model=model, contents="hi", config=types.GenerateContentConfig(max_output_tokens=MOST)):
        text += piece.text or ""
        for candidate in piece.candidates or ():
            finish = candidate.finish_reason.value if candidate.finish_reason else finish
        counted = (piece.usage_metadata.candidates_token_count or 0) if piece.usage_metadata else counted
    assert counted >= MOST
    return text, finish


def by_converse(spent: Spent, key: str, model: str) -> tuple[str, str]:
    asked = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "inferenceConfig": {"maxTokens": MOST}}
    body = spent.post(f"/model/{model.replace('/', '%2F')}/converse-stream", key, asked)
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    told = [(event.headers[":event-type"], json.loads(event.payload)) for event in buffer]
    text = "".join(one["delta"]["text"] for name, one in told if name == "contentBlockDelta")
    assert [name for name, _ in told][-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert told[-1][1]["usage"]["outputTokens"] >= MOST
    return text, told[-2][1]["stopReason"]


def by_ollama(spent: Spent, key: str, model: str) -> tuple[str, str]:
    client = ollama.Client(host=spent.gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=30)
    text, last = "", None
    for last in client.chat(model=model, messages=ASK, options={"num_predict": MOST}, stream=True):
        text += last.message.content or ""
    assert last is not None
    assert last.done
    assert (last.eval_count or 0) >= MOST
    return text, last.done_reason or ""


Client = Callable[[Spent, str, str], tuple[str, str]]
CLIENTS: dict[str, tuple[Client, str]] = {
    "chat": (by_chat, "length"), "messages": (by_messages, "max_tokens"), "responses": (by_responses, "max_output_tokens"),
    "gemini": (by_gemini, "MAX_TOKENS"), "converse": (by_converse, "max_tokens"), "ollama": (by_ollama, "length"),
}  # fmt: skip
ACROSS = [("chat", "messages"), ("messages", "chat"), ("responses", "gemini"), ("gemini", "chat"), ("converse", "messages"), ("ollama", "chat")]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_that_knows_no_limit_is_ended_in_its_own_shape(spent: Spent, shape: str) -> None:
    read, word = CLIENTS[shape]
    key = spent.key()
    text, finish = read(spent, key, f"{shape}/endless")
    assert finish == word
    ended(spent, key, text)


@pytest.mark.parametrize(("client", "upstream"), ACROSS)
def test_and_in_its_client_s_shape_where_that_is_another(spent: Spent, client: str, upstream: str) -> None:
    read, word = CLIENTS[client]
    key = spent.key()
    text, finish = read(spent, key, f"{upstream}/endless")
    assert finish == word
    ended(spent, key, text)


def test_a_count_that_the_stream_tells_is_believed(spent: Spent) -> None:
    """A token for each piece of nine characters: after 100 of them all is used, whatever the text looks like."""
    for shape in ("chat", "gemini"):
        key = spent.key()
        text, _ = CLIENTS[shape][0](spent, key, f"{shape}/told")
        assert MOST <= len(text) / len(PIECE) < MOST + 30
        row: Any = eventually(lambda key=key: spent.row(key))
        assert MOST <= row["output"] < MOST + 30


def test_an_honest_reply_of_the_length_that_was_asked_for_is_never_cut(spent: Spent) -> None:
    """80 tokens of 4.5 characters each, which the usual estimate takes for 90: beyond NEAR of what is left, and nothing more to be had."""
    key = spent.key()
    text, finish = "", ""
    with spent.openai(key).chat.completions.create(model="chat/polite-40", messages=ASK, max_tokens=80, stream=True) as stream:
        for piece in stream:
            for choice in piece.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    assert (text, finish) == (PIECE * 40, "stop")
    row: Any = eventually(lambda: spent.row(key))
    assert (row["output"], row["finish"], row.get("estimated", False)) == (80, "stop", False)


def test_where_there_is_money_it_is_topped_up_and_goes_on(spent: Spent) -> None:
    key = spent.key("ample")
    text, finish = "", ""
    with spent.openai(key).chat.completions.create(model="messages/polite-150", messages=ASK, max_tokens=MOST, stream=True) as stream:
        for piece in stream:
            for choice in piece.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    assert (text, finish) == (PIECE * 150, "stop")
    row: Any = eventually(lambda: spent.row(key))
    assert row["output"] == 300
    assert eventually(lambda: spent.metric('llm_gateway_budget_topups_total{verdict="granted"}') >= 1)
    assert eventually(lambda: spent.metric('llm_gateway_budget_topups_total{verdict="refused"}') >= 1)  # by the tests before
    assert eventually(lambda: spent.metric("llm_gateway_budget_ended_streams_total") >= len(SHAPES) + len(ACROSS))
    started = time.monotonic()
    while time.monotonic() - started < 5:  # all that was reserved is free again: $10 less 60 cents afford 4,600 tokens
        try:
            spent.openai(key).chat.completions.create(model="chat/polite-40", messages=ASK, max_tokens=4000, stream=True).close()
        except openai.RateLimitError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("what was topped up is still reserved")
