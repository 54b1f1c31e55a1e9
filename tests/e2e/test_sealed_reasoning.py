"""Tool loops of two turns whose thoughts only the account that made them can read, with the official SDKs against two accounts."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types

from e2e.conftest import KEY, Gateway, Loop, free_port, running
from processes import eventually
from replay.sealer import UNSEALED, Sealer, seal

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}, "strict": False}
ASK = {"role": "user", "content": "Look."}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "a cat"}
LOST = "x-gateway-dropped-params"
MOVER_KEY, TOKEN = "sk-e2e-mover-0123456789", "admin-token-of-the-tests"


@pytest.fixture(scope="module")
def sealer(loop_thread: Loop) -> Iterator[Sealer]:
    upstream = Sealer()
    loop_thread.run(upstream.start())
    yield upstream
    loop_thread.run(upstream.stop())


@pytest.fixture(scope="module")
def sealed_gateway(sealer: Sealer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("sealed")
    two = {"base_url": sealer.url, "keys": [{"name": "a", "key": "a"}, {"name": "b", "key": "b"}], "max_retries": 0}
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": free_port()},
        "workers": 1,
        "data_dir": str(place / "data"),
        "providers": {
            "two": {"type": "openai", **two},
            "one": {"type": "openai", "base_url": sealer.url, "api_key": "c", "max_retries": 0},
            "goog": {"type": "gemini", **two},
        },
        "models": {"either": {"targets": ["one/m"], "fallbacks": ["two/m"]}},
        "keys": [{"name": "e2e", "key": KEY, "tenant": "default"}, {"name": "mover", "key": MOVER_KEY, "tenant": "mover"}],
        "tenants": {"mover": {}},
        "admin": {"token": TOKEN},
        "resilience": {"health": {"enabled": False}},
    }
    with running(place, config) as started:
        yield started


@pytest.fixture
def client(sealed_gateway: Gateway, sealer: Sealer) -> Iterator[openai.OpenAI]:
    yield openai.OpenAI(base_url=f"{sealed_gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)
    sealer.down.clear()


@pytest.fixture
def google(sealed_gateway: Gateway, sealer: Sealer) -> Iterator[genai.Client]:
    yield genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=sealed_gateway.url, timeout=20_000))
    sealer.down.clear()


def turn(client: openai.OpenAI, model: str, said: list[Any], *, stream: bool) -> tuple[Any, str | None]:
    """The response, and what was dropped for it."""
    asked = {"model": model, "input": said, "tools": [TOOL], "store": False, "include": ["reasoning.encrypted_content"]}
    if not stream:
        raw = client.responses.with_raw_response.create(**asked)
        return raw.parse(), raw.headers.get(LOST)
    got = client.responses.create(**asked, stream=True)
    dropped = got.response.headers.get(LOST)
    *_, last = got
    return last.response, dropped


def back(reply: Any) -> list[Any]:
    return [ASK, *[item.to_dict() for item in reply.output], RESULT]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_loop_stays_with_the_account_that_began_it(client: openai.OpenAI, sealer: Sealer, *, stream: bool) -> None:
    began = set()
    for _ in range(5):  # the keys take turns; an odd number of requests follows each beginning
        first, _ = turn(client, "two/m", [ASK], stream=stream)
        account = sealer.received[-1][0]
        began.add(account)
        turn(client, "two/m", [ASK], stream=stream)
        second, dropped = turn(client, "two/m", back(first), stream=stream)
        assert second.output_text == f"answered by {account}"
        assert dropped is None
        sent = sealer.received[-1][1].json()["input"][1]
        assert sent["encrypted_content"] == seal(account)  # what it made, to the letter
    assert began == {"a", "b"}


@pytest.mark.parametrize("stream", [False, True])
def test_another_account_answers_without_the_thoughts_when_theirs_is_down(client: openai.OpenAI, sealer: Sealer, *, stream: bool) -> None:
    first, _ = turn(client, "two/m", [ASK], stream=stream)
    account = sealer.received[-1][0]
    other = {"a": "b", "b": "a"}[account]
    sealer.down.add(account)
    second, dropped = turn(client, "two/m", back(first), stream=stream)
    assert second.output_text == f"answered by {other}"
    assert dropped == "input[1].encrypted_content"
    assert [who for who, _ in sealer.received[-2:]] == [account, other]
    assert [item["type"] for item in sealer.received[-1][1].json()["input"] if "type" in item] == ["function_call", "function_call_output"]
    sealer.down.clear()
    third, dropped = turn(client, "two/m", [*back(first), *[item.to_dict() for item in second.output], ASK], stream=stream)
    assert third.output_text == f"answered by {other}"  # who thought last
    assert dropped == "input[1].encrypted_content"


def test_thoughts_of_an_account_outside_the_plan_are_dropped(client: openai.OpenAI, sealer: Sealer) -> None:
    first, _ = turn(client, "two/m", [ASK], stream=False)
    second, dropped = turn(client, "one/m", back(first), stream=False)
    assert second.output_text == "answered by c"
    assert dropped == "input[1].encrypted_content"


def test_where_there_is_one_account_nothing_is_marked_and_what_was_kept_before_still_works(client: openai.OpenAI, sealer: Sealer) -> None:
    first, _ = turn(client, "one/m", [ASK], stream=False)
    assert first.output[0].encrypted_content == seal("c")
    second, dropped = turn(client, "either", back(first), stream=False)  # unmarked, to a plan that would mark it
    assert (second.output_text, dropped) == ("answered by c", None)
    assert second.output[0].encrypted_content.startswith("GWSEALED")


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_of_the_gateways_accounts_are_dropped_where_a_tenant_has_brought_its_own(
    sealed_gateway: Gateway, sealer: Sealer, *, stream: bool
) -> None:
    client = openai.OpenAI(base_url=f"{sealed_gateway.url}/v1", api_key=MOVER_KEY, max_retries=0, timeout=20)
    port = json.loads((sealed_gateway.data.parent / "config.json").read_text())["server"]["metrics_port"]

    def secret(method: str, body: bytes | None = None) -> None:
        url = f"http://127.0.0.1:{port}/admin/v1/tenants/mover/secrets/two"
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=10).close()

    def answerer() -> str:
        turn(client, "two/m", [ASK], stream=stream)
        return sealer.received[-1][0]

    first, _ = turn(client, "two/m", [ASK], stream=stream)
    secret("PUT", b'{"key": "d"}')
    eventually(lambda: answerer() == "d")
    second, dropped = turn(client, "two/m", back(first), stream=stream)
    assert (second.output_text, dropped) == ("answered by d", "input[1].encrypted_content")
    assert "GWSEALED" not in sealer.received[-1][1].body.decode()
    secret("DELETE")
    eventually(lambda: answerer() != "d")


def test_an_alias_over_providers_goes_back_to_the_fallback_that_thought(client: openai.OpenAI, sealer: Sealer) -> None:
    sealer.down.add("c")
    first, _ = turn(client, "either", [ASK], stream=True)
    account = sealer.received[-1][0]
    assert account in {"a", "b"}
    sealer.down.clear()
    second, dropped = turn(client, "either", back(first), stream=True)
    assert (second.output_text, dropped) == (f"answered by {account}", None)


@pytest.mark.parametrize("stream", [False, True])
def test_geminis_signatures_come_back_to_their_account(google: genai.Client, sealer: Sealer, *, stream: bool) -> None:
    def ask(said: list[Any]) -> Any:
        if not stream:
            return google.models.generate_content(model="goog/gemini-3-pro", contents=said)
        *_, last = google.models.generate_content_stream(model="goog/gemini-3-pro", contents=said)
        return last

    user = types.Content(role="user", parts=[types.Part(text="Look.")])
    answer = types.Content(role="user", parts=[types.Part.from_function_response(name="look", response={"seen": "a cat"})])
    for _ in range(3):
        first = ask([user])
        account = sealer.received[-1][0]
        ask([user])
        second = ask([user, first.candidates[0].content, answer])
        assert second.text == f"answered by {account}"
    sealer.down.add(account)
    third = ask([user, first.candidates[0].content, answer])
    other = {"a": "b", "b": "a"}[account]
    assert third.text == f"answered by {other}"
    assert sealer.received[-1][1].json()["contents"][1]["parts"][0]["thoughtSignature"] == UNSEALED  # a call cannot go without


@pytest.mark.parametrize("stream", [False, True])
def test_a_crossing_carries_the_mark_there_and_back(client: openai.OpenAI, sealer: Sealer, *, stream: bool) -> None:
    """Gemini's seals, kept by a client of the responses API in words of ours."""
    for _ in range(3):
        first, _ = turn(client, "goog/gemini-3-pro", [ASK], stream=stream)
        account = sealer.received[-1][0]
        turn(client, "goog/gemini-3-pro", [ASK], stream=stream)
        said = [ASK, *[item.to_dict() for item in first.output]]
        call = next(item for item in first.output if item.type == "function_call")
        said.append({**RESULT, "call_id": call.call_id})
        second, dropped = turn(client, "goog/gemini-3-pro", said, stream=stream)
        assert second.output_text == f"answered by {account}"
        assert seal(account) in json.dumps(sealer.received[-1][1].json()).replace("\\/", "/")
        assert dropped is None or "encrypted_content" not in dropped


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_client_brings_openais_seal_back_in_its_details(client: openai.OpenAI, sealer: Sealer, *, stream: bool) -> None:
    def ask(said: list[Any]) -> dict[str, Any]:
        tool = {"type": "function", "function": {"name": "look", "parameters": TOOL["parameters"]}}
        asked = {"model": "two/gpt-5-pro", "messages": said, "tools": [tool]}  # a model of the responses API alone
        if not stream:
            return client.chat.completions.create(**asked).choices[0].message.to_dict()
        whole: dict[str, Any] = {"role": "assistant", "content": "", "reasoning_details": [], "tool_calls": []}
        for chunk in client.chat.completions.create(**asked, stream=True):
            for choice in chunk.choices:
                delta = choice.delta.to_dict()
                whole["content"] += delta.get("content") or ""
                whole["reasoning_details"] += delta.get("reasoning_details", [])
                opened = [call for call in delta.get("tool_calls", []) if call.get("id")]
                whole["tool_calls"] += [{"id": call["id"], "type": "function", "function": {"name": "look", "arguments": "{}"}} for call in opened]
        return whole

    for _ in range(3):
        first = ask([ASK])
        account = sealer.received[-1][0]
        ask([ASK])
        second = ask([ASK, first, {"role": "tool", "tool_call_id": first["tool_calls"][0]["id"], "content": "a cat"}])
        assert second["content"] == f"answered by {account}"
        assert seal(account) in sealer.received[-1][1].body.decode()
