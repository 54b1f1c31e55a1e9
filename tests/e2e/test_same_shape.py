"""The official SDKs against the real gateway: same shape in and out, and nothing changes on the way."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from e2e.conftest import KEY, Gateway
from e2e.recorded import anthropic_content, call, chosen, events, openai_content
from replay.recordings import Interaction, Recordings
from replay.server import ReplayUpstream

# The SDKs build replies without validating them; writing such a union again makes pydantic say at length that it guessed.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


def test_openai_replies_arrive_as_recorded(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    cases = chosen(recordings, "openai", "chat_completions", streaming=False)
    assert len(cases) >= 10
    for each in cases:
        got = openai_client.chat.completions.create(**call(each, "openai"))
        assert got.to_dict() == ChatCompletion.construct(**json.loads(each.body)).to_dict(), each.id


async def test_openai_replies_arrive_as_recorded_async(async_openai: openai.AsyncOpenAI, recordings: Recordings) -> None:
    for each in chosen(recordings, "openai", "chat_completions", streaming=False)[:5]:
        got = await async_openai.chat.completions.create(**call(each, "openai"))
        assert json.loads(got.to_json()) == json.loads(each.body), each.id


def test_openai_streams_arrive_as_recorded(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    cases = chosen(recordings, "openai", "chat_completions", streaming=True)
    assert len(cases) >= 10
    for each in cases:
        got = [chunk.to_dict() for chunk in openai_client.chat.completions.create(**call(each, "openai"), stream=True)]
        assert without_cost(got) == wanted(each), each.id


async def test_openai_streams_arrive_as_recorded_async(async_openai: openai.AsyncOpenAI, recordings: Recordings) -> None:
    for each in chosen(recordings, "openai", "chat_completions", streaming=True)[:5]:
        stream = await async_openai.chat.completions.create(**call(each, "openai"), stream=True)
        assert without_cost([chunk.to_dict() async for chunk in stream]) == wanted(each), each.id


def without_cost(chunks: list[dict]) -> list[dict]:
    """The one thing we add to a stream: `usage.cost` in its last usage, in USD."""
    for chunk in chunks:
        if chunk.get("usage"):
            chunk["usage"].pop("cost", None)
    return chunks


def wanted(each: Interaction) -> list[dict]:
    """The recorded chunks; a usage-only chunk only where the client asked for usage."""
    asked = (each.request.get("stream_options") or {}).get("include_usage")
    return [chunk for chunk in events(each.body) if asked or chunk.get("choices")]


def test_anthropic_replies_arrive_as_recorded(anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    cases = chosen(recordings, "anthropic", "messages", streaming=False)
    assert len(cases) >= 8
    for each in cases:
        got = anthropic_client.messages.create(**{"max_tokens": 1024, **call(each, "anthropic")})
        assert got.to_dict() == Message.construct(**json.loads(each.body)).to_dict(), each.id


async def test_anthropic_streams_arrive_as_recorded(async_anthropic: anthropic.AsyncAnthropic, recordings: Recordings) -> None:
    cases = chosen(recordings, "anthropic", "messages", streaming=True)
    assert len(cases) >= 8
    for each in cases:
        async with async_anthropic.messages.stream(**call(each, "anthropic")) as stream:
            message = await stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
        assert (text, calls) == anthropic_content(each), each.id
        assert message.usage.output_tokens == events(each.body)[-2]["usage"]["output_tokens"], each.id


def test_tools_reach_the_upstream_untouched(openai_client: openai.OpenAI, recordings: Recordings, replay: ReplayUpstream) -> None:
    cases = [each for each in chosen(recordings, "openai", "chat_completions", streaming=False) if "tools" in each.request]
    assert cases
    for each in cases:
        openai_client.chat.completions.create(**call(each, "openai"))
        sent = replay.received[-1].json()
        assert {**sent, "model": each.request["model"]} == {key: value for key, value in each.request.items() if key != "stream"}, each.id
        assert openai_content(each)


@pytest.mark.parametrize("status", [400, 404, 429])
def test_recorded_errors_raise_what_they_would_without_a_gateway(openai_client: openai.OpenAI, recordings: Recordings, status: int) -> None:
    kinds = {400: openai.BadRequestError, 404: openai.NotFoundError, 429: openai.RateLimitError}
    cases = list(recordings.select(provider="openai", api="chat_completions", status=status, body_kind="json"))
    if not cases:
        pytest.skip(f"no recorded {status}")
    for each in cases:
        with pytest.raises(kinds[status]) as caught:
            openai_client.chat.completions.create(model=f"openai/{each.id}", messages=[{"role": "user", "content": "x"}])
        assert caught.value.status_code == status


def test_a_refused_key_of_ours_is_never_the_clients_401(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = next(recordings.select(provider="openai", status=401, body_kind="json"))
    with pytest.raises(openai.InternalServerError) as caught:
        openai_client.chat.completions.create(model=f"openai/{each.id}", messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == 502
    assert caught.value.code == "upstream_auth"


def test_anthropic_errors_come_in_its_own_shape(anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    each = next(recordings.select(provider="anthropic", api="messages", status=400, body_kind="json"))
    with pytest.raises(anthropic.BadRequestError) as caught:
        anthropic_client.messages.create(model=f"anthropic/{each.id}", max_tokens=10, messages=[{"role": "user", "content": "x"}])
    assert caught.value.body == json.loads(each.body)


def test_a_wrong_key_is_an_authentication_error_in_both_shapes(gateway: Gateway) -> None:
    one = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        one.chat.completions.create(model="gpt-4", messages=[])
    other = anthropic.Anthropic(base_url=gateway.url, api_key="sk-wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        other.messages.create(model="claude-3-sonnet", max_tokens=1, messages=[])


def test_the_clients_key_stays_here_and_the_providers_goes_out(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, recordings: Recordings, replay: ReplayUpstream
) -> None:
    chat = chosen(recordings, "openai", "chat_completions", streaming=False)[0]
    openai_client.chat.completions.create(**call(chat, "openai"))
    assert replay.received[-1].header("authorization") == "Bearer sk-upstream-openai"
    message = chosen(recordings, "anthropic", "messages", streaming=False)[0]
    anthropic_client.messages.create(**{"max_tokens": 64, **call(message, "anthropic")})
    assert replay.received[-1].header("x-api-key") == "sk-upstream-anthropic"
    assert not any(KEY in value for received in replay.received for _, value in received.headers)


def test_response_headers_say_who_answered(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = chosen(recordings, "openai", "chat_completions", streaming=False)[0]
    raw = openai_client.chat.completions.with_raw_response.create(**call(each, "openai"), extra_headers={"X-Request-ID": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-gateway-provider"] == "openai"
    assert raw.headers["x-gateway-attempts"] == "1"


def test_a_model_tells_what_it_can_and_what_it_costs(openai_client: openai.OpenAI) -> None:
    told = openai_client.models.retrieve("openai/gpt-4o").to_dict()
    assert told["context_window"] == 128_000
    assert {"image", "text"} <= set(told["input_modalities"])
    assert (told["pricing"]["input"], told["pricing"]["output"], told["pricing"]["unit"]) == (2.5, 10.0, "1M tokens")
    listed = {model.id: model.to_dict() for model in openai_client.models.list().data}
    assert listed["anthropic/claude-sonnet-4-5"]["pricing"]["cache_read"] > 0
    assert "above" in listed["gemini/gemini-2.5-pro"]["pricing"]
