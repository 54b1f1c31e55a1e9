"""Replies that ended badly, or never began: no client of another shape is told that all went well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from formats.shapes import CALL, GEMINI, NOW, SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, ANTHROPIC, RESPONSES = SHAPES["chat_completions"], SHAPES["messages"], OpenAIResponses()
DONE = b"data: [DONE]\n\n"
FAILURES = ["error", "abort", "insufficient_system_resource"]  # OpenRouter's and Mistral's, vLLM's, DeepSeek's
NOTHING = [
    DONE,
    b'data: {"id":"c","model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":0,"total_tokens":5}}\n\n' + DONE,
]


def reply(word: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "It is"}, "finish_reason": word}
    return json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


def stream(word: str) -> bytes:
    chunks = [({"content": "It is"}, None), ({}, word)]
    told = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in chunks]
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in told) + DONE


def crossed(target: Any, body: bytes, source: Any = OPENAI) -> tuple[Crossing, bytes]:
    crossing = Crossing(source.stream_reader(), target.stream_writer(CALL, NOW))
    told = crossing.feed(body) + crossing.close()
    return crossing, told + (crossing.tail(None) if crossing.ended else b"")


@pytest.mark.parametrize("word", FAILURES)
def test_an_answer_that_failed_is_none_for_a_client_of_messages(word: str) -> None:
    with pytest.raises(Fault) as caught:
        ANTHROPIC.write_reply(OPENAI.read_reply(reply(word)), CALL)
    assert caught.value.kind is Kind.UPSTREAM_ERROR


@pytest.mark.parametrize("word", FAILURES)
def test_a_stream_that_failed_ends_in_an_error_for_a_client_of_messages(word: str) -> None:
    crossing, told = crossed(ANTHROPIC, stream(word))
    assert b'"It is"' in told
    assert b"message_delta" not in told
    assert b"message_stop" not in told
    assert crossing.failed is not None
    assert crossing.failed.kind is Kind.UPSTREAM_ERROR


@pytest.mark.parametrize("word", FAILURES)
def test_an_answer_that_failed_is_a_failed_response(word: str) -> None:
    assert json.loads(RESPONSES.write_reply(OPENAI.read_reply(reply(word)), CALL, NOW).body)["status"] == "failed"
    assert b"event: response.failed" in crossed(RESPONSES, stream(word))[1]


def test_an_answer_as_long_as_the_model_can_make_it_is_not_whole() -> None:
    """Mistral's word."""
    assert json.loads(ANTHROPIC.write_reply(OPENAI.read_reply(reply("model_length")), CALL).body)["stop_reason"] == "max_tokens"
    assert b'"stop_reason":"max_tokens"' in crossed(ANTHROPIC, stream("model_length"))[1]


@pytest.mark.parametrize("body", NOTHING, ids=["only its end", "only usage"])
@pytest.mark.parametrize("target", [OPENAI, ANTHROPIC, RESPONSES], ids=lambda shape: shape.name)
def test_a_stream_without_an_answer_fails(target: Any, body: bytes) -> None:
    crossing, told = crossed(target, body)
    assert told == b""
    assert crossing.failed is not None
    assert crossing.failed.kind is Kind.UPSTREAM_BROKEN


def test_a_message_that_never_began_fails() -> None:
    crossing, told = crossed(OPENAI, b'event: message_stop\ndata: {"type":"message_stop"}\n\n', ANTHROPIC)
    assert (crossing.ended, told) == (False, b"")


def test_what_is_said_before_a_message_begins_is_told() -> None:
    said = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    _, told = crossed(OPENAI, b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in said), ANTHROPIC)
    assert all(line.startswith(b"data: ") for line in told.splitlines() if line)
    chunks = [json.loads(line[6:]) for line in told.splitlines() if line.startswith(b"data: {")]
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == "hello"


def test_lines_may_end_in_either_way_within_one_read() -> None:
    first, *rest = stream("stop").split(b"\n\n", 1)
    crossing, told = crossed(ANTHROPIC, first + b"\r\n\r\n" + rest[0][: -len(DONE)])
    assert crossing.failed is None
    assert b'"It is"' in told


