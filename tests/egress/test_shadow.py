"""Copies of requests to another target: the client neither waits for them nor hears of them, the operator sees what they were."""

from __future__ import annotations

import re
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

_PICTURE = "headers:content-type=image/png"
HI: Any = [{"role": "user", "content": "hi"}]


class Place:
    def __init__(self, folder: Path, loop: Loop) -> None:
        self.loop, self.live, self.copy = loop, FaultyUpstream(), FaultyUpstream()
        loop.run(self.live.start())
        loop.run(self.copy.start())
        at: dict[str, Any] = {"type": "openai_compatible", "api_key": "k", "max_retries": 0}
        self.gateway = Gateway(folder, {
            "providers": {
                "live": {**at, "base_url": self.live.url},
                "copy": {**at, "base_url": self.copy.url},
                "claude": {"type": "anthropic", "base_url": self.copy.url, "api_key": "k", "max_retries": 0},
            },
            "models": {
                "m": {"targets": ["live/x"], "shadow": {"target": "copy/y", "share": 1.0}},
                "crossed": {"targets": ["live/x"], "shadow": {"target": "claude/z", "share": 1.0}},
                "limited": {"targets": ["live/x"], "shadow": {"target": "copy/w", "share": 1.0}},
                "judged": {"targets": ["live/x"], "fallbacks": ["live/z"], "cascade": {"output_under": 100},
                           "shadow": {"target": "copy/y", "share": 1.0}},
            },
            "resilience": {"breaker": {"enabled": False, "cooling": False, "key_ejection": 0}, "health": {"enabled": False}},
            "limits": {"each_key": {"models": {"limited": {"requests_per_minute": 2}}}},
            "prices": {"live/x": {"input": 1, "output": 1}},
            "drain": {"lame_duck": 0, "timeout": 20},
        })  # fmt: skip
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)

    def ask(self, model: str = "m", *, stream: bool = False) -> str:
        if stream:
            chunks = self.client.chat.completions.create(model=model, messages=HI, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        return self.client.chat.completions.create(model=model, messages=HI).choices[0].message.content or ""

    def copies(self, model: str = "") -> list[dict[str, Any]]:
        return [row for row in rows(self.gateway.folder) if row["key"] == "shadow" and model in ("", row["model"])]

    def counted(self, outcome: str, model: str = "m") -> float:
        found = re.findall(rf'^llm_shadow_requests_total\{{model="{model}",outcome="{outcome}"\}} (\S+)', self.gateway.scrape(), re.MULTILINE)
        return sum(map(float, found))

    def forget(self) -> None:
        self.live.received.clear()
        self.copy.received.clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("shadow"), Loop())
    yield made
    made.gateway.process.kill()
    made.gateway.process.wait(10)
    made.loop.run(made.live.stop())
    made.loop.run(made.copy.stop())


@pytest.mark.parametrize("stream", [False, True])
def test_the_copy_goes_to_the_other_and_has_a_row_of_its_own(place: Place, stream: bool) -> None:
    place.forget()
    before = len(place.copies())
    assert place.ask(stream=stream) == ("One two three" if stream else "hello")
    eventually(lambda: len(place.copies()) == before + 1)
    assert [each.json()["model"] for each in place.copy.received] == ["y"]
    assert place.copy.received[0].json()["messages"] == HI
    row = place.copies()[-1]
    assert (row["provider"], row["upstream_model"], row["route"], row["tenant"]) == ("copy", "y", "shadow", "")
    assert ("outcome" in row, row.get("stream", False)) == (False, stream)
    own = next(each for each in rows(place.gateway.folder) if each["request_id"] == row["request_id"] and each["key"] == "f")
    assert (own["provider"], "attempts" in own) == ("live", False)


def test_copies_cross_into_other_shapes(place: Place) -> None:
    place.forget()
    assert place.ask("crossed") == "hello"
    eventually(lambda: place.copy.received)
    assert place.copy.received[0].path == "/v1/messages"


def test_it_is_counted_beside_what_clients_asked_for_not_among_it(place: Place) -> None:
    place.ask()
    eventually(lambda: place.counted("ok") >= 1, 5)
    text = place.gateway.scrape()
    assert re.search(r'^llm_shadow_duration_seconds_count\{model="m"\} [1-9]', text, re.MULTILINE)
    assert 'path="shadow"' not in text


@pytest.mark.parametrize("fault", ["status:500", "status:429,retry-after=30", "status:401", "reset_at_once", "html", "stall"])
def test_a_copy_that_fails_or_stalls_is_nobodys_trouble(place: Place, fault: str) -> None:
    place.forget()
    place.copy.script(fault)
    begun = time.perf_counter()
    assert place.ask() == "hello"
    assert place.ask(stream=True) == "One two three"
    assert time.perf_counter() - begun < 5, "the stalled one would take minutes"
    eventually(lambda: len(place.copy.received) == 2)
    assert len(place.live.received) == 2, "and nothing is asked again"


def test_a_copy_is_not_judged_and_costs_the_client_nothing(place: Place) -> None:
    place.forget()
    before = place.counted("ok", "judged")
    assert place.ask("judged") == "hello"
    assert [each.json()["model"] for each in place.live.received] == ["x", "z"]
    eventually(lambda: place.counted("ok", "judged") == before + 1, 5)
    assert len(place.copy.received) == 1


def test_who_is_refused_has_no_copy(place: Place) -> None:
    place.forget()
    for _ in range(2):
        place.ask("limited")
    for _ in range(3):
        with pytest.raises(openai.RateLimitError, match="2 requests a minute"):
            place.ask("limited")
    assert eventually(lambda: len(place.copies("limited")) == 2)
    assert len(place.copy.received) == 2


def test_a_copy_that_could_not_even_be_sent_is_not_held_against_its_target(place: Place, tmp_path: Path) -> None:
    """Ollama takes pictures by value only, and for copies nothing is fetched beyond what a request brought along."""
    pictures = FaultyUpstream()
    place.loop.run(pictures.start())
    gateway = Gateway(tmp_path, {
        "providers": {
            "live": {"type": "openai_compatible", "base_url": place.live.url, "api_key": "k", "max_retries": 0},
            "copy": {"type": "ollama", "base_url": place.copy.url, "max_retries": 0},
        },
        "models": {"m": {"targets": ["live/x"], "shadow": {"target": "copy/y", "share": 1.0}}},
        "resilience": {"health": {"enabled": False}},
        "media": {"allow_private": True, "allow_ports": [pictures.port]},
    })  # fmt: skip
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=KEY, max_retries=0, timeout=10)
        pictures.script(*[_PICTURE] * 6)
        shown: Any = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"{pictures.url}/dot.png"}}]}]
        for _ in range(6):
            assert client.chat.completions.create(model="m", messages=shown).choices[0].message.content == "hello"
        eventually(lambda: 'outcome="overloaded"} 6' in gateway.scrape())
        assert gateway.ask("copy/y").status == 200
    finally:
        gateway.process.kill()
        gateway.process.wait(10)
        place.loop.run(pictures.stop())


def test_a_drain_does_not_wait_for_copies_and_books_them(place: Place) -> None:
    """The last test: it ends the gateway."""
    place.forget()
    place.copy.script("stall")
    assert place.ask() == "hello"
    eventually(lambda: place.copy.received)
    booked, begun = len(place.copies()), time.perf_counter()
    place.client.close()
    place.gateway.process.terminate()
    assert place.gateway.process.wait(15) == 0
    assert time.perf_counter() - begun < 15, "its patience would be twenty seconds"
    assert len(place.copies()) > booked
    assert "Traceback" not in (place.gateway.folder / "log").read_text()
