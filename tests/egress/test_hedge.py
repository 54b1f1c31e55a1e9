"""A second attempt beside a slow first: who speaks first is heard, the other is closed, and nobody is told twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from egress.rows import rows
from processes import eventually
from replay.faulty import FaultyUpstream
from routing.test_breakers import Gateway
from routing.test_failover import KEY, Loop

pytestmark = pytest.mark.slow

HEDGED = {"after": "0.2s", "budget": 1.0}


class Place:
    """The gateway in front of two upstreams that take their turns to be slow."""

    def __init__(self, folder: Path, loop: Loop) -> None:
        self.loop, self.first, self.second = loop, FaultyUpstream(), FaultyUpstream()
        loop.run(self.first.start())
        loop.run(self.second.start())
        at: dict[str, Any] = {"type": "openai_compatible", "api_key": "k", "max_retries": 0}
        config = {
            "providers": {
                "one": {**at, "base_url": self.first.url}, "two": {**at, "base_url": self.second.url},
                "tight": {**at, "base_url": self.second.url, "rate_limit": {"requests_per_minute": 2, "tokens_per_minute": 3000}},
                "scarce": {**at, "base_url": self.second.url, "rate_limit": {"requests_per_minute": 3}},
            },
            "models": {
                "m": {"targets": ["one/x", "two/y"], "hedge": HEDGED},
                "dear": {"targets": ["one/x", "scarce/y"], "hedge": HEDGED},
                "alone": {"targets": ["one/x"], "hedge": HEDGED},
                "spare": {"targets": ["one/x", "tight/y"], "hedge": HEDGED},
                "few": {"targets": ["one/x", "two/y"], "hedge": {"after": "0.2s", "budget": 0.01}},
            },
            "resilience": {"breaker": {"enabled": False}},
            "prices": {"one/x": {"input": 2, "output": 4}, "two/y": {"input": 1, "output": 1}},
        }
        self.gateway = Gateway(folder, config)
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)

    def ask(self, model: str = "m", *, stream: bool = False) -> tuple[str | None, dict[str, str]]:
        messages: Any = [{"role": "user", "content": "hi"}]
        if stream:
            with self.client.chat.completions.with_streaming_response.create(model=model, messages=messages, stream=True) as raw:
                text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
                return text, dict(raw.headers)
        raw = self.client.chat.completions.with_raw_response.create(model=model, messages=messages)
        return raw.parse().choices[0].message.content, dict(raw.headers)

    def row(self, headers: dict[str, str]) -> dict[str, Any]:
        (row,) = [row for row in rows(self.gateway.folder) if row["request_id"] == headers["x-request-id"]]
        return row


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("hedge"), Loop())
    yield made
    made.gateway.process.send_signal(2)
    made.gateway.process.wait(10)


@pytest.mark.parametrize("stream", [False, True])
def test_the_second_answers_where_the_first_is_slow(place: Place, stream: bool) -> None:
    place.first.script("stall")
    place.first.gone.clear()
    begun = time.perf_counter()
    text, headers = place.ask(stream=stream)
    assert text == ("One two three" if stream else "hello")
    assert time.perf_counter() - begun < 5
    assert (headers["x-gateway-provider"], headers["x-gateway-attempts"]) == ("two", "2")
    place.loop.run(place.first.gone.wait()), "the slow one is closed"
    row = place.row(headers)
    assert [(each["provider"], each["outcome"]) for each in row["attempts"]] == [("one", "hedged"), ("two", "ok")]
    assert (row["provider"], row["fallbacks"], row["output"] > 0) == ("two", 1, True)
    lost = row["attempts"][0]
    assert lost["estimated"], "nobody waited for what it would say of its usage"
    assert lost["input"] > 0
    assert lost["cost"] == lost["input"] * 2000 + lost.get("output", 0) * 4000
    assert row["cost"] == row["input"] * 1000 + row["output"] * 1000 + lost["cost"], "both are paid for"


@pytest.mark.parametrize("stream", [False, True])
def test_a_fast_first_is_left_alone(place: Place, stream: bool) -> None:
    place.second.received.clear()
    _, headers = place.ask(stream=stream)
    assert (headers["x-gateway-provider"], headers["x-gateway-attempts"]) == ("one", "1")
    assert not place.second.received
    assert "attempts" not in place.row(headers)


def test_only_who_is_asked_as_well_loses_of_what_its_provider_allows(place: Place) -> None:
    assert [place.ask("dear")[1]["x-gateway-attempts"] for _ in range(6)] == ["1"] * 6
    seen = []
    for _ in range(4):
        place.first.script("slow_ok:0.6")
        seen.append(place.ask("dear")[1]["x-gateway-provider"])
    assert seen == ["scarce", "scarce", "scarce", "one"]


def test_a_stream_that_has_begun_is_never_joined_by_another(place: Place) -> None:
    place.second.received.clear()
    place.first.script("ok:0.2")  # the first word at once, then slowly
    text, headers = place.ask(stream=True)
    assert (text, headers["x-gateway-provider"]) == ("One two three", "one")
    assert not place.second.received


def test_when_the_second_fails_the_first_may_still_answer(place: Place) -> None:
    place.first.script("slow_ok:1")
    place.second.script("status:500")
    text, headers = place.ask(stream=True)
    assert (text, headers["x-gateway-provider"]) == ("One two three", "one")
    assert [each["outcome"] for each in place.row(headers)["attempts"]] == ["upstream_error", "ok"]


def test_when_both_fail_it_is_a_failed_attempt_like_any_other(place: Place) -> None:
    place.first.script("stall", "stall")
    place.second.script("status:500", "status:500")
    with pytest.raises(openai.APIStatusError) as failed:
        place.client.with_options(timeout=10).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-gateway-timeout": "1"}
        )
    row = place.row(dict(failed.value.response.headers))
    assert {each["provider"] for each in row["attempts"]} == {"one", "two"}
    place.loop.run(_emptied(place))


async def _emptied(place: Place) -> None:
    place.first._script.clear()
    place.second._script.clear()


def test_with_one_target_the_same_is_asked_again(place: Place) -> None:
    place.first.script("stall", "ok")
    text, headers = place.ask("alone")
    assert (text, headers["x-gateway-provider"], headers["x-gateway-attempts"], headers["x-gateway-fallbacks"]) == ("hello", "one", "2", "0")


def test_no_more_than_its_share_of_requests_is_asked_twice(place: Place) -> None:
    seen = []
    for _ in range(3):
        place.first.script("slow_ok:0.6")
        seen.append(place.ask("few")[1]["x-gateway-attempts"])
    assert seen.count("2") <= 1, "the one that is always allowed"


def test_a_client_that_leaves_ends_both(place: Place) -> None:
    place.first.script("stall")
    place.second.script("stall")
    place.first.gone.clear()
    place.second.gone.clear()
    with pytest.raises(openai.APITimeoutError):
        place.client.with_options(timeout=0.8).chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    place.loop.run(place.first.gone.wait())
    place.loop.run(place.second.gone.wait())


def test_a_stream_that_its_client_leaves_is_billed_like_any_other(place: Place) -> None:
    booked = []
    for model, fault in (("one/x", "stall_midstream"), ("alone", "stall_midstream"), ("m", "stall_midstream"), ("m", "stall")):
        place.first.script(fault)
        place.second.script(*["stall_midstream"] * (fault == "stall"))
        messages: Any = [{"role": "user", "content": "hi"}]
        with place.client.chat.completions.with_streaming_response.create(model=model, messages=messages, stream=True) as raw:
            assert any("three" in piece for piece in raw.iter_text())
            request_id = raw.headers["x-request-id"]
        booked += eventually(lambda asked=request_id: [row for row in rows(place.gateway.folder) if row["request_id"] == asked])
    for row in booked:
        row["way"] = [(each["provider"], each["outcome"]) for each in row.get("attempts", [])]
    plain, alone, first, second = booked
    for row in (plain, alone, first):
        assert (row["status"], row["provider"], row["output"], row["estimated"], row["bytes_out"]) == (499, "one", 4, True, plain["bytes_out"])
        assert row["cost"] == row["input"] * 2000 + row["output"] * 4000
        assert row["way"] == [("one", "client_closed_request")]
    assert (second["provider"], second["output"], second["bytes_out"], second["fallbacks"]) == ("two", 4, plain["bytes_out"], 1)
    assert second["way"] == [("one", "hedged"), ("two", "client_closed_request")]
    assert second["cost"] == second["input"] * 1000 + second["output"] * 1000 + second["attempts"][0]["cost"]


def test_it_is_counted(place: Place) -> None:
    place.first.script("stall")
    place.ask()

    def counted() -> float:
        lines = place.gateway.scrape().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("llm_hedges_total "))

    eventually(lambda: counted() >= 1, 5)


def test_a_second_that_was_not_asked_has_taken_nothing_of_what_its_provider_allows(place: Place) -> None:
    for _ in range(4):
        assert place.ask("spare")[1]["x-gateway-provider"] == "one"
    assert [place.ask("tight/y")[1]["x-gateway-provider"] for _ in range(2)] == ["tight"] * 2
