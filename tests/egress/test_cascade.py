"""A cheap model first, a dearer one where its reply will not do: clients get one ordinary reply, and pay for both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from egress.rows import rows
from replay.faulty import FaultyUpstream, answering
from routing.test_breakers import Gateway
from routing.test_failover import KEY, Loop

pytestmark = pytest.mark.slow

HI: Any = [{"role": "user", "content": "hi"}]


def said(text: str, finish: str = "stop", output: int = 20) -> str:
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output},
    }  # fmt: skip
    return answering(200, json.dumps(body).encode())


class Place:
    def __init__(self, folder: Path, loop: Loop) -> None:
        self.cheap, self.dear = FaultyUpstream(), FaultyUpstream()
        loop.run(self.cheap.start())
        loop.run(self.dear.start())
        at: dict[str, Any] = {"type": "openai_compatible", "api_key": "k", "max_retries": 0}

        def judged(**rule: Any) -> dict[str, Any]:
            return {"targets": ["cheap/x"], "fallbacks": ["dear/y"], "cascade": rule}

        self.gateway = Gateway(folder, {
            "providers": {
                "cheap": {**at, "base_url": self.cheap.url}, "dear": {**at, "base_url": self.dear.url},
                "full": {**at, "base_url": self.dear.url, "rate_limit": {"requests_per_minute": 1}},
            },
            "models": {
                "cut": judged(finish=["length"]), "short": judged(output_under=5), "lost": judged(matches="I (don't|do not) know"),
                "json": judged(invalid_json=True), "alone": {"targets": ["cheap/x"], "cascade": {"output_under": 5}},
                "hedged": {**judged(output_under=5), "hedge": {"after": "50ms", "budget": 1}},
                "three": {
                    "targets": ["cheap/x"], "fallbacks": ["dear/y", "dear/z"], "cascade": {"output_under": 5}, "hedge": {"after": "50ms", "budget": 1},
                },
                "cached": {**judged(output_under=5), "cache": True},
                "full": {"targets": ["cheap/x"], "fallbacks": ["full/y"], "cascade": {"output_under": 5}},
            },
            "prices": {"cheap/x": {"input": 1, "output": 2}, "dear/y": {"input": 10, "output": 20}},
            "resilience": {"health": {"enabled": False}},
        })  # fmt: skip
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)

    def ask(self, model: str) -> tuple[str | None, dict[str, str]]:
        raw = self.client.chat.completions.with_raw_response.create(model=model, messages=HI)
        return raw.parse().choices[0].message.content, dict(raw.headers)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("cascade"), Loop())
    yield made
    made.client.close()
    made.gateway.process.send_signal(2)
    made.gateway.process.wait(10)


@pytest.mark.parametrize(
    ("model", "first", "why"),
    [
        ("cut", said("half a sen", "length"), "escalated_length"),
        ("short", said("no", output=1), "escalated_too_short"),
        ("lost", said("I do not know."), "escalated_matches"),
        ("json", said("{broken"), "escalated_no_json"),
    ],
)
def test_a_reply_that_will_not_do_is_followed_by_anothers(place: Place, model: str, first: str, why: str) -> None:
    place.cheap.script(first)
    place.dear.script(said("a good answer", output=30))
    text, headers = place.ask(model)
    assert text == "a good answer"
    assert (headers["x-gateway-provider"], headers["x-gateway-attempts"], headers["x-gateway-fallbacks"]) == ("dear", "2", "1")
    (row,) = [row for row in rows(place.gateway.folder) if row["request_id"] == headers["x-request-id"]]
    assert [(each["provider"], each["outcome"]) for each in row["attempts"]] == [("cheap", why), ("dear", "ok")]
    wanted = {"short": 1, "cut": 20}.get(model, 20) * 2_000 + 10 * 1_000 + 30 * 20_000 + 10 * 10_000
    assert row["cost"] == wanted, "nano-USD of both"
    assert float(headers["x-gateway-cost"]) == pytest.approx(wanted / 1e9)


@pytest.mark.parametrize(
    ("model", "first"), [("cut", said("whole")), ("short", said("long enough")), ("lost", said("I know")), ("json", said("[1]"))]
)
def test_a_reply_that_will_do_is_the_reply(place: Place, model: str, first: str) -> None:
    place.cheap.script(first)
    assert place.ask(model)[1]["x-gateway-attempts"] == "1"


def test_the_last_ones_answer_is_always_taken(place: Place) -> None:
    place.cheap.script(said("no", output=1), said("no", output=1))
    place.dear.script(said("neither", output=1))
    assert place.ask("short")[0] == "neither"
    assert place.ask("alone")[0] == "no"


def test_a_reply_is_kept_where_the_next_has_no_room(place: Place) -> None:
    place.cheap.script(*[said("no", output=1)] * 2)
    place.dear.script(said("from the dear one"))
    assert place.ask("full")[0] == "from the dear one"
    assert place.ask("full")[0] == "no", "a short answer is better than none"


@pytest.mark.parametrize("failure", ["status:503", "status:400", "html"])
def test_a_reply_is_kept_where_the_next_one_fails(place: Place, failure: str) -> None:
    place.cheap.script(said("no", output=1))
    place.dear.script(failure)
    text, headers = place.ask("short")
    assert text == "no", "a short answer is better than an error"
    assert (headers["x-gateway-provider"], headers["x-gateway-attempts"], headers["x-gateway-fallbacks"]) == ("cheap", "2", "0")
    assert headers["x-gateway-escalation"] == "failed"
    assert float(headers["x-gateway-overhead-ms"]) >= 0.0
    (row,) = [row for row in rows(place.gateway.folder) if row["request_id"] == headers["x-request-id"]]
    assert (row["status"], row.get("outcome", "ok"), row["provider"], row["output"]) == (200, "ok", "cheap", 1)
    assert [each["provider"] for each in row["attempts"]] == ["dear", "cheap"]
    assert row["attempts"][-1]["outcome"] == "ok"
    assert row["cost"] == 10 * 1_000 + 1 * 2_000, "nano-USD, once"
    assert row.get("fallbacks", 0) == 0


def test_a_reply_that_the_client_could_not_be_told_is_not_fallen_back_on_and_is_paid_for(place: Place) -> None:
    """Anthropic's shape has no word for an answer that its model could not finish."""
    place.cheap.script(said("No", "abort", output=2))
    place.dear.script("status:500")
    name = "cascade-unsayable"
    headers = {"x-api-key": KEY, "x-request-id": name}
    body = {"model": "short", "max_tokens": 50, "messages": HI}
    client = http.client.HTTPConnection("127.0.0.1", place.gateway.port, timeout=10)
    client.request("POST", "/v1/messages", json.dumps(body), headers)
    reply = client.getresponse()
    client.close()
    assert reply.status >= 500
    assert reply.headers["x-gateway-escalation"] is None
    (row,) = [row for row in rows(place.gateway.folder) if row["request_id"] == name]
    assert (row["attempts"][0]["outcome"], row["attempts"][0]["cost"]) == ("escalated_too_short", 14_000)


