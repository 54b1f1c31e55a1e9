"""What a crossing keeps, adjusts, drops and refuses: the decisions of formats/crossings.py, one by one."""

from __future__ import annotations

import json
import sys

import pytest
from msgspec import structs

from formats.shapes import CALL, SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Conversation
from llm_gateway.formats import crossings
from llm_gateway.formats.crossing import Crossing

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "done"}


def to_anthropic(model="claude-sonnet-4-5", **fields):
    request = json.dumps({"model": "m", "messages": [USER], **fields}).encode()
    sent = ANTHROPIC.write_request(OPENAI.read_request(OPENAI.peek(request)), model)
    return json.loads(sent.body), sent.dropped


def to_openai(model="gpt-4o", **fields):
    request = json.dumps({"model": "m", "messages": [USER], "max_tokens": 100, **fields}).encode()
    sent = OPENAI.write_request(ANTHROPIC.read_request(ANTHROPIC.peek(request)), model)
    return json.loads(sent.body), sent.dropped


def refused(cross, **fields):
    with pytest.raises(Fault) as caught:
        cross(**fields)
    assert caught.value.kind is Kind.INVALID
    return caught.value.param


def test_the_table_names_every_field_of_a_conversation_that_can_be_lost():
    structural = {"model", "messages", "stream", "stream_usage", "functions", "format", "extras"}
    assert {row.field for row in crossings.TABLE} == {field.name for field in structs.fields(Conversation)} - structural


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"seed": 1}, ("seed",)),
        ({"logit_bias": {"1": 2}}, ("logit_bias",)),
        ({"logprobs": True, "top_logprobs": 2}, ("logprobs", "top_logprobs")),
        ({"frequency_penalty": 0, "presence_penalty": 0, "n": 1, "logprobs": False, "modalities": ["text"]}, ()),
        ({"presence_penalty": 0.5}, ("presence_penalty",)),
        ({"response_format": {"type": "json_object"}}, ("response_format",)),
        ({"brand_new": {"x": 1}}, ("brand_new",)),
        ({"temperature": 1.5}, ("temperature",)),
        ({"service_tier": "flex"}, ("service_tier",)),
        ({"stop": ["\n", "END"]}, ("stop",)),
        ({"messages": [{**USER, "name": "Ann"}]}, ("messages[0].name",)),
        ({"messages": [USER, {"role": "system", "content": "be brief"}]}, ("messages[1].role",)),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "odd": 1}]}]},
            ("messages[0].content[0].odd",),
        ),
    ],
)
def test_what_anthropic_cannot_say_is_named(fields, dropped):
    assert to_anthropic(**fields)[1] == dropped


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            "messages[0].content",
        ),
        (
            {"messages": [USER, {**CALLED, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}]},
            "messages[1].tool_calls",
        ),
    ],
)
def test_what_would_change_the_answer_is_refused(fields, param):
    assert refused(to_anthropic, **fields) == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0]"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}],
            "messages[0].content[0].image_url.url",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}],
            "messages[0].content[0].image_url.url",
        ),
        ([USER, {"role": "tool", "content": "x"}], "messages[1].tool_call_id"),
    ],
)
def test_a_wrong_chat_message_is_refused_by_its_path(messages, param):
    assert (refused(to_anthropic, messages=messages) or "").startswith(param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content[0].type"),
        (
            [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png"}}]}],
            "messages[0].content[0].source.data",
        ),
        (
            [{"role": "user", "content": [{"type": "image", "source": {"type": "telepathy"}}]}],
            "messages[0].content[0].source.type",
        ),
        ([{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}], "messages[0].content"),
    ],
)
def test_a_wrong_message_is_refused_by_its_path(messages, param):
    assert refused(to_openai, messages=messages) == param


def test_turns_are_merged_and_results_come_first():
    body, _ = to_anthropic(
        messages=[{"role": "developer", "content": "s"}, USER, CALLED, RESULT, USER, USER], tools=[TOOL]
    )
    assert body["system"] == "s"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text", "text"]
    assert body["messages"][1]["content"][0]["input"] == {"a": 1.0}


def test_results_with_images_and_errors_reach_an_openai_model():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    messages = [
        USER,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t",
                    "is_error": True,
                    "content": [{"type": "text", "text": "no"}, image],
                }
            ],
        },
    ]
    body, dropped = to_openai(messages=messages)
    assert dropped == ()
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "t", "content": "Error: no"}
    assert body["messages"][3]["content"][1] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,AAAA"},
    }