def test_googles_error_is_told_in_openais_words() -> None:
    said = {"code": 400, "message": "Invalid value at 'contents'", "status": "INVALID_ARGUMENT", "details": []}
    fault = GEMINI.read_error(400, json.dumps({"error": said}).encode())
    for shape in (OPENAI, RESPONSES):
        told = shape.write_error(fault, "r")
        assert told.status == 400
        assert json.loads(told.body)["error"] == {"message": said["message"], "type": "invalid_request_error", "param": None, "code": "invalid_request"}


ZEROS = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 12}
COUNTED = {
    "input_tokens": 100, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 30}, "output_tokens": 1,
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}}])
def test_a_zero_at_the_end_of_a_message_takes_nothing_off_the_bill(more: dict[str, Any]) -> None:
    """Who counts the prompt in message_start only says 0 of it in message_delta: https://github.com/envoyproxy/ai-gateway/pull/1631"""
    said = [
        {"type": "message_start", "message": {"id": "m", "model": "m", "usage": COUNTED}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {**ZEROS, **more}},
        {"type": "message_stop"},
    ]
    body = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in said)
    passed = ANTHROPIC.splice(ANTHROPIC.peek(b'{"model":"m","messages":[1]}'))
    passed.feed(body)
    for usage in (passed.usage, crossed(OPENAI, body, ANTHROPIC)[0].usage):
        assert usage is not None
        assert (usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output) == (180, 50, 0, 30, 12)


def test_every_pass_over_a_message_is_billed() -> None:
    """`iterations` lists each, where the usage above tells of the last alone: https://platform.claude.com/docs/en/build-with-claude/compaction-threshold"""
    passes = [COUNTED, {"input_tokens": 7, "output_tokens": 20}, "odd"]
    for given, billed in ((passes, (187, 50, 30, 21)), (["odd"], (7, 0, 0, 20)), ("odd", (7, 0, 0, 20)), ([], (7, 0, 0, 20))):
        body = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
                "usage": {"input_tokens": 7, "output_tokens": 20, "iterations": given}}  # fmt: skip
        usage = ANTHROPIC.summarise(json.dumps(body).encode()).usage
        assert usage is not None
        assert (usage.input, usage.cache_read, usage.cache_write_1h, usage.output) == billed


@pytest.mark.parametrize(("output", "total", "thought", "billed"), [(60, 70, 50, 60), (60, 120, 50, 110), (5, 65, 50, 55), (5, 15, 50, 55), (60, 70, None, 60)])
def test_thoughts_that_a_service_counts_apart_are_billed_and_others_once(output: int, total: int, thought: int | None, billed: int) -> None:
    """xAI leaves them out of completion_tokens, OpenAI does not: docs.x.ai "Reasoning", platform.openai.com "Reasoning models"."""
    details = {"reasoning_tokens": thought, "audio_tokens": 2, "accepted_prediction_tokens": 3, "rejected_prediction_tokens": 4}
    counted = {
        "prompt_tokens": 10, "completion_tokens": output, "total_tokens": total, "prompt_tokens_details": {"cached_tokens": 6, "audio_tokens": 1},
        "completion_tokens_details": details,
    }  # fmt: skip
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = OPENAI.summarise(json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": counted}).encode()).usage
    assert usage is not None
    assert (usage.input, usage.output, usage.reasoning, usage.cache_read) == (10, billed, thought or 0, 6)
    assert (usage.audio_input, usage.audio_output, usage.accepted_prediction, usage.rejected_prediction) == (1, 2, 3, 4)


@pytest.mark.parametrize("said", [b"", b'{"a":1}'], ids=["nothing", "something"])
def test_a_call_whose_block_never_stops_is_told_whole(said: bytes) -> None:
    block = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    events = [
        {"type": "message_start", "message": {"id": "m", "model": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": said.decode()}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    body = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in events)
    last = crossed(RESPONSES, body, ANTHROPIC)[1].rstrip().splitlines()[-1]
    (call,) = json.loads(last[6:])["response"]["output"]
    assert (call["name"], call["arguments"]) == ("f", said.decode() or "{}")
    _, told = crossed(OPENAI, body, ANTHROPIC)
    assert b'"arguments":"{' in told
