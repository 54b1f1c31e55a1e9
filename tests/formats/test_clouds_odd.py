"""Odd words of the clouds' APIs and of their clients: never an exception, never a success that was none."""

from __future__ import annotations

import json

import pytest

from formats.bedrock import CONVERSE
from formats.shapes import CALL, GEMINI, NOW, SHAPES, asked
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.ollama import OllamaChat
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, RESPONSES, OLLAMA = SHAPES["chat_completions"], OpenAIResponses(), OllamaChat()


@pytest.mark.parametrize(("created", "told"), [(NOW, "2023-11-14T22:13:20Z"), (NOW * 1000, None), (10**30, None), (-(10**30), None)])
def test_a_time_that_no_calendar_has_is_left_out(created: int, told: str | None) -> None:
    """Some services tell milliseconds where OpenAI tells seconds."""
    body = {"id": "c", "model": "m", "created": created, "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    said = json.loads(GEMINI.write_reply(OPENAI.read_reply(json.dumps(body).encode()), CALL, NOW).body)
    assert said.get("createTime") == told
    assert said["candidates"][0]["content"]["parts"] == [{"text": "x"}]


LARGE = b'{"x":1e999}'
HI = b'"contents":[{"role":"user","parts":[{"text":"hi"}]}]'
SAID = b'"messages":[{"role":"user","content":"hi"}]'


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (GEMINI, b'{%b,"tools":[{"functionDeclarations":[{"name":"f","parameters":%b}]}]}' % (HI, LARGE)),
        (GEMINI, b'{%b,"generationConfig":{"responseSchema":%b}}' % (HI, LARGE)),
        (CONVERSE, b'{"messages":[{"role":"user","content":[{"text":"hi"}]}],"additionalModelRequestFields":%b}' % LARGE),
        (OLLAMA, b'{"model":"m","messages":[{"role":"user","content":"hi","odd":%b}]}' % LARGE),
        (OPENAI, b'{"model":"m","messages":[{"role":"user","content":"hi","odd":%b}]}' % LARGE),
    ],
)
def test_a_number_that_no_float_can_hold_is_the_callers_mistake(shape, body):
    with pytest.raises(Fault) as caught:
        shape.read_request(shape.peek(body, "m"))
    assert caught.value.kind is Kind.INVALID


def test_a_custom_tools_format_with_such_a_number_goes_through_unread():
    tool = b'{"type":"custom","name":"f","format":%b}' % LARGE
    call = RESPONSES.read_request(RESPONSES.peek(b'{"model":"m","input":"hi","tools":[%b]}' % tool))
    assert b'"format":%b' % LARGE in RESPONSES.write_request(call, "gpt-5").body


def test_an_event_without_end_fails_a_stream_that_is_told_as_an_array():
    """The array's elements are whole: what never becomes whole must not be gathered for ever."""
    passage = Gemini(array=True).splice(asked())
    passage.feed(b'data: {"candidates":[{"content":{"parts":[{"text":"x"}]}}]}\r\n\r\n')
    passage.feed(b'data: {"candidates":[{"content":{"parts":[{"text":"')
    piece = b"x" * (1 << 20)
    for _ in range(80):
        assert passage.feed(piece) == b""
        if passage.failed is not None:
            break
    assert passage.failed is not None
    assert passage.failed.kind is Kind.UPSTREAM_BROKEN
    assert passage.feed(b'"}]}}]}\r\n\r\n') == b""
    assert passage.between
    assert b'"status":"UNAVAILABLE"' in passage.fail(passage.failed)


@pytest.mark.parametrize("candidates", ["", '"candidates":[],'])
def test_a_reply_without_candidates_is_an_answer_withheld(candidates: str) -> None:
    """Clients of other shapes read the first choice, which must be there, and must not look like an answer."""
    body = b'{%b"usageMetadata":{"promptTokenCount":3,"totalTokenCount":3},"responseId":"r"}' % candidates.encode()
    (choice,) = json.loads(OPENAI.write_reply(GEMINI.read_reply(body), CALL, NOW).body)["choices"]
    assert choice["finish_reason"] == "content_filter"


def test_counts_and_likelihoods_beyond_all_bounds_are_none():
    names = ("promptTokenCount", "toolUsePromptTokenCount", "responseTokenCount", "thoughtsTokenCount", "cachedContentTokenCount")
    huge = 10**400
    candidate = {
        "content": {"parts": [{"text": "x"}]}, "finishReason": "STOP",
        "logprobsResult": {"chosenCandidates": [{"token": "a", "logProbability": -huge}]},
    }  # fmt: skip
    counts = {**dict.fromkeys(names, 0), "promptTokenCount": huge, "candidatesTokenCount": 2}
    body = json.dumps({"candidates": [candidate], "usageMetadata": counts}).encode()
    reply = GEMINI.read_reply(body)
    assert reply.usage is not None
    assert (reply.usage.input, reply.usage.output) == (0, 2)
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs[0].logprob == -9999.0


