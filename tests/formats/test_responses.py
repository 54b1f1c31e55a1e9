"""The Responses shape: what only it says, what becomes of it elsewhere, and what becomes of others in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.sampling import generated
from formats.shapes import CALL, GEMINI, NOW, SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Image, OutputFormat, Reasoning, Text, ToolCall, ToolResult
from llm_gateway.formats import crossings
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import OpenAIResponses, sealed_reply, stored

RESPONSES = OpenAIResponses()
OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
USER = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
CALLED = {
    "type": "function_call",
    "call_id": "c1",
    "name": "f",
    "arguments": '{"a":1}',
    "id": "fc_1",
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "done"}


def request(**members: Any) -> bytes:
    told = {"model": "m", "input": "hi", **members}
    return json.dumps({name: value for name, value in told.items() if value is not ...}).encode()


def read(**members: Any):
    return RESPONSES.read_request(RESPONSES.peek(request(**members)))


def told(shape, body: bytes, model: str = "gpt-5") -> tuple[dict[str, Any], tuple[str, ...]]:
    """Another shape's request in this one."""
    sent = RESPONSES.write_request(shape.read_request(shape.peek(body)), model)
    return json.loads(sent.body), sent.dropped


def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages or (USER,), **more}).encode()


def event(kind: str, **fields: Any) -> bytes:
    body = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {body}\n\n".encode()


