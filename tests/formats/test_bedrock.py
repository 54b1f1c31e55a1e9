"""Bedrock's shape: what only it says, what becomes of it elsewhere, and what becomes of others in it."""

from __future__ import annotations

import base64
import copy
import json
import random
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.bedrock import (
    CLAUDE,
    CONVERSE,
    NOVA,
    by_boto,
    complaints,
    events,
    exception,
    frame,
    read,
    recorded,
    reply_by_boto,
    request,
)
from formats.sampling import generated
from formats.shapes import CALL, GEMINI, NOW, SHAPES, asked
from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import (
    CitationDelta,
    Delta,
    End,
    Failed,
    Finish,
    PartEnd,
    PartStart,
    SignatureDelta,
    Start,
    UsageUpdate,
)
from llm_gateway.core.types import (
    Choice,
    Citation,
    Completion,
    Conversation,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llm_gateway.formats.crossing import Crossing

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
PIXEL = "iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages or ({"role": "user", "content": "hi"},), **more}).encode()


def written(body: bytes, model: str = CLAUDE, shape=OPENAI) -> tuple[dict[str, Any], tuple[str, ...]]:
    told = CONVERSE.write_request(shape.read_request(shape.peek(body)), model)
    tree = json.loads(told.body)
    assert complaints(tree) == ""
    return tree, told.dropped


def content(*blocks: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(blocks)}]}


def parts(*blocks: dict[str, Any], role: str = "user"):
    return read(**content(*blocks, role=role)).messages[-1].parts


# -- the request, untyped ---------------------------------------------------------------------------------------------


def test_the_path_says_model_and_stream_and_the_body_goes_through_untouched():
    body = request(unknown={"a": [1.0, None]}, modelId="other", inferenceConfig={"maxTokens": 7})
    peek = CONVERSE.peek(body, "alias", stream=True)
    assert (peek.model, peek.stream, peek.wants_usage, peek.max_tokens) == ("alias", True, True, 7)
    sent = CONVERSE.forward(peek, CLAUDE)
    assert sent.path == "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream"
    assert json.loads(sent.body) == json.loads(request(unknown={"a": [1.0, None]}, inferenceConfig={"maxTokens": 7}))
    arn = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/x"
    plain = CONVERSE.forward(CONVERSE.peek(body, "m"), arn)
    assert plain.path == "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A000000000000%3Ainference-profile%2Fx/converse"


@pytest.mark.parametrize("model", [".", ".."])
def test_a_model_is_no_way_up(model):
    with pytest.raises(Fault) as caught:
        CONVERSE.forward(CONVERSE.peek(request(), "m"), model)
    assert caught.value.param == "model"


