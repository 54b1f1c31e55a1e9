"""Any client reaches any provider: the OpenAI SDK to Anthropic's recorded replies, and Anthropic's SDK to OpenAI's."""

from __future__ import annotations

import json

import anthropic
import openai

from e2e.recorded import anthropic_content, billed, chosen, events, openai_content
from replay.recordings import Recordings
from replay.server import ReplayUpstream

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL = {"name": "weather", "description": "The weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def test_openai_sdk_reads_anthropic_replies(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    cases = chosen(recordings, "anthropic", "messages", streaming=False)
    assert len(cases) >= 8
    for each in cases:
        got = openai_client.chat.completions.create(model=f"anthropic/{each.id}", messages=ASK, max_tokens=64)
        message, recorded = got.choices[0].message, json.loads(each.body)
        text, calls = anthropic_content(each)
        assert (message.content or "") == text, each.id
        assert [(one.function.name, json.loads(one.function.arguments or "{}")) for one in message.tool_calls or []] == calls, each.id
        assert got.usage is not None
        assert got.usage.completion_tokens == billed(recorded["usage"]), each.id
        if calls and recorded["stop_reason"] == "tool_use":
            assert got.choices[0].finish_reason == "tool_calls", each.id


def test_a_long_conversation_arrives_whole(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, recordings: Recordings, replay: ReplayUpstream
) -> None:
    """Over 256 KiB requests are read and written in steps."""
    said = [{"role": ("user", "assistant")[turn % 2], "content": f"{turn}: {'no play ' * 150}é"} for turn in range(501)]
    there = chosen(recordings, "anthropic", "messages", streaming=False)[0].id
    openai_client.chat.completions.create(model=f"anthropic/{there}", messages=[{"role": "system", "content": "Be dull."}, *said], max_tokens=64)
    sent = replay.received[-1].json()
    assert (sent["system"], sent["messages"], sent["max_tokens"]) == ("Be dull.", said, 64)
    back = chosen(recordings, "openai", "chat_completions", streaming=False)[0].id
    anthropic_client.messages.create(model=f"openai/{back}", system="Be dull.", messages=said, max_tokens=64)
    sent = replay.received[-1].json()
    assert sent["messages"] == [{"role": "system", "content": "Be dull."}, *said]


async def test_openai_sdk_reads_anthropic_streams(async_openai: openai.AsyncOpenAI, recordings: Recordings) -> None:
    cases = chosen(recordings, "anthropic", "messages", streaming=True)
    assert len(cases) >= 8
    for each in cases:
        text, tools, finish, usage = "", {}, None, None
        stream = await async_openai.chat.completions.create(
            model=f"anthropic/{each.id}", messages=ASK, max_tokens=64, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                text += choice.delta.content or ""
                for one in choice.delta.tool_calls or []:
                    name, arguments = tools.get(one.index, ("", ""))
                    tools[one.index] = (name + (one.function.name or ""), arguments + (one.function.arguments or ""))
        calls = [(name, json.loads(arguments or "{}")) for name, arguments in tools.values()]
        assert (text, calls) == anthropic_content(each), each.id
        assert finish is not None, each.id
        assert usage is not None, each.id
        assert usage.completion_tokens == billed(events(each.body)[-2]["usage"]), each.id


def test_anthropic_sdk_reads_openai_replies(anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    cases = [each for each in chosen(recordings, "openai", "chat_completions", streaming=False) if len(json.loads(each.body)["choices"]) == 1]
    assert len(cases) >= 8
    for each in cases:
        if json.loads(each.body)["choices"][0]["message"].get("audio"):
            continue  # Anthropic's shape has no spoken answer
        got = anthropic_client.messages.create(model=f"openai/{each.id}", messages=ASK, max_tokens=64)
        text = "".join(block.text for block in got.content if block.type == "text")
        calls = [(block.name, block.input) for block in got.content if block.type == "tool_use"]
        refusal = json.loads(each.body)["choices"][0]["message"].get("refusal") or ""
        recorded_text, recorded_calls = openai_content(each)
        assert (text, calls) == (recorded_text + refusal, recorded_calls), each.id
        assert got.usage.output_tokens == json.loads(each.body)["usage"]["completion_tokens"], each.id


def test_anthropic_sdk_reads_openai_streams(anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    cases = chosen(recordings, "openai", "chat_completions", streaming=True)
    assert len(cases) >= 8
    for each in cases:
        if (each.request.get("n") or 1) > 1 or not any(event.get("choices") for event in events(each.body)):
            continue
        with anthropic_client.messages.stream(model=f"openai/{each.id}", messages=ASK, max_tokens=64) as stream:
            message = stream.get_final_message()
        text = "".join(block.text for block in message.content if block.type == "text")
        calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
        refusal = "".join(choice["delta"].get("refusal") or "" for event in events(each.body) for choice in event.get("choices", []))
        recorded_text, recorded_calls = openai_content(each)
        assert (text, calls) == (recorded_text + refusal, recorded_calls), each.id
        assert message.stop_reason is not None, each.id


def test_openai_images_reach_anthropic(openai_client: openai.OpenAI, recordings: Recordings, replay: ReplayUpstream) -> None:
    each = chosen(recordings, "anthropic", "messages", streaming=False)[0]
    parts = [
        {"type": "text", "text": "Compare."},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    openai_client.chat.completions.create(model=f"anthropic/{each.id}", messages=[{"role": "user", "content": parts}])
    sources = [part["source"] for part in replay.received[-1].json()["messages"][0]["content"] if part["type"] == "image"]
    assert sources == [
        {"type": "url", "url": "https://example.com/a.png"},
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
    ]


def test_anthropic_images_reach_openai(anthropic_client: anthropic.Anthropic, recordings: Recordings, replay: ReplayUpstream) -> None:
    each = chosen(recordings, "openai", "chat_completions", streaming=False)[0]
    parts = [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
        {"type": "text", "text": "Compare."},
    ]
    anthropic_client.messages.create(model=f"openai/{each.id}", max_tokens=64, messages=[{"role": "user", "content": parts}])
    sent = replay.received[-1].json()["messages"][0]["content"]
    assert [part["image_url"]["url"] for part in sent if part["type"] == "image_url"] == [
        "https://example.com/a.png",
        f"data:image/png;base64,{PIXEL}",
    ]


def test_a_tool_loop_crosses_both_ways(openai_client: openai.OpenAI, recordings: Recordings, replay: ReplayUpstream) -> None:
    """An assistant's call and its result, in OpenAI's words, are an Anthropic conversation with the same ids."""
    each = chosen(recordings, "anthropic", "messages", streaming=False)[0]
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"},
    ]
    openai_client.chat.completions.create(model=f"anthropic/{each.id}", messages=messages, tools=[{"type": "function", "function": TOOL}])
    sent = replay.received[-1].json()
    assert "Be brief." in json.dumps(sent["system"])
    assert [tool["name"] for tool in sent["tools"]] == ["weather"]
    used = next(part for part in sent["messages"][1]["content"] if part["type"] == "tool_use")
    result = next(part for part in sent["messages"][2]["content"] if part["type"] == "tool_result")
    assert (used["id"], used["input"], result["tool_use_id"]) == ("call_1", {"city": "Paris"}, "call_1")


def test_a_legacy_prompt_reaches_a_chat_model(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = chosen(recordings, "anthropic", "messages", streaming=False)[0]
    told = openai_client.completions.create(model=f"anthropic/{each.id}", prompt="hi")
    assert told.object == "text_completion"
    assert told.choices[0].text == "".join(block.get("text", "") for block in json.loads(each.body)["content"])
    assert openai_client.completions.create(model="broken/fine", prompt="hi").choices


def test_a_legacy_prompt_streams_from_a_chat_model(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = next(each for each in chosen(recordings, "anthropic", "messages", streaming=True) if b"text_delta" in each.body)
    stream = list(openai_client.completions.create(model=f"anthropic/{each.id}", prompt="hi", stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.text for chunk in stream for choice in chunk.choices)
    assert stream[-1].usage is not None


def test_tokens_are_counted_or_estimated(anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    own = next(each for each in recordings.select(api="count_tokens", provider="anthropic") if each.status == 200)
    assert anthropic_client.messages.count_tokens(model=f"anthropic/{own.id}", messages=ask).input_tokens == 14
    other = next(each for each in recordings.select(api="count_tokens", provider="gemini") if each.status == 200)
    assert anthropic_client.messages.count_tokens(model=f"gemini/{other.id}", messages=ask).input_tokens == 8
    raw = anthropic_client.messages.with_raw_response.count_tokens(model="broken/fine", messages=ask)
    assert raw.headers["x-gateway-estimated"] == "true"
    assert 5 < raw.parse().input_tokens < 40