@pytest.mark.parametrize("stream", [False, True])
def test_sound_out_of_a_cache_is_told_apart(stream: bool) -> None:
    counts = {
        "promptTokenCount": 1000, "cachedContentTokenCount": 900, "candidatesTokenCount": 5, "totalTokenCount": 1005,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 950}, {"modality": "TEXT", "tokenCount": 50}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 880}, {"modality": "TEXT", "tokenCount": 20}, {"modality": 5}, None],
    }  # fmt: skip
    body = json.dumps({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "usageMetadata": counts}).encode()
    usage = GEMINI.summarise(body).usage
    if stream:
        splice = GEMINI.splice(asked())
        splice.feed(b"data: %b\r\n\r\n" % body)
        usage = splice.usage
    assert usage is not None
    assert (usage.input, usage.cache_read, usage.audio_input, usage.cache_audio) == (1000, 900, 950, 880)


@pytest.mark.parametrize(
    ("model", "minimal", "off"),
    [
        ("gemini-3-flash-preview", "minimal", "minimal"),
        ("gemini-3.1-flash-lite", "minimal", "minimal"),
        ("gemini-3.6-flash", "minimal", "minimal"),
        ("gemini-3-pro-preview", "low", "low"),
        ("gemini-3.1-pro-preview", "low", "low"),
        ("gemini-3.7-flash", "low", "low"),
        ("gemini-3.8-flash", "low", "low"),
        ("publishers/google/models/gemini-4-argon", "low", "low"),
        ("gemini-flash-latest", "low", "low"),
        ("gemini-pro-latest", "low", "low"),
    ],
)
def test_a_model_is_asked_for_a_level_of_thinking_that_it_has(model: str, minimal: str, off: str) -> None:
    """Google answers 400 to one that it has not, and then to every request of a client that turns thinking off."""
    for effort, level in (("minimal", minimal), ("none", off), ("low", "low"), ("high", "high")):
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "reasoning_effort": effort}
        sent = GEMINI.write_request(OPENAI.read_request(OPENAI.peek(json.dumps(body).encode())), model)
        assert json.loads(sent.body)["generationConfig"]["thinkingConfig"]["thinkingLevel"] == level


@pytest.mark.parametrize("model", ["gemini-flash-latest", "gemini-pro-latest", "models/gemini-flash-lite-latest"])
def test_the_latest_models_want_calls_sealed(model: str) -> None:
    """Since January 2026 these names stand for models of generation 3, which refuse a call of another model's without the word for it."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "x"}]
    sent = GEMINI.write_request(OPENAI.read_request(OPENAI.peek(json.dumps({"model": "m", "messages": messages}).encode())), model)
    (part,) = json.loads(sent.body)["contents"][1]["parts"]
    assert part["thoughtSignature"] == "skip_thought_signature_validator"


@pytest.mark.parametrize("model", ["us.amazon.nova-pro-v1:0", "us.amazon.nova-2-lite-v1:0"])
def test_nova_is_given_cache_points_only_where_it_takes_them(model: str) -> None:
    """Elsewhere Bedrock refuses the request: "#/toolConfig/tools/1: extraneous key [cachePoint] is not permitted"."""
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {
        "model": "m", "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief.", **mark}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, **mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", **mark}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x", **mark}, {"type": "text", "text": "so?", **mark}]},
        ],
    }  # fmt: skip
    call = SHAPES["messages"].read_request(SHAPES["messages"].peek(json.dumps(body).encode()))
    sent = json.loads(CONVERSE.write_request(call, model).body)
    point = {"cachePoint": {"type": "default"}}
    assert sent["system"] == [{"text": "Be brief."}, point]
    assert [each for each in sent["toolConfig"]["tools"] if "toolSpec" not in each] == []
    assert sent["messages"][0]["content"] == [{"text": "hi"}, point]
    assert point not in sent["messages"][2]["content"]
    claude = json.loads(CONVERSE.write_request(call, "us.anthropic.claude-sonnet-4-5-v1:0").body)
    assert json.dumps(claude).count('{"cachePoint": {"type": "default", "ttl": "1h"}}') == 5


def test_text_of_white_space_only_is_not_said_to_bedrock() -> None:
    """Models say "\\n\\n" beside a call; Bedrock refuses the whole conversation for it, and for ever."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": " "}]},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "\n"}]},
        {"role": "assistant", "content": "\n\n", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": " \n"},
        {"role": "user", "content": "so?"},
    ]
    sent = json.loads(CONVERSE.write_request(OPENAI.read_request(OPENAI.peek(json.dumps({"model": "m", "messages": messages}).encode())), "m").body)
    assert sent["system"] == [{"text": "Be brief."}]
    assert [each["content"] for each in sent["messages"]] == [
        [{"text": "hi"}],
        [{"toolUse": {"toolUseId": "c1", "name": "f", "input": {}}}],
        [{"toolResult": {"toolUseId": "c1", "content": []}}, {"text": "so?"}],
    ]
