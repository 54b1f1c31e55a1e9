"""Where a request goes for one kind of reason, and when: recorded refusals, an alias's own times, room, early signs of life."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from replay import recordings
from replay.faulty import FaultyUpstream, answering
from routing.test_breakers import Gateway
from routing.test_failover import KEY, Loop

pytestmark = pytest.mark.slow

HI: Any = [{"role": "user", "content": "hi"}]


class Place:
    def __init__(self, folder: Path, loop: Loop) -> None:
        self.first, self.second = FaultyUpstream(), FaultyUpstream()
        loop.run(self.first.start())
        loop.run(self.second.start())
        at: dict[str, Any] = {"type": "openai_compatible", "api_key": "k", "max_retries": 0}
        self.gateway = Gateway(folder, {
            "providers": {
                "one": {**at, "base_url": self.first.url}, "two": {**at, "base_url": self.second.url},
                "claude": {"type": "anthropic", "base_url": self.first.url, "api_key": "k", "max_retries": 0},
                "narrow": {**at, "base_url": self.first.url, "concurrency": {"initial": 2, "min": 1, "max": 2}},
            },
            "models": {
                "m": {"targets": ["one/x"], "context_fallbacks": ["two/large"], "content_filter_fallbacks": ["two/mild"]},
                "c": {"targets": ["claude/x"], "context_fallbacks": ["two/large"]},
                "plain": {"targets": ["one/x"]},
                "brief": {"targets": ["one/x"], "fallbacks": ["two/y"], "timeout": {"attempt": 0.4}},
                "hushed": {"targets": ["one/x"], "timeout": {"silence": 0.5}},
                "narrow": {"targets": ["narrow/x"], "fallbacks": ["two/y"]},
            },
            "heartbeat": {"interval": 0.3, "early": True},
            "resilience": {"breaker": {"enabled": False}, "health": {"enabled": False}},
        })  # fmt: skip
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)

    def ask(self, model: str) -> dict[str, str]:
        return dict(self.client.chat.completions.with_raw_response.create(model=model, messages=HI).headers)

    def stream(self, path: str, model: str) -> tuple[int, bytes]:
        """All that comes of a stream."""
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=10)
        body = json.dumps({"model": model, "max_tokens": 9, "messages": HI, "stream": True})
        connection.request("POST", path, body, {"authorization": f"Bearer {KEY}", "content-type": "application/json"})
        reply = connection.getresponse()
        try:
            return reply.status, reply.read()
        except http.client.IncompleteRead as cut:
            return reply.status, cut.partial
        finally:
            connection.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("reasons"), Loop())
    yield made
    made.client.close()
    made.gateway.process.send_signal(2)
    made.gateway.process.wait(10)


def refusal(identity: str) -> str:
    """A recorded one, as a script's word."""
    try:
        recorded = recordings.load().by_id[identity]
    except FileNotFoundError:
        pytest.skip("no recorded traffic here")
    assert recorded.status == 400
    return answering(recorded.status, recorded.body)


@pytest.mark.parametrize(
    ("model", "identity", "goes_to"),
    [
        ("m", "azure-chat_completions-plain-4950325274", "mild"),
        ("m", "openrouter-chat_completions-plain-c71dfa87ed", "large"),
        ("m", "deepseek-chat_completions-plain-b7d30b6593", "large"),
        ("c", "anthropic-messages-plain-f69532d566", "large"),
    ],
)
def test_what_one_refuses_for_a_reason_goes_to_who_is_named_for_it(place: Place, model: str, identity: str, goes_to: str) -> None:
    place.first.script(refusal(identity))
    headers = place.ask(model)
    assert (headers["x-gateway-model"], headers["x-gateway-attempts"], headers["x-gateway-fallbacks"]) == (goes_to, "2", "1")


def test_without_anybody_named_the_reason_is_the_clients(place: Place) -> None:
    place.first.script(refusal("azure-chat_completions-plain-4950325274"))
    with pytest.raises(openai.BadRequestError) as refused:
        place.ask("plain")
    assert refused.value.code == "content_filter"


def test_another_reason_goes_nowhere(place: Place) -> None:
    place.first.script("status:422")
    with pytest.raises(openai.UnprocessableEntityError):
        place.ask("m")


def test_the_second_may_refuse_for_another_reason(place: Place) -> None:
    place.first.script(refusal("azure-chat_completions-plain-4950325274"))
    place.second.script(refusal("deepseek-chat_completions-plain-b7d30b6593"))
    headers = place.ask("m")
    assert (headers["x-gateway-model"], headers["x-gateway-attempts"]) == ("large", "3")


def test_an_attempt_has_its_own_time_by_alias(place: Place) -> None:
    place.first.script("stall")
    begun = time.perf_counter()
    assert place.ask("brief")["x-gateway-provider"] == "two"
    assert time.perf_counter() - begun < 8, "not the provider's ten minutes"


def test_a_silent_stream_ends_by_the_aliass_time(place: Place) -> None:
    place.first.script("stall_midstream")
    status, body = place.stream("/v1/chat/completions", "hushed")
    assert status == 200
    assert b"silence_timeout" in body
    assert b"[DONE]" not in body


def test_what_one_cannot_take_at_once_the_next_does(place: Place) -> None:
    place.first.script(*["slow_ok:0.7"] * 2)
    with ThreadPoolExecutor(8) as pool:
        went = [headers["x-gateway-provider"] for headers in pool.map(place.ask, ["narrow"] * 8)]
    assert went.count("narrow") == 2, "also while its connections are still being made"
    assert went.count("two") == 6
    assert place.ask("narrow")["x-gateway-provider"] == "narrow", "there is room again"


@pytest.mark.parametrize(("path", "model", "beat"), [("/v1/chat/completions", "plain", b": "), ("/v1/messages", "plain", b"event: ping\n")])
def test_signs_of_life_come_before_the_providers_first_word(place: Place, path: str, model: str, beat: bytes) -> None:
    place.first.script("slow_ok:1.5")
    status, body = place.stream(path, model)
    assert status == 200
    assert body.startswith(beat)
    assert b"One" in body


def test_an_sdk_takes_them(place: Place) -> None:
    place.first.script("slow_ok:1.2", "slow_ok:1.2")
    chunks = place.client.chat.completions.create(model="plain", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "One two three"
    claude = anthropic.Anthropic(base_url=f"http://127.0.0.1:{place.gateway.port}", api_key=KEY, max_retries=0, timeout=10)
    with claude.messages.stream(model="plain", max_tokens=9, messages=HI) as stream:
        assert stream.get_final_text() == "One two three"
    claude.close()


def test_after_them_an_error_comes_in_the_stream(place: Place) -> None:
    for path, mark in (("/v1/chat/completions", b'data: {"error":'), ("/v1/messages", b"event: error\n")):
        place.first.script("late_close:0.8", "late_close:0.8")  # an old connection's end is no verdict, a new one's is
        status, body = place.stream(path, "plain")
        place.first.forget()
        assert status == 200
        assert mark in body, body
        assert b"[DONE]" not in body