def refused(**members: Any) -> str | None:
    with pytest.raises(Fault) as caught:
        read(**members)
    assert caught.value.kind is Kind.INVALID
    return caught.value.param


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (request(model=...), "model"),
        (request(model=5), "model"),
        (request(input=...), "input"),
        (request(input=None), "input"),
        (request(input=[]), "input"),
        (request(input={}), "input"),
        (request(input=5), "input"),
        (request(stream="yes"), "stream"),
        (request(max_output_tokens=0), "max_output_tokens"),
        (request(max_output_tokens="x"), "max_output_tokens"),
    ],
)
def test_peek_refuses_and_names_the_field(body, param):
    with pytest.raises(Fault) as caught:
        RESPONSES.peek(body)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_a_stored_beginning_needs_no_input():
    for beginning in ({"previous_response_id": "r"}, {"conversation": "c"}, {"prompt": {"id": "p"}}):
        for given_ in (..., None, []):
            assert RESPONSES.peek(request(input=given_, **beginning)).model == "m"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [USER, {"role": "user", "content": [{"type": "input_text"}]}]}, "input[1].content[0]"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x,y"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0].file_data"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0]"),
        ({"input": [{**CALLED, "arguments": {}}]}, "input[0].arguments"),
        ({"input": [{**RESULT, "output": 5}]}, "input[0].output"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"input": [USER, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"input": [USER, {"id": "msg_1"}]}, "input[1]"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(members, param):
    assert refused(**members) == param


@generated(100)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_fault(anything):
    try:
        RESPONSES.read_request(RESPONSES.peek(anything))
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.sampled_from(["", "x", "\x00é", "data:;base64,"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "id", "content", "text", "output", "summary", "call_id", "name", "format"]
            ),
            inner
            | st.sampled_from(["message", "reasoning", "function_call", "input_text", "custom", "item_reference"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from(["input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "instructions"])


@generated(100)
@given(st.dictionaries(FIELDS, JSON, max_size=3))
def test_any_values_are_a_request_or_a_fault(members):
    try:
        call = read(**members)
        for target in (RESPONSES, OPENAI, ANTHROPIC, GEMINI):
            json.loads(target.write_request(call, "gpt-5").body)
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017


@generated(100)
@given(JSON)
def test_any_reply_is_read_or_a_fault_of_the_upstreams(value):
    for tree in (value, {"output": [value], "id": "r", "usage": value}, {"output": value}):
        body = json.dumps(tree).encode()
        for view in (RESPONSES.summarise, RESPONSES.read_reply):
            try:
                view(body)
            except Fault as fault:
                assert fault.kind.blame != "caller"  # noqa: PT017
        sealed_reply(body, str.upper)


@pytest.mark.parametrize("junk", [b"", b"<html>", b"[]", b"{}", b'{"id":1}', b'{"output":5}', b'{"choices":[]}'])
def test_summarise_refuses_what_is_no_response(junk):
    with pytest.raises(Fault) as caught:
        RESPONSES.summarise(junk)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


# -- requests elsewhere -------------------------------------------------------------------------------------------------


def test_items_of_one_turn_are_one_message_and_results_their_own():
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "E",
    }
    said = {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "content": [{"type": "output_text", "text": "so", "annotations": []}],
    }
    call = read(instructions="Be brief.", input=[USER, thought, said, CALLED, RESULT])
    assert [message.role for message in call.messages] == ["system", "user", "assistant", "tool"]
    assert call.messages[2].parts == (
        Reasoning(summary=("hm",), id="rs_1", format="openai_responses"),
        Reasoning(redacted="E", id="rs_1", format="openai_responses"),
        Text("so"),
        ToolCall("c1", "f", '{"a":1}'),
    )
    assert call.messages[3].parts == (ToolResult("c1", (Text("done"),)),)
    assert call.extras == {}
    sent = json.loads(RESPONSES.write_request(call, "gpt-5").body)
    assert sent["instructions"] == "Be brief."
    assert sent["input"][1] == thought


@pytest.mark.parametrize(
    ("members", "dropped"),
    [
        ({"store": False, "include": ["reasoning.encrypted_content"], "truncation": "disabled", "background": False}, ()),
        ({"store": True}, ("store",)),
        ({"include": ["file_search_call.results"]}, ("include",)),
        ({"truncation": "auto"}, ("truncation",)),
        ({"max_tool_calls": 3, "prompt_cache_key": "k"}, ("max_tool_calls", "prompt_cache_key")),
        ({"tools": [{**FUNCTION, "defer_loading": True}]}, ("tools[0].defer_loading",)),
        ({"input": [{**USER, "odd": 1}]}, ("input[0].odd",)),
        ({"input": [USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}]}, ("input[1].content.web_search_call",)),
    ],
)  # fmt: skip
def test_what_no_other_shape_can_say_is_named(members, dropped):
    assert OPENAI.write_request(read(**members), "gpt-4o").dropped == dropped


def test_what_a_user_says_in_this_shape_only_is_refused_elsewhere():
    for item in (
        {"type": "computer_call_output", "call_id": "c", "output": {}},
        {"type": "compaction", "encrypted_content": "x"},
    ):
        call = read(input=[USER, item])
        assert json.loads(RESPONSES.write_request(call, "gpt-5").body)["input"][1] == item
        for target in (OPENAI, ANTHROPIC, GEMINI):
            with pytest.raises(Fault) as caught:
                target.write_request(call, "m")
            assert caught.value.param == "input[1]"


def test_results_with_images_and_files_are_read_and_written():
    content = [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
    ]
    call = read(input=[CALLED, {**RESULT, "output": content}])
    (result,) = call.messages[1].parts
    assert isinstance(result, ToolResult)
    assert isinstance(result.content[1], Image)
    assert json.loads(RESPONSES.write_request(call, "gpt-5").body)["input"][1]["output"] == content
    blocks = json.loads(ANTHROPIC.write_request(call, "claude-sonnet-4-5").body)["messages"][1]["content"][0]["content"]
    assert [block["type"] for block in blocks] == ["text", "image", "document"]


def test_choices_of_tools_are_read_and_written():
    tools = [FUNCTION, {"type": "web_search"}, {"type": "custom", "name": "c", "format": {"type": "text"}}]
    for choice in (
        "auto", "none", "required", {"type": "function", "name": "f"}, {"type": "custom", "name": "c"}, {"type": "web_search"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]},
    ):  # fmt: skip
        sent = json.loads(RESPONSES.write_request(read(tools=tools, tool_choice=choice), "gpt-5").body)
        assert sent["tool_choice"] == choice
        assert [tool["type"] for tool in sent["tools"]] == ["function", "web_search", "custom"]
        assert sent["tools"][2] == tools[2]


def test_a_schema_an_effort_and_the_rest_cross_to_chat():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    call = read(
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=50,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        safety_identifier="me",
        metadata={"a": "b"},
        parallel_tool_calls=False,
        tools=[FUNCTION],
        stream=True,
    )
    assert call.output == OutputFormat("schema", "n", None, call.output and call.output.schema, strict=True)
    sent = json.loads(OPENAI.write_request(call, "gpt-5").body)
    assert sent["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert (sent["reasoning_effort"], sent["verbosity"], sent["max_completion_tokens"]) == ("low", "low", 50)
    assert (sent["user"], sent["metadata"], sent["parallel_tool_calls"]) == ("me", {"a": "b"}, False)
    assert "logprobs" not in sent
    sent = json.loads(OPENAI.write_request(call, "gpt-4.1").body)
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)


def test_a_cache_breakpoint_reaches_anthropic():
    text = {"type": "input_text", "text": "long", "prompt_cache_breakpoint": {"mode": "explicit"}}
    sent = json.loads(
        ANTHROPIC.write_request(read(input=[{"role": "user", "content": [text]}]), "claude-sonnet-4-5").body
    )
    assert sent["messages"][0]["content"] == [{"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}]


# -- other shapes' requests in this one ---------------------------------------------------------------------------------


def test_a_chat_becomes_items_and_nothing_is_stored():
    called = {
        "role": "assistant",
        "content": "so",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    sent, dropped = told(
        OPENAI,
        chat(
            {"role": "system", "content": "Be brief."}, USER, called, {"role": "tool", "tool_call_id": "c1", "content": "x"},
            tools=[{"type": "function", "function": {"name": "f"}}], tool_choice={"type": "function", "function": {"name": "f"}},
            max_tokens=100, reasoning_effort="high", logprobs=True, stream=True,
        ),
    )  # fmt: skip
    assert sent == {
        "model": "gpt-5",
        "store": False,
        "stream": True,
        "max_output_tokens": 100,
        "input": [
            {"role": "system", "content": "Be brief."},
            USER,
            {"role": "assistant", "content": "so"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "x"},
        ],
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
        ],
        "tool_choice": {"type": "function", "name": "f"},
        "reasoning": {"effort": "high"},
        "include": ["reasoning.encrypted_content"],
    }
    assert dropped == ("logprobs",)
    assert told(OPENAI, chat(logprobs=True), "gpt-4o")[0]["include"] == ["message.output_text.logprobs"]
    assert "include" not in told(OPENAI, chat(), "gpt-4o")[0]


@pytest.mark.parametrize(
    ("members", "dropped"),
    [
        ({"seed": 1, "stop": ["x"], "logit_bias": {"1": 2}}, ("stop", "seed", "logit_bias")),
        ({"frequency_penalty": 0.5, "presence_penalty": 0.5}, ("frequency_penalty", "presence_penalty")),
        ({"max_tokens": 5}, ("max_tokens",)),
        ({"user": "u" * 65}, ("user",)),
        ({"n": 1, "modalities": ["text"]}, ()),
    ],
)
def test_what_this_shape_cannot_say_is_named(members, dropped):
    assert told(OPENAI, chat(**members))[1] == dropped


def test_what_would_change_the_answer_is_refused():
    for members, param in (({"n": 2}, "n"), ({"modalities": ["text", "audio"]}, "modalities")):
        with pytest.raises(Fault) as caught:
            told(OPENAI, chat(**members))
        assert caught.value.param == param


def test_a_custom_tool_of_chat_keeps_its_grammar():
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}
    sent, _ = told(OPENAI, chat(tools=[{"type": "custom", "custom": {"name": "c", "format": grammar}}]))
    assert sent["tools"] == [
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}}
    ]


def test_the_table_names_what_the_writer_loses():
    row = {row.field: crossings.fate(row, "openai_responses").value for row in crossings.TABLE}
    assert {field for field, fate in row.items() if fate == "dropped"} == {
        "top_k", "min_p", "frequency_penalty", "presence_penalty", "stop", "seed", "logit_bias", "cache",
    }  # fmt: skip
    assert {field for field, fate in row.items() if fate == "refused"} == {"n", "modalities"}


# -- seals --------------------------------------------------------------------------------------------------------------


def turn(shape, blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a model of `shape` said, as the items a client of this shape gets and sends back."""
    body = json.dumps({"id": "m", "type": "message", "model": "c", "content": blocks}).encode()
    return json.loads(RESPONSES.write_reply(shape.read_reply(body), CALL, NOW).body)["output"]


def test_anthropics_seals_survive_a_round_through_a_client_of_this_shape():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "SIG=="},
        {"type": "redacted_thinking", "data": "SEALED:x"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    ]
    items = turn(ANTHROPIC, blocks)
    assert items[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    call = read(input=[USER, *items, {"type": "function_call_output", "call_id": "t", "output": "x"}], tools=[FUNCTION])
    sent = ANTHROPIC.write_request(call, "claude-sonnet-4-5")
    assert json.loads(sent.body)["messages"][1]["content"] == blocks
    assert sent.dropped == ()


def test_openais_seals_survive_a_round_through_a_client_of_chat():
    item = {
        "type": "reasoning",
        "id": "rs_9",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": "ENC",
    }
    reply = RESPONSES.read_reply(json.dumps({"id": "r", "status": "completed", "output": [item, CALLED]}).encode())
    message = json.loads(OPENAI.write_reply(reply, CALL, NOW).body)["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    sent, dropped = told(OPENAI, chat(USER, message, {"role": "tool", "tool_call_id": "c1", "content": "x"}))
    assert sent["input"][1] == item
    assert dropped == ()


def test_openais_seals_survive_a_streamed_round_through_chat():
    item = {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": "ENC"}
    there = Crossing(RESPONSES.stream_reader(), OPENAI.stream_writer(CALL, NOW))
    stream = there.feed(
        event("response.created", response={"id": "r"})
        + event("response.output_item.done", item=item)
        + event("response.completed", response={"id": "r", "status": "completed", "output": [item]})
    )
    details = [
        detail
        for line in stream.split(b"\n\n")
        if b"reasoning_details" in line
        for detail in json.loads(line[6:])["choices"][0]["delta"]["reasoning_details"]
    ]
    sent, _ = told(OPENAI, chat(USER, {"role": "assistant", "content": "x", "reasoning_details": details}))
    assert sent["input"][1] == item


def test_geminis_seals_of_calls_survive_a_round_whole_and_streamed():
    part = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "SEAL"}
    body = json.dumps(
        {"responseId": "g", "candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
    ).encode()
    whole = json.loads(RESPONSES.write_reply(GEMINI.read_reply(body), CALL, NOW).body)["output"]
    there = Crossing(GEMINI.stream_reader(), RESPONSES.stream_writer(CALL, NOW))
    stream = there.feed(b"data: " + body + b"\r\n\r\n") + there.close() + there.tail(None)
    streamed = json.loads(stream.split(b"data: ")[-1])["response"]["output"]
    for items in (whole, streamed):
        assert [item["type"] for item in items] == ["function_call", "reasoning"]
        call = read(input=[USER, *items, {**RESULT, "call_id": items[0]["call_id"]}])
        contents = json.loads(GEMINI.write_request(call, "gemini-3-pro-preview").body)["contents"]
        assert contents[1]["parts"] == [part]


def test_thoughts_that_nobody_sealed_are_shown_and_not_sent_to_openai():
    reply = {"id": "r", "choices": [{"message": {"content": "x", "reasoning_content": "hm"}, "finish_reason": "stop"}]}
    items = json.loads(RESPONSES.write_reply(OPENAI.read_reply(json.dumps(reply).encode()), CALL, NOW).body)["output"]
    assert items[0]["content"] == [{"type": "reasoning_text", "text": "hm"}]
    _, dropped = told(OPENAI, chat(USER, {"role": "assistant", "content": "x", "reasoning_content": "hm"}, USER))
    assert dropped == ("messages[1].reasoning",)


@pytest.mark.parametrize("body", [b"<!DOCTYPE html>", b'{"id":"resp_1","outp', b'"text"', b"[]", b'{"id":"\xff"}', b""])
def test_what_is_no_kept_response_is_said_to_be_none(body):
    for shape in stored.shapes():
        assert shape.summarise(b'{"id":"resp_1","status":"failed","error":{"code":"server_error"}}').fault is None
        if body or shape.name != "openai_response_delete":
            with pytest.raises(Fault) as caught:
                shape.summarise(body)
            assert caught.value.kind is Kind.UPSTREAM_BROKEN
        else:
            assert shape.summarise(body).fault is None