def test_of_two_at_once_the_one_that_answered_counts(place: Place) -> None:
    """A slow first that fails in the end, and beside it the last there is, whose answer is short: better than none."""
    place.cheap.script("late_close:0.4")
    place.dear.script(said("no", output=1))
    text, headers = place.ask("hedged")
    assert (text, headers["x-gateway-provider"]) == ("no", "dear")
    (row,) = [row for row in rows(place.gateway.folder) if row["request_id"] == headers["x-request-id"]]
    assert (row["status"], row["provider"], row["output"]) == (200, "dear", 1)
    assert [each["provider"] for each in row["attempts"]] == ["cheap", "dear"], "nobody was asked twice"
    assert row["cost"] >= 10 * 10_000 + 1 * 20_000


def test_of_two_at_once_the_one_that_was_sent_back_is_gone_on_from(place: Place) -> None:
    place.cheap.script("late_close:0.4")
    place.dear.script(said("no", output=1), said("a good answer", output=30))
    text, headers = place.ask("three")
    assert (text, headers["x-gateway-model"]) == ("a good answer", "z")
    (row,) = [row for row in rows(place.gateway.folder) if row["request_id"] == headers["x-request-id"]]
    assert [(each["provider"], each["model"]) for each in row["attempts"]] == [("cheap", "x"), ("dear", "y"), ("dear", "z")]
    assert row["attempts"][1]["cost"] == 10 * 10_000 + 1 * 20_000


def test_an_answer_that_stands_in_is_not_cached(place: Place) -> None:
    place.cheap.script(said("no", output=1), said("no", output=1))
    place.dear.script("status:503", said("a good answer"))
    assert place.ask("cached")[0] == "no"
    assert place.ask("cached")[0] == "a good answer"


def test_streams_are_never_sent_back(place: Place) -> None:
    chunks = place.client.chat.completions.create(model="short", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "One two three"


def test_other_operations_are_not_judged(place: Place) -> None:
    place.cheap.script(answering(200, json.dumps({
        "object": "list", "model": "x", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }).encode()))  # fmt: skip
    assert place.client.embeddings.create(model="short", input="hi", encoding_format="float").data[0].embedding == [0.5]


def test_what_was_sent_back_says_nothing_against_the_cheap_one(place: Place) -> None:
    for _ in range(6):
        place.cheap.script(said("no", output=1))
        place.dear.script(said("a good answer"))
        assert place.ask("short")[1]["x-gateway-attempts"] == "2"
    assert 'provider="cheap"' not in "".join(line for line in place.gateway.scrape().splitlines() if line.startswith("llm_gateway_target_held"))