def test_tool_choices_map_both_ways():
    for said, told in (("auto", "auto"), ("required", "any"), ("none", "none")):
        assert to_anthropic(tools=[TOOL], tool_choice=said)[0]["tool_choice"] == {"type": told}
        assert (
            to_openai(tools=[{"name": "f", "input_schema": {}}], tool_choice={"type": told})[0]["tool_choice"] == said
        )
    one = to_anthropic(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}, parallel_tool_calls=False
    )[0]
    assert one["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}
    two = to_openai(
        tools=[{"name": "f", "input_schema": {}}], tool_choice={"type": "auto", "disable_parallel_tool_use": True}
    )[0]
    assert (two["tool_choice"], two["parallel_tool_calls"]) == ("auto", False)


def test_effort_becomes_a_budget_or_an_adaptive_effort_by_generation():
    older, _ = to_anthropic(reasoning_effort="medium")
    assert older["thinking"] == {"type": "enabled", "budget_tokens": 8192}
    assert older["max_tokens"] > 8192
    newer, _ = to_anthropic("claude-opus-4-7", reasoning_effort="high")
    assert (newer["thinking"], newer["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    assert to_openai("gpt-5", thinking={"type": "enabled", "budget_tokens": 8000})[0]["reasoning_effort"] == "medium"


def test_thinking_gives_way_where_anthropic_would_refuse_it():
    body, dropped = to_anthropic(reasoning_effort="low", tools=[TOOL], tool_choice="required")
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)
    body, dropped = to_anthropic(reasoning_effort="low", messages=[USER, CALLED, RESULT], tools=[TOOL])
    assert "thinking" not in body
    assert dropped == ("reasoning_effort",)


def test_a_signature_survives_a_round_through_an_openai_client():
    thought = [
        {"type": "thinking", "thinking": "hm", "signature": "SIG"},
        {"type": "redacted_thinking", "data": "SEALED"},
    ]
    blocks = [*thought, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]
    reply = ANTHROPIC.read_reply(json.dumps({"id": "m", "type": "message", "model": "c", "content": blocks}).encode())
    message = json.loads(OPENAI.write_reply(reply, CALL, 1).body)["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    result = {"role": "tool", "tool_call_id": "t", "content": "x"}
    body, dropped = to_anthropic(messages=[USER, message, result], tools=[TOOL], reasoning_effort="low")
    assert body["messages"][1]["content"] == blocks
    assert "thinking" in body
    assert dropped == ()


def test_cache_marks_reach_anthropic():
    text = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body, dropped = to_anthropic(messages=[{"role": "system", "content": [text]}, {"role": "user", "content": [text]}])
    assert body["system"] == [text]
    assert body["messages"][0]["content"] == [text]
    assert dropped == ()


def test_a_schema_crosses_both_ways():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body, _ = to_anthropic(response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": schema}
    body, _ = to_openai(output_config={"format": {"type": "json_schema", "schema": schema}})
    assert body["response_format"]["json_schema"]["schema"] == schema


def test_own_models_of_openai_get_the_newer_name_of_max_tokens():
    for model, name in (
        ("gpt-4o", "max_completion_tokens"),
        ("o3-mini", "max_completion_tokens"),
        ("openai/gpt-5", "max_completion_tokens"),
    ):
        assert to_openai(model)[0][name] == 100
    for model in ("openai/gpt-oss-120b", "llama-3", "mistral-large"):
        assert to_openai(model)[0]["max_tokens"] == 100


CHUNKS = {
    "openai_chat": b'data: {"id":"c","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n',
    "anthropic_messages": b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"w"}}\n\n',
}
OPENINGS = {
    "openai_chat": CHUNKS["openai_chat"],
    "anthropic_messages": b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
}


@pytest.mark.parametrize(
    ("reader", "writer"), [(OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI)], ids=["to_anthropic", "to_openai"]
)
def test_a_translated_chunk_costs_few_calls(reader, writer):
    crossing = Crossing(reader.stream_reader(), writer.stream_writer(CALL, 1))
    crossing.feed(OPENINGS[reader.name])
    assert calls(crossing.feed, CHUNKS[reader.name]) <= 16


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_passed_chunk_costs_two_calls(shape):
    splice = shape.splice(shape.peek(b'{"model":"m","messages":[1],"stream":true}'))
    assert calls(splice.feed, CHUNKS[shape.name]) <= 2


def calls(function, argument) -> int:
    counted = 0

    def count(_frame, what, _argument):
        nonlocal counted
        counted += what == "call"

    sys.setprofile(count)
    try:
        function(argument)
    finally:
        sys.setprofile(None)
    return counted


def test_a_client_of_legacy_functions_is_told_calls_in_its_own_words():
    asked = {"model": "m", "messages": [USER], "functions": [{"name": "f", "parameters": {"type": "object", "properties": {}}}]}
    call = OPENAI.read_request(OPENAI.peek(json.dumps(asked).encode()))
    body = json.dumps({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "tool_use", "usage": {},
        "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}, {"type": "tool_use", "id": "t2", "name": "f", "input": {}}],
    }).encode()  # fmt: skip
    sent = OPENAI.write_reply(ANTHROPIC.read_reply(body), call, 7)
    choice = json.loads(sent.body)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a": 1}'}
    assert "tool_calls" not in choice["message"]
    assert (choice["finish_reason"], sent.dropped) == ("function_call", ("content.tool_calls",))
    events = [
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t1", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}}, {"type": "message_stop"},
    ]  # fmt: skip
    stream = b"".join(b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in events)
    crossing = Crossing(ANTHROPIC.stream_reader(), OPENAI.stream_writer(call, 7))
    out = crossing.feed(stream) + crossing.close()
    chunks = [json.loads(line[6:])["choices"][0] for line in out.splitlines() if line.startswith(b"data: {")]
    calls = [chunk["delta"]["function_call"] for chunk in chunks if "function_call" in chunk["delta"]]
    assert "".join(each.get("name", "") for each in calls) == "f"
    assert "".join(each["arguments"] for each in calls) == '{"a":1}'
    assert chunks[-1]["finish_reason"] == "function_call"
    assert b"tool_calls" not in out