def test_a_prompt_may_hold_the_messages():
    prompt = "arn:aws:bedrock:us-east-1:000000000000:prompt/ABCDEFGHIJ:1"
    body = b'{"promptVariables":{"genre":{"text":"pop"}}}'
    assert json.loads(CONVERSE.forward(CONVERSE.peek(body, prompt), prompt).body) == json.loads(body)
    with pytest.raises(Fault) as caught:
        CONVERSE.peek(body, CLAUDE)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"[]", None),
        (b"{", None),
        (b"{}", "messages"),
        (b'{"messages":[]}', "messages"),
        (b'{"messages":{}}', "messages"),
        (request(inferenceConfig=5), "inferenceConfig"),
        (request(inferenceConfig={"maxTokens": 0}), "inferenceConfig.maxTokens"),
        (request(inferenceConfig={"maxTokens": "x"}), "inferenceConfig.maxTokens"),
    ],
)
def test_peek_refuses_and_names_the_field(body, param):
    with pytest.raises(Fault) as caught:
        CONVERSE.peek(body, "m")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": [{"role": "tool", "content": []}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages[0].content"),
        (content({}), "messages[0].content[0]"),
        (content({"text": "a", "image": {}}), "messages[0].content[0]"),
        (content({"text": 5}), "messages[0].content[0].text"),
        (content({"image": {"format": "png", "source": {}}}), "messages[0].content[0].image.source.bytes"),
        (
            content({"image": {"format": "bmp", "source": {"bytes": PIXEL}}}),
            "messages[0].content[0].image.format",
        ),
        (
            content({"image": {"format": "png", "source": {"bytes": "%%%"}}}),
            "messages[0].content[0].image.source.bytes",
        ),
        (
            content({"image": {"format": "png", "source": {"s3Location": {"uri": "https://x"}}}}),
            "messages[0].content[0].image.source.s3Location.uri",
        ),
        (
            content({"document": {"format": "txt", "name": "d", "source": {"bytes": "x"}}}),
            "messages[0].content[0].document.source.bytes",
        ),
        (content({"toolUse": {"toolUseId": "a", "input": {}}}), "messages[0].content[0].toolUse"),
        (content({"toolUse": {"toolUseId": "a", "name": "", "input": {}}}), "messages[0].content"),
        (
            content({"toolResult": {"toolUseId": "a", "content": [], "status": "odd"}}),
            "messages[0].content[0].toolResult.status",
        ),
        (
            content({"toolResult": {"toolUseId": "a", "content": [{}]}}),
            "messages[0].content[0].toolResult.content[0]",
        ),
        (
            content({"reasoningContent": {"redactedContent": "%"}}),
            "messages[0].content[0].reasoningContent.redactedContent",
        ),
        ({"system": [{"text": 5}]}, "system[0].text"),
        ({"inferenceConfig": {"temperature": 2}}, "inferenceConfig.temperature"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "x"}}]}}, "toolConfig.tools[0].toolSpec"),
        ({"toolConfig": {"toolChoice": {"tool": {}}}}, "toolConfig.toolChoice.tool"),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{"}}}}},
            "outputConfig.textFormat.structure.jsonSchema.schema",
        ),
        ({"additionalModelRequestFields": []}, "additionalModelRequestFields"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(members, param):
    with pytest.raises(Fault) as caught:
        read(**members)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


WRONG = [None, 5, -1, 1.5, True, "", "x", [], {}, [[]], [{}], {"text": 5}, {"type": 5}, 10**30, "\u0000", "s3://x"]
REQUESTS = [one.request for one in recorded("converse", "converse-stream") if isinstance(one.request, dict)]
REPLIES = [one for one in recorded("converse") if one.status == 200]


def broken(tree, dice):
    """The tree with one value, anywhere in it, replaced or removed."""
    tree = copy.deepcopy(tree)
    places: list[Any] = []

    def walk(node):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    node, key = dice.choice(places)
    if dice.random() < 0.2:
        del node[key]
    else:
        node[key] = dice.choice(WRONG)
    return tree


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_request_is_a_fault_or_crosses(seed):
    dice = random.Random(seed)
    for tree in REQUESTS:
        for _ in range(25):
            try:
                call = CONVERSE.read_request(CONVERSE.peek(json.dumps(broken(tree, dice)).encode(), CLAUDE))
                for shape in (OPENAI, ANTHROPIC, GEMINI, CONVERSE):
                    shape.write_request(call, CLAUDE)
            except Fault as fault:
                assert fault.kind is Kind.INVALID  # noqa: PT017


@pytest.mark.parametrize("seed", range(4))
def test_a_broken_reply_is_a_fault_or_crosses(seed):
    dice = random.Random(seed)
    for one in REPLIES:
        for _ in range(25):
            body = json.dumps(broken(json.loads(one.body), dice)).encode()
            try:
                CONVERSE.summarise(body)
                OPENAI.write_reply(CONVERSE.read_reply(body), CALL, NOW)
            except Fault as fault:
                assert fault.kind is Kind.UPSTREAM_BROKEN  # noqa: PT017


@generated(300)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda text: request(system=text))))
def test_garbage_raises_nothing_but_faults(body):
    for act in (
        lambda: CONVERSE.read_request(CONVERSE.peek(body, CLAUDE)),
        lambda: CONVERSE.read_reply(body),
        lambda: CONVERSE.summarise(body),
    ):
        with pytest.raises(Fault):
            act()
    assert CONVERSE.read_error(400, body).message
    splice, reader = CONVERSE.splice(asked()), CONVERSE.stream_reader()
    assert splice.feed(body) == b""
    assert not [event for event in reader.feed(body) if not isinstance(event, Failed)]
    splice.close()
    assert splice.failed is not None


BLOCKS = st.dictionaries(
    st.sampled_from(["text", "image", "document", "toolUse", "toolResult", "reasoningContent", "cachePoint", "x"]),
    st.recursive(
        st.one_of(st.none(), st.integers(), st.text(max_size=5)),
        lambda inner: st.dictionaries(
            st.sampled_from(["format", "source", "bytes", "text", "content", "toolUseId", "name", "input", "type"]),
            inner,
        ),
        max_leaves=6,
    ),
    max_size=2,
)


@generated(300)
@given(st.lists(BLOCKS, max_size=3))
def test_any_blocks_are_read_or_refused(blocks):
    body = json.dumps(content(*blocks)).encode()
    try:
        call = CONVERSE.read_request(CONVERSE.peek(body, CLAUDE))
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return
    assert call.messages


# -- the request, typed -----------------------------------------------------------------------------------------------


def test_every_field_has_its_place():
    call = read(
        system=[{"text": "be brief"}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
        inferenceConfig={"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["."]},
        additionalModelRequestFields={"top_k": 3, "thinking": {"type": "enabled", "budget_tokens": 2000}, "anthropic_beta": ["b"]},
        toolConfig={
            "tools": [
                {"toolSpec": {"name": "look", "description": "d", "inputSchema": {"json": {"type": "object"}}}},
                {"cachePoint": {"type": "default"}},
                {"systemTool": {"name": "nova_grounding"}},
            ],
            "toolChoice": {"tool": {"name": "look"}},
        },
        outputConfig={"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": '{"type":"object"}', "name": "n"}}}},
        serviceTier={"type": "flex"},
        requestMetadata={"a": "b"},
        performanceConfig={"latency": "optimized"},
        additionalModelResponseFieldPaths=["/stop_sequence"],
    )  # fmt: skip
    system = call.messages[0]
    assert (system.role, system.parts[0].cache.ttl) == ("system", "1h")
    assert (call.max_tokens, call.temperature, call.top_p, call.top_k, call.stop) == (9, 0.5, 0.9, 3, (".",))
    assert (call.thinking.enabled, call.thinking.budget) == (True, 2000)
    assert [(tool.name, tool.kind, tool.cache is not None) for tool in call.tools] == [
        ("look", "function", True),
        ("nova_grounding", "systemTool", False),
    ]
    assert (call.tool_choice.mode, call.tool_choice.name) == ("tool", "look")
    assert (call.output.name, bytes(call.output.schema)) == ("n", b'{"type":"object"}')
    assert call.service_tier == "flex"
    assert call.extras.keys() == {
        "additionalModelRequestFields.anthropic_beta",
        "requestMetadata",
        "performanceConfig",
        "additionalModelResponseFieldPaths",
    }
    again = json.loads(CONVERSE.write_request(call, CLAUDE).body)
    assert complaints(again) == ""
    assert again["additionalModelRequestFields"]["anthropic_beta"] == ["b"]
    assert again["requestMetadata"] == {"a": "b"}
    assert again["toolConfig"]["tools"][1] == {"cachePoint": {"type": "default"}}


