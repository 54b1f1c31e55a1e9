"""Ollama's chat and generate: what only they say, what becomes of it elsewhere, and what becomes of others in them."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.sampling import generated
from formats.shapes import CALL, GEMINI, MODELS, NOW, SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, End, Failed, Finish, LogprobsDelta, PartEnd, PartStart, Start, UsageUpdate
from llm_gateway.core.types import (
    Choice,
    Citation,
    Completion,
    Image,
    Logprob,
    Media,
    Message,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llm_gateway.formats import crossings
from llm_gateway.formats.contract import Peek
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.ollama import OllamaChat, OllamaGenerate

CHAT, GENERATE = OllamaChat(), OllamaGenerate()
OWN = {"ollama_chat": CHAT, "ollama_generate": GENERATE}
OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
PIXEL = "iVBORw0KGgo="
ASKED = Peek({}, "m", True, True)
def chat(*messages: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": messages or ({"role": "user", "content": "hi"},), **more}).encode()


def generate(**members: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hi", **members}).encode()


def read(*messages: dict[str, Any], **more: Any):
    return CHAT.read_request(CHAT.peek(chat(*messages, **more)))


def written(body: bytes, model: str = "llama3.2", *, shape=CHAT) -> tuple[dict[str, Any], tuple[str, ...]]:
    """An OpenAI client's request, in Ollama's words."""
    told = shape.write_request(OPENAI.read_request(OPENAI.peek(body)), model)
    return json.loads(told.body), told.dropped


def lines(body: bytes) -> list[dict[str, Any]]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.splitlines()]


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "body", "param"),
    [
        (CHAT, b"[]", None),
        (CHAT, b"{", None),
        (CHAT, b"{}", "model"),
        (CHAT, b'{"model":5}', "model"),
        (CHAT, b'{"model":"m","messages":{}}', "messages"),
        (CHAT, chat(stream="yes"), "stream"),
        (CHAT, chat(options=[]), "options"),
        (CHAT, chat(options={"num_predict": "many"}), "options.num_predict"),
        (GENERATE, b'{"prompt":"hi"}', "model"),
        (GENERATE, generate(prompt=["hi"]), "prompt"),
        (GENERATE, generate(options={"num_predict": []}), "options.num_predict"),
    ],
)
def test_peek_refuses_and_names_the_field(shape, body, param):
    with pytest.raises(Fault) as caught:
        shape.peek(body)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat({"role": "nobody", "content": "hi"}), "messages[0].role"),
        (chat({"content": "hi"}), "messages[0]"),
        (chat({"role": "user", "content": [{"type": "text"}]}), "messages[0].content"),
        (chat({"role": "user", "content": "?", "images": ["data:image/png;base64,AA=="]}), "messages[0].images[0]"),
        (chat({"role": "user", "content": "?", "images": ["AAA"]}), "messages[0].images[0]"),
        (chat({"role": "user", "content": "?", "images": [5]}), "messages[0].images[0]"),
        (chat({"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}), "messages[0].tool_calls[0].function.name"),
        (
            chat({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (chat({"role": "tool", "content": "5"}), "messages[0]"),
        (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function"),
        (chat(tools=[{"type": "web_search", "function": {"name": "f"}}]), "tools[0].type"),
        (chat(format="yaml"), "format"),
        (chat(think="hard"), "think"),
        (chat(think=3), "think"),
        (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
        (chat(options={"temperature": -1}), "options.temperature"),
        (chat(options={"stop": [1]}), "options.stop[0]"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m"}', "messages"),
    ],
)
def test_a_wrong_value_in_a_chat_is_refused_by_its_path(body, param):
    with pytest.raises(Fault) as caught:
        CHAT.read_request(CHAT.peek(body))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (generate(prompt=""), "prompt"),
        (b'{"model":"m"}', "prompt"),
        (generate(system=5), "system"),
        (generate(images=["?"]), "images[0]"),
        (generate(context=["a"]), "context[0]"),
        (generate(raw="x"), "raw"),
    ],
)
def test_a_wrong_value_in_a_generate_is_refused_by_its_path(body, param):
    with pytest.raises(Fault) as caught:
        GENERATE.read_request(GENERATE.peek(body))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_a_request_that_does_not_say_streams_and_minus_one_is_no_limit():
    peek = CHAT.peek(chat())
    assert (peek.stream, peek.wants_usage, peek.max_tokens) == (True, True, None)
    assert CHAT.peek(chat(stream=None)).stream is True
    assert CHAT.peek(chat(stream=False)).stream is False
    assert CHAT.peek(chat(options={"num_predict": -1})).max_tokens is None
    assert CHAT.peek(chat(options={"num_predict": 7})).max_tokens == 7


def test_a_request_to_load_a_model_goes_through():
    body = b'{"model":"m","messages":[],"keep_alive":0}'
    assert json.loads(CHAT.forward(CHAT.peek(body), "n").body) == {"model": "n", "messages": [], "keep_alive": 0}
    assert CHAT.summarise(b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}').finish == "load"
    assert json.loads(GENERATE.forward(GENERATE.peek(b'{"model":"m"}'), "n").body) == {"model": "n"}


def test_what_only_ollama_knows_comes_back_and_is_reported_elsewhere():
    options = {"num_ctx": 8192, "repeat_penalty": 1.1, "num_predict": -1, "mirostat": 2, "temperature": 0.5}
    call = read(options=options, keep_alive="5m", new={"a": 1})
    again = json.loads(CHAT.write_request(call, "m").body)
    assert (again["options"], again["keep_alive"], again["new"]) == (options, "5m", {"a": 1})
    dropped = OPENAI.write_request(call, "gpt-4o").dropped
    assert set(dropped) == {"options.num_ctx", "options.repeat_penalty", "options.num_predict", "options.mirostat", "keep_alive", "new"}


def test_everything_a_chat_asks_for_crosses_into_openais_words():
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    call = read(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Both?", "images": [PIXEL]},
        {
            "role": "assistant",
            "thinking": "Hm.",
            "tool_calls": [{"function": {"name": "f", "arguments": {"n": n}}} for n in (1, 2)],
        },
        {"role": "tool", "tool_name": "f", "content": "one"},
        {"role": "tool", "tool_name": "f", "content": "two"},
        tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}],
        format=schema,
        think="low",
        logprobs=True,
        top_logprobs=2,
        stream=False,
        options={
            "num_predict": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["a"], "seed": 3, "presence_penalty": 1, "frequency_penalty": 0.5,
        },
    )  # fmt: skip
    told = OPENAI.write_request(call, "gpt-oss-120b")
    sent = json.loads(told.body)
    assert told.dropped == ()
    assert sent["messages"][1]["content"][0] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    ids = [one["id"] for one in sent["messages"][2]["tool_calls"]]
    assert len(set(ids)) == 2
    assert [one["tool_call_id"] for one in sent["messages"][3:]] == ids
    assert [one["content"] for one in sent["messages"][3:]] == ["one", "two"]
    assert sent["response_format"]["json_schema"]["schema"] == schema
    told_plainly = {name: sent[name] for name in ("max_tokens", "temperature", "top_p", "stop", "seed", "reasoning_effort")}
    assert told_plainly == {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["a"], "seed": 3, "reasoning_effort": "low",
    }  # fmt: skip
    assert (sent["logprobs"], sent["top_logprobs"], sent["presence_penalty"]) == (True, 2, 1)
    assert "stream" not in sent


def test_everything_an_openai_client_asks_for_crosses_into_ollamas_words():
    schema = {"type": "object", "properties": {"a": {}}}
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    sent, dropped = written(
        chat(
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "?"}, url]},
            {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "ok"},
            temperature=0.5, top_p=0.9, max_tokens=7, stop="a", seed=3, top_k=4, min_p=0.1, user="me", logit_bias={"5": 1},
            logprobs=True, top_logprobs=3, parallel_tool_calls=False,
            tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}}],
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
            reasoning_effort="high",
        ),
        "gpt-oss:20b",
    )  # fmt: skip
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "?", "images": [PIXEL]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}],
        },
        {"role": "tool", "content": "ok", "tool_name": "f", "tool_call_id": "c1"},
    ]
    assert sent["options"] == {
        "num_predict": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": 3, "stop": ["a"],
    }  # fmt: skip
    assert (sent["format"], sent["think"], sent["stream"], sent["logprobs"], sent["top_logprobs"]) == (schema, "high", False, True, 3)
    assert sent["tools"] == [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}]
    assert set(dropped) == {"user", "logit_bias", "parallel_tool_calls", "tools[0].strict"}


@pytest.mark.parametrize(
    ("model", "effort", "think", "exact"),
    [
        ("gpt-oss:120b", "low", "low", True),
        ("gpt-oss:120b", "xhigh", "high", False),
        ("gpt-oss:120b", "none", "low", False),
        ("qwen3", "low", True, False),
        ("qwen3", "none", False, True),
    ],
)
def test_effort_becomes_what_the_model_understands(model, effort, think, exact):
    sent, dropped = written(chat(reasoning_effort=effort), model)
    assert (sent["think"], "reasoning_effort" not in dropped) == (think, exact)


def test_a_budget_becomes_a_level_or_on():
    body = json.dumps(
        {
            "model": "m",
            "max_tokens": 9000,
            "messages": [{"role": "user", "content": "hi"}],
            "thinking": {"type": "enabled", "budget_tokens": 8000},
        }
    )
    call = ANTHROPIC.read_request(ANTHROPIC.peek(body.encode()))
    for model, think in (("gpt-oss", "medium"), ("qwen3", True)):
        told = CHAT.write_request(call, model)
        assert (json.loads(told.body)["think"], told.dropped) == (think, ("thinking",))


@pytest.mark.parametrize(
    ("choice", "left", "reported"),
    [
        ("auto", ["f", "g"], False),
        ("none", None, False),
        ("required", ["f", "g"], True),
        ({"type": "function", "function": {"name": "g"}}, ["g"], True),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}},
            ["f"],
            False,
        ),
    ],
)
def test_a_choice_of_tools_is_said_by_which_are_given(choice, left, reported):
    tools = [{"type": "function", "function": {"name": name}} for name in "fg"]
    sent, dropped = written(chat(tools=tools, tool_choice=choice))
    names = [one["function"]["name"] for one in sent["tools"]] if "tools" in sent else None
    assert (names, "tool_choice" in dropped) == (left, reported)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat(n=2), "n"),
        (chat(modalities=["text", "audio"]), "modalities"),
        (
            chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}),
            "messages[0].content",
        ),
        (
            chat({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}),
            "messages[0].content",
        ),
        (chat(tools=[{"type": "custom", "custom": {"name": "f"}}]), "tools[0].type"),
        (
            chat({"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]}),
            "messages[0].tool_calls",
        ),
    ],
)
def test_what_would_change_the_meaning_is_refused(body, param):
    with pytest.raises(Fault) as caught:
        written(body)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_a_failed_tool_says_so_and_its_images_come_along():
    result = ToolResult("c", (Text("No."), Image(Media("image/png", PIXEL))), name="f", is_error=True)
    call = read()
    call = type(call)(model="m", messages=(*call.messages, Message("tool", (result,), at="messages[1]")), format="anthropic_messages")
    sent = json.loads(CHAT.write_request(call, "m").body)["messages"][1]
    assert sent == {"role": "tool", "content": "Error: No.", "images": [PIXEL], "tool_name": "f", "tool_call_id": "c"}


# -- generate ---------------------------------------------------------------------------------------------------------


def test_a_generate_is_instructions_and_one_question_elsewhere():
    call = GENERATE.read_request(GENERATE.peek(generate(system="Be brief.", images=[PIXEL], stream=False, format="json")))
    sent = json.loads(OPENAI.write_request(call, "gpt-4o").body)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["response_format"] == {"type": "json_object"}
    again = json.loads(GENERATE.write_request(call, "m").body)
    assert again == {"model": "m", "prompt": "hi", "system": "Be brief.", "images": [PIXEL], "stream": False, "format": "json"}


@pytest.mark.parametrize("own", [{"suffix": "end"}, {"raw": True}, {"template": "{{ .Prompt }}"}, {"context": [1, 2]}])
def test_what_makes_a_generate_more_is_refused_elsewhere_and_kept_at_home(own):
    call = GENERATE.read_request(GENERATE.peek(generate(**own)))
    for target in (*SHAPES.values(), GEMINI, CHAT):
        with pytest.raises(Fault) as caught:
            target.write_request(call, MODELS.get(target.name, "m"))
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "prompt")
    again = json.loads(GENERATE.write_request(call, "m").body)
    assert {name: again[name] for name in own} == own


def test_a_conversation_is_no_generate():
    told, _ = written(chat({"role": "system", "content": "Brief."}, {"role": "user", "content": "hi"}), shape=GENERATE)
    assert told == {"model": "llama3.2", "system": "Brief.", "prompt": "hi", "stream": False}
    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})
    for body, param in (
        (chat(*turns), "messages[1]"),
        (chat({"role": "system", "content": "x"}), "messages"),
        (chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools"),
    ):
        with pytest.raises(Fault) as caught:
            written(body, shape=GENERATE)
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


# -- replies and streams ----------------------------------------------------------------------------------------------

REPLY = Completion(
    id="x",
    model="m",
    choices=(
        Choice(
            (Reasoning("Hm."), Text("Hi.", citations=(Citation(url="https://example.com"),)), ToolCall("c1", "f", '{"a":1}')),
            "tool_calls",
            logprobs=(Logprob("Hi", -0.5, [72, 105], (Logprob("Ho", -1.5),)),),
        ),
    ),
    usage=Usage(input=3, output=5),
)


def test_a_reply_as_ollamas_client_takes_it():
    told = CHAT.write_reply(REPLY, CALL, NOW)
    assert told.dropped == ("content.citations",)
    parsed = ollama.ChatResponse.model_validate_json(told.body)
    assert (parsed.message.content, parsed.message.thinking, parsed.done_reason) == ("Hi.", "Hm.", "stop")
    assert parsed.message.tool_calls is not None
    assert dict(parsed.message.tool_calls[0].function.arguments) == {"a": 1}
    assert (parsed.prompt_eval_count, parsed.eval_count, parsed.created_at) == (3, 5, "2023-11-14T22:13:20Z")
    assert parsed.logprobs is not None
    assert CHAT.read_reply(told.body).choices[0].logprobs == REPLY.choices[0].logprobs
    plain = ollama.GenerateResponse.model_validate_json(GENERATE.write_reply(REPLY, CALL, NOW).body)
    assert (plain.response, plain.thinking, plain.done) == ("Hi.", "Hm.", True)


def test_arguments_that_are_no_object_are_kept_under_a_name_of_their_own():
    reply = Completion(id="", model="m", choices=(Choice((ToolCall("c", "f", "{broken"),), "tool_calls"),))
    told = json.loads(CHAT.write_reply(reply, CALL, NOW).body)
    assert told["message"]["tool_calls"][0]["function"]["arguments"] == {"invalid_json": "{broken"}


EVENTS = [
    Start("x", "m", NOW),
    PartStart(0, "reasoning"),
    Delta(0, "Hm."),
    PartEnd(0),
    PartStart(1, "text"),
    Delta(1, "Hé"),
    LogprobsDelta((Logprob("Hé", -0.5),)),
    PartStart(0, "text", choice=1),
    Delta(0, "other", choice=1),
    PartEnd(1),
    PartStart(2, "tool", id="c1", name="f"),
    Delta(2, '{"a"'),
    Delta(2, ":1}"),
    PartEnd(2),
    Finish("tool_calls"),
    UsageUpdate(Usage(input=3, output=5)),
    End(),
]


def test_a_stream_as_ollamas_client_takes_it():
    writer = CHAT.stream_writer(CALL, NOW)
    told = b"".join(map(writer.write, EVENTS)) + writer.tail(0.5)
    parsed = [ollama.ChatResponse.model_validate(line) for line in lines(told)]
    assert "".join(one.message.thinking or "" for one in parsed) == "Hm."
    assert "".join(one.message.content or "" for one in parsed) == "Hé"
    (call,) = [call for one in parsed for call in one.message.tool_calls or ()]
    assert (call.function.name, dict(call.function.arguments)) == ("f", {"a": 1})
    last = parsed[-1]
    assert (last.done, last.done_reason, last.prompt_eval_count, last.eval_count) == (True, "stop", 3, 5)
    assert {(one.model, one.created_at) for one in parsed} == {("m", "2023-11-14T22:13:20Z")}
    reader = CHAT.stream_reader()
    read = reader.feed(told)
    assert [type(event) for event in read].count(LogprobsDelta) == 1
    assert read[-3:] == [Finish("tool_calls"), UsageUpdate(Usage(input=3, output=5)), End()]


def test_an_error_in_a_stream_ends_it_and_reaches_ollamas_client_as_one():
    body = b'{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}\n{"error":"llama runner process has terminated"}\n'
    splice, reader = CHAT.splice(ASKED), CHAT.stream_reader()
    assert splice.feed(body) == body.splitlines(keepends=True)[0]
    assert splice.failed is not None
    assert (splice.failed.kind, splice.failed.message) == (Kind.UPSTREAM_ERROR, "llama runner process has terminated")
    assert json.loads(splice.fail(splice.failed)) == {"error": "llama runner process has terminated"}
    assert splice.feed(body) + splice.close() == b""
    failed = reader.feed(body)[-1]
    assert isinstance(failed, Failed)
    assert failed.fault.kind is Kind.UPSTREAM_ERROR


def test_a_last_line_longer_than_any_event_ends_its_stream():
    last = json.dumps({"model": "m", "response": "", "done": True, "done_reason": "stop", "context": list(range(40_000))}).encode() + b"\n"
    splice = GENERATE.splice(ASKED)
    pieces = [last[at : at + 16_384] for at in range(0, len(last), 16_384)]
    assert b"".join(map(splice.feed, pieces)) == b""
    assert (splice.ended, splice.tail(None)) == (True, last)


def test_a_line_that_never_ends_fails_and_a_last_line_needs_no_newline():
    for one in (CHAT.splice(ASKED), Crossing(CHAT.stream_reader(), CHAT.stream_writer(CALL, NOW))):
        for _ in range(17):
            one.feed(b" " * (1 << 20))
        assert one.failed is not None
        assert one.failed.kind is Kind.UPSTREAM_BROKEN
    splice = CHAT.splice(ASKED)
    whole = b'{"message":{"role":"assistant","content":"Hi"},"done":true}'
    assert splice.feed(whole) + splice.close() == b""
    assert (splice.ended, splice.tail(None)) == (True, whole + b"\n")
    assert repr(splice) == "LineSplice(ended, finish='stop', characters=2)"


@pytest.mark.parametrize("kind", Kind)
def test_errors(kind):
    told = CHAT.write_error(Fault(kind, "What happened.", param="messages[0]", retry_after=1.5), "req_1")
    assert told.status == kind.status
    error = ollama.ResponseError(told.body.decode(), told.status)
    assert (error.error, dict(told.headers)[b"retry-after"]) == ("messages[0]: What happened.", b"2")


# -- garbage ----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = [
    "messages", "role", "content", "thinking", "images", "tool_calls", "function", "name", "arguments", "id", "tool_name", "tools", "parameters",
    "type", "format", "think", "options", "num_predict", "stop", "temperature", "logprobs", "top_logprobs", "prompt", "system", "suffix", "raw",
    "context", "template", "stream", "model", "done", "done_reason", "message", "response", "error", "created_at", "prompt_eval_count", "eval_count",
]  # fmt: skip
ODD = st.recursive(
    JSON | st.sampled_from(["user", "assistant", "tool", PIXEL, "json", True]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@generated(100)
@given(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=8), st.sampled_from([CHAT, GENERATE]))
def test_an_odd_request_is_read_or_refused(members, shape):
    try:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", **members}).encode()
        call = shape.read_request(shape.peek(body))
        for target in (OPENAI, ANTHROPIC, GEMINI, CHAT, GENERATE):
            try:
                target.write_request(call, MODELS.get(target.name, "m"))
            except Fault as fault:
                assert fault.kind is Kind.INVALID  # noqa: PT017
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017


@generated(100)
@given(st.binary(max_size=60) | st.builds(lambda tree: json.dumps(tree).encode(), ODD), st.integers(1, 7))
def test_odd_replies_and_streams_end_in_faults_only(body, size):
    for look in (CHAT.summarise, CHAT.read_reply):
        try:
            look(body)
        except Fault as fault:
            assert fault.kind.blame != "caller" or fault.status == 200  # noqa: PT017
    assert isinstance(CHAT.read_error(500, body), Fault)
    splice, reader = CHAT.splice(ASKED), CHAT.stream_reader()
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    passed = b"".join(map(splice.feed, pieces)) + splice.close()
    assert splice.ended is (splice.failed is None)
    assert passed.rstrip(b"\n") in body
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.close()
    assert isinstance(events[-1], End | Failed)
    assert sum(isinstance(event, End | Failed) for event in events) == 1


def test_every_field_has_a_fate():
    fields = {row.field for row in crossings.TABLE}
    for shape in OWN:
        assert crossings.COLUMNS[shape].keys() <= fields