def plainly(block: dict[str, Any]) -> str:
    return json.dumps(block, sort_keys=True)


@pytest.mark.parametrize(
    "block",
    [
        {"text": "hi"},
        {"image": {"format": "webp", "source": {"bytes": PIXEL}}},
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/x"}}}},
        {"video": {"format": "three_gp", "source": {"bytes": PIXEL}}},
        {"audio": {"format": "mp3", "source": {"bytes": PIXEL}}},
        {"document": {"format": "docx", "name": "d", "source": {"bytes": PIXEL}}},
        {"document": {"format": "txt", "name": "d", "source": {"text": "t"}, "context": "c", "citations": {"enabled": True}}},
        {"document": {"name": "d", "source": {"content": [{"text": "a"}, {"text": "b"}]}}},
        {"toolUse": {"toolUseId": "a", "name": "n", "input": {"x": 1.0}}},
        {"toolUse": {"toolUseId": "a", "name": "n", "input": {}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "a", "content": [{"text": "t"}], "status": "error"}},
        {"toolResult": {"toolUseId": "a", "content": [{"text": "t"}], "type": "nova_grounding_result"}},
        {"toolResult": {"toolUseId": "a", "content": [{"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}}]}},
        {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}},
        {"reasoningContent": {"reasoningText": {"text": "t"}}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"EuYBCkYIBxgC").decode()}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"\x00\xff").decode()}},
        {"guardContent": {"text": {"text": "t", "qualifiers": ["query"]}}},
        {"citationsContent": {"content": [{"text": "t"}], "citations": [{"location": {"web": {"url": "https://x"}}}]}},
        {"searchResult": {"source": "s", "title": "t", "content": [{"text": "x"}]}},
        {"yetUnknown": {"a": 1}},
    ],
    ids=lambda block: next(iter(block)),
)  # fmt: skip
def test_a_block_comes_back_as_it_was(block):
    call = read(**content({"text": "before"}, block))
    again = json.loads(CONVERSE.write_request(call, CLAUDE).body)
    (message,) = again["messages"]
    assert sorted(map(plainly, message["content"])) == sorted(map(plainly, [{"text": "before"}, block]))


def test_a_text_file_by_value_is_read_for_those_who_take_text_only():
    data = base64.b64encode("größe".encode()).decode()
    (part,) = parts({"document": {"format": "md", "name": "d", "source": {"bytes": data}}})
    assert part.text == "größe"
    told = ANTHROPIC.write_request(
        read(**content({"document": {"format": "md", "name": "d", "source": {"bytes": data}}})), "m"
    )
    assert json.loads(told.body)["messages"][0]["content"][0]["source"]["data"] == "größe"


def test_cache_points_mark_what_is_before_them():
    point = {"cachePoint": {"type": "default", "ttl": "5m"}}
    call = read(**content({"text": "a"}, point, {"text": "b"}, point, point))
    assert [part.cache.ttl for part in call.messages[0].parts] == ["5m", "5m"]
    assert call.extras.keys() == {"messages[0].content[4].cachePoint"}
    told = json.loads(ANTHROPIC.write_request(call, "m").body)
    assert told["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}


def test_a_guardrail_is_refused_elsewhere_and_kept_here():
    call = read(guardrailConfig={"guardrailIdentifier": "abc", "guardrailVersion": "1"})
    for shape in (OPENAI, ANTHROPIC, GEMINI):
        with pytest.raises(Fault) as caught:
            shape.write_request(call, "m")
        assert caught.value.param == "guardrailConfig"
    again = json.loads(CONVERSE.write_request(call, CLAUDE).body)
    assert again["guardrailConfig"] == {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    assert again["messages"] == [{"role": "user", "content": [{"text": "hi"}]}]


def test_what_others_cannot_say_is_reported():
    call = read(requestMetadata={"a": "b"}, additionalModelRequestFields={"anthropic_beta": ["x"]})
    dropped = OPENAI.write_request(call, "m").dropped
    assert {"requestMetadata", "additionalModelRequestFields.anthropic_beta"} <= set(dropped)


# -- other shapes' requests, in Converse's words ----------------------------------------------------------------------


def test_a_tool_loop_of_openais_becomes_turns():
    body = chat(
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [
            {"id": "call 1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
            {"id": "c" * 70, "type": "function", "function": {"name": "look", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "call 1", "content": "one"},
        {"role": "tool", "tool_call_id": "c" * 70, "content": "two"},
        {"role": "user", "content": "and?"},
        tools=[TOOL], tool_choice="required",
    )  # fmt: skip
    tree, dropped = written(body)
    assert dropped == ()
    assert tree["system"] == [{"text": "s"}]
    user, assistant, results = tree["messages"]
    assert (user["role"], assistant["role"], results["role"]) == ("user", "assistant", "user")
    ids = [block["toolUse"]["toolUseId"] for block in assistant["content"]]
    assert [block["toolResult"]["toolUseId"] for block in results["content"][:2]] == ids
    assert len(set(ids)) == 2
    assert results["content"][2] == {"text": "and?"}
    assert tree["toolConfig"]["toolChoice"] == {"any": {}}


def test_a_call_of_an_undeclared_tool_declares_it():
    called = {"id": "a", "type": "function", "function": {"name": "gone", "arguments": "{}"}}
    tree, _ = written(
        chat({"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [called]},
             {"role": "tool", "tool_call_id": "a", "content": "x"})
    )  # fmt: skip
    assert [tool["toolSpec"]["name"] for tool in tree["toolConfig"]["tools"]] == ["gone"]


def test_no_tools_now_is_said_by_leaving_them_out_or_reported():
    tree, dropped = written(chat(tools=[TOOL], tool_choice="none"))
    assert "toolConfig" not in tree
    assert dropped == ()
    called = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    tree, dropped = written(
        chat({"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [called]},
             {"role": "tool", "tool_call_id": "a", "content": "x"}, tools=[TOOL], tool_choice="none")
    )  # fmt: skip
    assert "toolChoice" not in tree["toolConfig"]
    assert dropped == ("tool_choice",)


def test_a_turn_without_a_user_and_a_late_system_message():
    tree, dropped = written(chat({"role": "system", "content": "only"}))
    assert tree["messages"] == [{"role": "user", "content": [{"text": "only"}]}]
    assert dropped == ("messages[0].role",)
    tree, dropped = written(chat({"role": "user", "content": "a"}, {"role": "system", "content": "late"}))
    assert (tree["system"], dropped) == ([{"text": "late"}], ("messages[1].role",))


def test_arguments_that_are_no_object_are_refused():
    called = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "[1"}}
    with pytest.raises(Fault) as caught:
        written(chat({"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [called]}))
    assert caught.value.param == "messages[1].tool_calls"


def test_images_go_by_value_and_urls_are_refused():
    image = {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PIXEL}"}}
    tree, _ = written(chat({"role": "user", "content": [image]}))
    assert tree["messages"][0]["content"] == [{"image": {"format": "jpeg", "source": {"bytes": PIXEL}}}]
    far = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(Fault) as caught:
        written(chat({"role": "user", "content": [far]}))
    assert caught.value.param == "messages[0].content"


def test_documents_get_names_that_bedrock_takes():
    def file(name: str) -> dict[str, Any]:
        return {"type": "file", "file": {"filename": name, "file_data": "data:application/pdf;base64,JVBERi0="}}

    tree, _ = written(
        chat({"role": "user", "content": [file("my_report.v2.pdf"), file("my_report.v2.pdf"), file("§§§")]})
    )
    names = [block["document"]["name"] for block in tree["messages"][0]["content"]]
    assert names == ["my-report-v2-pdf", "my-report-v2-pdf (2)", "-"]


@pytest.mark.parametrize(
    ("model", "asked_for", "more", "dropped"),
    [
        (CLAUDE, {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 2048}}, ()),
        ("anthropic.claude-opus-4-6-v1", {"reasoning_effort": "high"}, {"thinking": {"type": "adaptive"}}, ()),
        (CLAUDE, {"top_k": 5}, {"top_k": 5}, ()),
        (NOVA, {"reasoning_effort": "high"}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}, ()),
        (NOVA, {"reasoning_effort": "high", "max_tokens": 9}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}},
         ("reasoning_effort",)),
        (NOVA, {"top_k": 5}, {"inferenceConfig": {"topK": 5}}, ()),
        ("amazon.nova-lite-v1:0", {"reasoning_effort": "high"}, None, ("reasoning_effort",)),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "medium"}, {"reasoning_effort": "medium"}, ()),
        ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "high"}, {"reasoning_config": "high"}, ()),
        ("cohere.command-r-v1:0", {"top_k": 5}, {"k": 5}, ()),
        ("meta.llama3-1-8b-instruct-v1:0", {"top_k": 5}, None, ("top_k",)),
        (CLAUDE, {"reasoning_effort": "none"}, None, ()),
    ],
)  # fmt: skip
def test_each_family_has_its_own_words(model, asked_for, more, dropped):
    tree, reported = written(chat(**asked_for), model)
    assert tree.get("additionalModelRequestFields") == more
    assert reported == dropped


def test_claude_thinks_without_temperature_and_with_room():
    body = json.dumps({
        "model": "m", "max_tokens": 3000, "temperature": 1, "thinking": {"type": "enabled", "budget_tokens": 2000},
        "messages": [{"role": "user", "content": "hi"}],
    }).encode()  # fmt: skip
    tree, dropped = written(body, shape=ANTHROPIC)
    assert tree["inferenceConfig"] == {"maxTokens": 3000}
    assert dropped == ()
    tree, dropped = written(chat(reasoning_effort="high", temperature=0.2, top_p=0.5))
    assert tree["inferenceConfig"] == {"maxTokens": 16384 + 4096}
    assert set(dropped) == {"temperature", "top_p"}


def test_the_effort_of_a_model_that_chooses_its_budget_has_a_place_of_its_own():
    tree, _ = written(chat(reasoning_effort="low"), "anthropic.claude-opus-4-6-v1")
    assert tree["outputConfig"] == {"effort": "low"}


def test_claudes_seals_cross_from_anthropics_shape_and_back():
    thoughts = [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "EuYB"},
    ]
    used = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    body = json.dumps({
        "model": "m", "max_tokens": 3000, "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": [*thoughts, used]},
                     {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]}],
    }).encode()  # fmt: skip
    tree, dropped = written(body, shape=ANTHROPIC)
    assert dropped == ()
    assert tree["messages"][1]["content"][:2] == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": base64.b64encode(b"EuYB").decode()}},
    ]
    call = CONVERSE.read_request(CONVERSE.peek(json.dumps(tree).encode(), CLAUDE))
    again = json.loads(ANTHROPIC.write_request(call, "m").body)
    assert again["messages"][1]["content"][:2] == thoughts
    _, dropped = written(body, NOVA, shape=ANTHROPIC)
    assert dropped == ("messages[1].reasoning",)


def test_cache_marks_become_points_for_models_that_have_a_cache():
    marked = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{**marked, "text": "r"}]}
    body = json.dumps({
        "model": "m", "max_tokens": 5, "system": [marked], "cache_control": {"type": "ephemeral"},
        "tools": [{"name": "look", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": [marked, {"type": "text", "text": "b"}]},
                     {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
                     {"role": "user", "content": [result]}],
    }).encode()  # fmt: skip
    tree, _ = written(body, shape=ANTHROPIC)
    hour, plain = {"cachePoint": {"type": "default", "ttl": "1h"}}, {"cachePoint": {"type": "default"}}
    assert tree["system"] == [{"text": "a"}, hour]
    assert tree["toolConfig"]["tools"][1] == plain
    assert tree["messages"][0]["content"] == [{"text": "a"}, hour, {"text": "b"}]
    assert tree["messages"][2]["content"][1:] == [hour, plain]
    bare, dropped = written(body, "meta.llama3-1-8b-instruct-v1:0", shape=ANTHROPIC)
    assert "cachePoint" not in json.dumps(bare)
    assert "cache_control" in dropped


def test_a_schema_for_the_answer_goes_as_text():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    body = chat(
        response_format={"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": schema}}
    )
    tree, dropped = written(body)
    told = tree["outputConfig"]["textFormat"]
    assert json.loads(told["structure"]["jsonSchema"].pop("schema")) == schema
    assert told == {"type": "json_schema", "structure": {"jsonSchema": {"name": "n", "description": "d"}}}
    assert dropped == ()
    _, dropped = written(chat(response_format={"type": "json_object"}))
    assert dropped == ("response_format",)


def test_what_has_no_place_is_reported_and_what_would_change_the_answer_refused():
    _, dropped = written(chat(seed=1, logit_bias={"5": 1}, user="u", temperature=1.5, service_tier="scale", stop=[" "]))
    assert set(dropped) == {"seed", "logit_bias", "user", "temperature", "service_tier", "stop"}
    with pytest.raises(Fault) as caught:
        written(chat(n=2))
    assert caught.value.param == "n"


@pytest.mark.parametrize(
    ("tier", "told"), [("auto", None), ("default", "default"), ("flex", "flex"), ("priority", "priority")]
)
def test_service_tiers(tier, told):
    tree, dropped = written(chat(service_tier=tier))
    assert tree.get("serviceTier") == (told and {"type": told})
    assert dropped == ()


# -- replies ----------------------------------------------------------------------------------------------------------


def reply(*parts, **more: Any) -> Completion:
    fields: dict[str, Any] = {"id": "i", "model": "m", "choices": (Choice(tuple(parts), "stop"),), **more}
    return Completion(**fields)


def test_a_written_reply_is_botocores():
    sealed = Reasoning("hm", signature="sig", format="anthropic_messages")
    usage = Usage(input=100, output=5, cache_read=50, cache_write_5m=20, cache_write_1h=10)
    cited = Text("c", citations=(Citation("https://x", "X", "quoted"),))
    told = CONVERSE.write_reply(reply(sealed, Text("a"), cited, ToolCall("t", "look", '{"a":1}'), usage=usage), CALL)
    parsed = reply_by_boto(told.body)
    assert parsed["output"]["message"] == {
        "role": "assistant",
        "content": [
            {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
            {"text": "a"},
            {"citationsContent": {"content": [{"text": "c"}], "citations": [
                {"title": "X", "sourceContent": [{"text": "quoted"}], "location": {"web": {"url": "https://x"}}}]}},
            {"toolUse": {"toolUseId": "t", "name": "look", "input": {"a": 1}}},
        ],
    }  # fmt: skip
    assert parsed["usage"] == {
        "inputTokens": 20, "outputTokens": 5, "totalTokens": 105, "cacheReadInputTokens": 50, "cacheWriteInputTokens": 30,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 10}, {"ttl": "5m", "inputTokens": 20}],
    }  # fmt: skip
    assert CONVERSE.read_reply(told.body).usage == usage


def test_what_stopped_the_model_is_told_to_who_asked():
    stopped = Completion(id="", model="", choices=(Choice((Text("a"),), "stop", 0, "END"),))
    call = read(additionalModelResponseFieldPaths=["/stop_sequence"])
    parsed = reply_by_boto(CONVERSE.write_reply(stopped, call).body)
    assert (parsed["stopReason"], parsed["additionalModelResponseFields"]) == (
        "stop_sequence",
        {"stop_sequence": "END"},
    )
    assert "additionalModelResponseFields" not in reply_by_boto(CONVERSE.write_reply(stopped, CALL).body)
    assert CONVERSE.read_reply(CONVERSE.write_reply(stopped, call).body).choices[0].stop_sequence == "END"


WORDS_TO_STOP = (
    "guardrail_intervened",
    "content_filtered",
    "malformed_tool_use",
    "model_context_window_exceeded",
    "new",
)


@pytest.mark.parametrize("word", WORDS_TO_STOP)
def test_a_stop_reason_comes_back_as_it_was(word):
    body = {
        "output": {"message": {"role": "assistant", "content": []}},
        "stopReason": word,
        "usage": {},
        "metrics": {"latencyMs": 1},
    }
    told = CONVERSE.read_reply(json.dumps(body).encode())
    assert json.loads(CONVERSE.write_reply(told, CALL).body)["stopReason"] in {word, "end_turn"}
    assert told.choices[0].native_finish == (None if word == "content_filtered" else word)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"message":"x"}', b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}',
     b'{"output":{}}', b'{"output":{"message":{"content":[{"text":5}]}},"stopReason":"end_turn"}'],
)  # fmt: skip
def test_what_is_no_reply_is_a_fault(body):
    with pytest.raises(Fault) as caught:
        CONVERSE.read_reply(body)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


# -- streams ----------------------------------------------------------------------------------------------------------

BEGIN = frame("messageStart", role="assistant")
HELLO = frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "hello"}, p="abc")
CLOSE = frame("contentBlockStop", contentBlockIndex=0)
STOP = frame("messageStop", stopReason="end_turn")
METADATA = frame("metadata", usage={"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, metrics={"latencyMs": 1})


def told(*frames: bytes) -> list[Any]:
    return CONVERSE.stream_reader().feed(b"".join(frames))


def test_a_usual_frame_passes_as_the_very_object_it_was():
    splice = CONVERSE.splice(asked())
    assert splice.feed(BEGIN) == BEGIN
    assert not splice.meaningful
    assert splice.feed(HELLO) is HELLO
    assert (splice.meaningful, splice.characters, splice.between) == (True, 5, True)


def test_the_end_is_held_from_message_stop_to_metadata():
    splice = CONVERSE.splice(asked())
    assert splice.feed(BEGIN + HELLO + CLOSE + STOP) == BEGIN + HELLO + CLOSE
    assert repr(splice).startswith("FrameSplice(held")
    assert splice.feed(METADATA) == b""
    assert (splice.ended, splice.finish, splice.usage) == (True, "end_turn", Usage(input=3, output=2))
    assert splice.feed(HELLO) == b""
    assert splice.tail(0.5) == STOP + METADATA


def test_an_upstream_that_goes_on_for_ever_behind_its_end_is_given_up():
    splice = CONVERSE.splice(asked())
    splice.feed(BEGIN + HELLO + CLOSE + STOP)
    more = HELLO * 1000
    for _ in range((20 << 20) // len(more)):
        assert splice.feed(more) == b""
    assert splice.failed is not None
    assert splice.failed.kind is Kind.UPSTREAM_BROKEN



def test_a_stream_that_ends_after_its_stop_is_complete_and_one_before_it_is_cut():
    splice = CONVERSE.splice(asked())
    splice.feed(HELLO + STOP)
    assert splice.close() == b""
    assert (splice.ended, splice.usage, splice.tail(None)) == (True, None, STOP)
    for passed in (HELLO, HELLO + STOP + METADATA[:9]):
        splice = CONVERSE.splice(asked())
        splice.feed(passed)
        splice.close()
        assert splice.failed is not None
        assert splice.failed.kind is Kind.UPSTREAM_CUT
        assert told(passed)[-1] != End()


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("throttlingException", "Too many requests", Kind.UPSTREAM_RATE_LIMIT),
        ("modelStreamErrorException", "The system encountered an error", Kind.UPSTREAM_ERROR),
        ("internalServerException", "x", Kind.UPSTREAM_ERROR),
        ("serviceUnavailableException", "x", Kind.OVERLOADED),
        ("modelTimeoutException", "x", Kind.TIMEOUT),
        ("validationException", "Input is too long for requested model.", Kind.CONTEXT_LENGTH),
        ("validationException", "Malformed input", Kind.INVALID),
        ("yetUnknownException", "x", Kind.UPSTREAM_ERROR),
        ("accessDeniedException", "User arn:aws:iam::1 is not allowed", Kind.UPSTREAM_AUTH),
    ],
)
def test_an_exception_frame_ends_the_stream_with_its_kind(name, message, kind):
    splice = CONVERSE.splice(asked())
    assert splice.feed(BEGIN + HELLO + exception(name, message) + STOP) == BEGIN + HELLO
    assert splice.failed is not None
    assert splice.failed.kind is kind
    assert "arn:" not in splice.failed.message
    failed = told(BEGIN, HELLO, exception(name, message))[-1]
    assert isinstance(failed, Failed)
    assert failed.fault.kind is kind


def test_an_error_frame_is_one_too():
    headers = {
        ":message-type": "error",
        ":error-code": "InternalError",
        ":error-message": "An internal server error occurred",
    }
    splice = CONVERSE.splice(asked())
    splice.feed(HELLO + eventstream.encode(headers, b""))
    assert splice.failed is not None
    assert splice.failed.message == "An internal server error occurred"


@pytest.mark.parametrize("kind", Kind)
def test_botocore_reads_how_a_stream_failed(kind):
    splice = CONVERSE.splice(asked())
    body = splice.feed(BEGIN + HELLO + STOP) + splice.fail(Fault(kind, "What happened.", param="messages"))
    read_events, code = by_boto(body)
    assert [next(iter(event)) for event in read_events] == ["messageStart", "contentBlockDelta"]
    expected = {"caller": "validationException"}.get(kind.blame)
    assert code == expected or code in {
        "throttlingException", "modelStreamErrorException", "serviceUnavailableException", "internalServerException",
    }  # fmt: skip
    assert splice.heartbeat() == b""


def test_a_damaged_frame_ends_the_stream():
    damaged = bytearray(HELLO)
    damaged[-6] ^= 1
    splice = CONVERSE.splice(asked())
    assert splice.feed(HELLO + bytes(damaged) + HELLO) == HELLO
    assert splice.failed is not None
    assert splice.failed.kind is Kind.UPSTREAM_BROKEN
    assert CONVERSE.splice(asked()).feed(bytes(damaged)) == b""
    assert isinstance(told(HELLO, bytes(damaged))[-1], Failed)


def test_a_frame_too_long_to_hold_passes_in_pieces():
    long = frame("contentBlockDelta", contentBlockIndex=1, delta={"image": {"source": {"bytes": "A" * 300_000}}})
    body = BEGIN + long + HELLO + STOP + METADATA
    splice = CONVERSE.splice(asked())
    passed, inside = b"", False
    for at in range(0, len(body), 4096):
        passed += splice.feed(body[at : at + 4096])
        inside = inside or not splice.between
    assert inside
    assert splice.between
    assert splice.meaningful
    assert passed + splice.tail(None) == body
    cut = CONVERSE.splice(asked())
    cut.feed(body[:100_000])
    cut.close()
    assert (cut.between, cut.failed is not None) == (False, True)


def test_a_long_end_is_waited_for():
    trace = {"guardrail": {"modelOutput": ["x" * 200_000]}}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    metadata = frame("metadata", usage=usage, metrics={"latencyMs": 1}, trace=trace)
    splice = CONVERSE.splice(asked())
    body = HELLO + STOP + metadata
    passed = b"".join(splice.feed(body[at : at + 1000]) for at in range(0, len(body), 1000))
    assert passed == HELLO
    assert (splice.ended, splice.usage) == (True, Usage(input=1, output=1))
    assert splice.tail(None) == STOP + metadata


def test_a_frame_of_an_unknown_kind_passes():
    odd = frame("yetUnknown", a=1)
    splice = CONVERSE.splice(asked())
    assert splice.feed(BEGIN + odd + HELLO) == BEGIN + odd + HELLO
    assert isinstance(told(BEGIN, odd, HELLO)[-1], Delta)


def test_blocks_are_read_in_order_and_open_by_themselves():
    thought = {"reasoningContent": {"text": "hm"}}
    events_ = told(
        BEGIN,
        frame("contentBlockDelta", contentBlockIndex=0, delta=thought),
        frame("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"signature": "sig"}}),
        frame("contentBlockDelta", contentBlockIndex=0, delta={"text": "a"}),
        CLOSE,
        frame("contentBlockStart", contentBlockIndex=1, start={"toolUse": {"toolUseId": "t", "name": "look"}}),
        frame("contentBlockDelta", contentBlockIndex=1, delta={"toolUse": {"input": '{"a":'}}),
        frame("contentBlockDelta", contentBlockIndex=1, delta={"toolUse": {"input": "1}"}}),
        frame("messageStop", stopReason="tool_use"),
        METADATA,
    )
    assert [type(event).__name__ for event in events_] == [
        "Start", "PartStart", "Delta", "SignatureDelta", "PartEnd", "PartStart", "Delta", "PartEnd", "PartStart", "Delta", "Delta",
        "PartEnd", "Finish", "UsageUpdate", "End",
    ]  # fmt: skip
    starts = [event for event in events_ if isinstance(event, PartStart)]
    assert [(one.index, one.kind, one.name) for one in starts] == [
        (0, "reasoning", None),
        (1, "text", None),
        (2, "tool", "look"),
    ]
    assert [one.format for one in events_ if isinstance(one, SignatureDelta)] == ["anthropic_messages"]


def test_a_sealed_thought_is_told_whole():
    halves = [base64.b64encode(half).decode() for half in (b"EuYB", b"CkYI")]
    deltas = [
        frame("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"redactedContent": half}})
        for half in halves
    ]
    events_ = told(BEGIN, *deltas, CLOSE, HELLO, STOP, METADATA)
    start = events_[1]
    assert isinstance(start, PartStart)
    assert (start.redacted, start.format) == ("EuYBCkYI", "anthropic_messages")
    crossing = Crossing(CONVERSE.stream_reader(), ANTHROPIC.stream_writer(CALL))
    crossed = crossing.feed(b"".join((BEGIN, *deltas, CLOSE, HELLO, STOP, METADATA)))
    assert b'{"type":"redacted_thinking","data":"EuYBCkYI"}' in crossed


def test_bedrocks_own_tools_pass_as_its_own():
    frames = [
        frame("contentBlockStart", contentBlockIndex=0, start={"toolUse": {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use"}}),
        frame("contentBlockDelta", contentBlockIndex=0, delta={"toolUse": {"input": "{}"}}),
        CLOSE,
        frame("contentBlockStart", contentBlockIndex=1, start={"toolResult": {"toolUseId": "t", "type": "nova_grounding_result"}}),
        frame("contentBlockDelta", contentBlockIndex=1, delta={"toolResult": [{"text": "[HIDDEN]"}]}),
        frame("contentBlockStop", contentBlockIndex=1),
    ]  # fmt: skip
    same = Crossing(CONVERSE.stream_reader(), CONVERSE.stream_writer(CALL))
    crossed = same.feed(BEGIN + b"".join(frames) + STOP + METADATA)
    assert events(crossed) == events(BEGIN + b"".join(frames))
    other = Crossing(CONVERSE.stream_reader(), OPENAI.stream_writer(CALL))
    assert b"nova_grounding" not in other.feed(BEGIN + b"".join(frames) + STOP + METADATA)


def test_citations_are_told():
    cited = {"citation": {"title": "T", "location": {"web": {"url": "https://x", "domain": "x"}}}}
    events_ = told(BEGIN, frame("contentBlockDelta", contentBlockIndex=3, delta=cited), STOP, METADATA)
    (found,) = [event.citation for event in events_ if isinstance(event, CitationDelta)]
    assert (found.url, found.title) == ("https://x", "T")


def test_a_written_stream_is_botocores():
    writer = CONVERSE.stream_writer(Conversation(model="m", messages=()))
    out = b"".join(map(writer.write, [
        Start("i", "m"), PartStart(0, "reasoning"), Delta(0, "hm"), SignatureDelta(0, "sig", format="anthropic_messages"),
        PartStart(1, "tool", id="t", name="look", tool_kind="custom"), Delta(1, "a "), Delta(1, "b"),
        PartStart(2, "reasoning", redacted="EuYB", format="anthropic_messages"), PartStart(3, "opaque", format="gemini"), Delta(3, "x"),
        PartStart(4, "text", choice=1), Delta(4, "other", choice=1),
        Finish("tool_calls"), UsageUpdate(Usage(input=1, output=2)), End(),
    ]))  # fmt: skip
    out += writer.write(PartEnd(1)) + writer.tail(0.5)
    read_events, code = by_boto(out)
    assert code is None
    assert read_events == [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "sig"}}}},
        {"contentBlockStart": {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t", "name": "look"}}}},
        {"contentBlockDelta": {"contentBlockIndex": 2, "delta": {"reasoningContent": {"redactedContent": b"EuYB"}}}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": '{"input":"a b"}'}}}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}, "metrics": {"latencyMs": 0}}},
    ]  # fmt: skip


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_errors_are_botocores(kind):
    out = CONVERSE.write_error(Fault(kind, "What happened.", param="messages[0]", retry_after=1.5), "req_1")
    headers = {name.decode(): value.decode() for name, value in out.headers}
    parsed = reply_by_boto(out.body, out.status, headers)
    assert parsed["Error"]["Message"] == "messages[0]: What happened."
    assert parsed["Error"]["Code"].endswith("Exception")
    assert parsed["Error"]["Code"] == headers["x-amzn-errortype"]
    assert headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Input is too long for requested model.", Kind.CONTEXT_LENGTH),
        (
            "The model returned the following errors: prompt is too long: 210000 tokens > 200000 maximum",
            Kind.CONTEXT_LENGTH,
        ),
        ("Invocation of model ID x with on-demand throughput isn’t supported.", Kind.UPSTREAM_NO_MODEL),
        ("The provided model identifier is invalid.", Kind.UPSTREAM_NO_MODEL),
        ("Malformed input request, please reformat your input and try again.", Kind.INVALID),
    ],
)
def test_the_words_of_a_validation_exception_decide(message, kind):
    fault = CONVERSE.read_error(400, json.dumps({"__type": "ValidationException", "message": message}).encode())
    assert fault.kind is kind


def test_a_foreign_error_body_is_told_in_this_shape():
    fault = ANTHROPIC.read_error(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"bad"}}')
    out = CONVERSE.write_error(fault, "")
    assert (out.status, json.loads(out.body)) == (400, {"message": "bad"})


# -- round trips over made-up conversations ----------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
USER = st.lists(WORDS.map(Text), min_size=1, max_size=3)
CALLS = st.lists(
    st.builds(ToolCall, st.from_regex(r"[a-zA-Z0-9_.:-]{1,64}", fullmatch=True), st.just("look"), st.just('{"a":1}')),
    min_size=1, max_size=3, unique_by=lambda call: call.id,
)  # fmt: skip


@generated(100, deadline=None)
@given(USER, CALLS, st.booleans(), WORDS)
def test_a_conversation_comes_back_from_converse(user, calls, failed, answer):
    messages = (
        Message("user", tuple(user), at="messages[0]"),
        Message("assistant", (Reasoning("hm", "sig", format="anthropic_messages"), *calls), at="messages[1]"),
        *(Message("tool", (ToolResult(one.id, (Text(answer),), is_error=failed),), at="messages[2]") for one in calls),
    )
    sent = CONVERSE.write_request(Conversation(model="m", messages=messages, format="openai_chat"), CLAUDE)
    assert sent.dropped == ()
    back = CONVERSE.read_request(CONVERSE.peek(sent.body, CLAUDE))
    assert back.messages == messages


def test_the_recorded_bodies_are_there():
    if not REQUESTS:
        pytest.skip("no recorded traffic")
    assert len(list(islice(REQUESTS, 50))) == 50
