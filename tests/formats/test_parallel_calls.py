"""Calls of tools that a streamed chat completion tells at the same time, or under one number: each keeps its own arguments."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from formats.shapes import CALL, NOW, SHAPES
from llm_gateway.core.events import Delta, PartEnd, PartStart
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, ANTHROPIC, RESPONSES = SHAPES["chat_completions"], SHAPES["messages"], OpenAIResponses()
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


def call(at: int | None, arguments: str, *, name: str | None = None, called: str | None = None) -> bytes:
    numbered = {} if at is None else {"index": at}
    return chunk({"tool_calls": [{**numbered, "id": called, "function": {"name": name, "arguments": arguments}}]})


END = chunk({}, "tool_calls") + DONE
BOTH = [("A", "first", {"a": 1}), ("B", "second", {"b": 2})]
STREAMS = {
    "both opened, then told in turn": call(0, "", name="first", called="A") + call(1, "", name="second", called="B")
    + call(0, '{"a":') + call(1, '{"b":') + call(0, "1}") + call(1, "2}") + END,
    "the second told whole within the first": call(0, '{"a":', name="first", called="A")
    + call(1, '{"b":2}', name="second", called="B") + call(0, "1}") + END,
    # vLLM and lmdeploy: https://github.com/InternLM/lmdeploy/issues/3412
    "all numbered 0, and only the first delta names its call": call(0, "", name="first", called="A") + call(0, '{"a":1}', called="")
    + call(0, "", name="second", called="B") + call(0, '{"b":', called="") + call(0, "2}", called="") + END,
    # SGLang: https://github.com/sgl-project/sglang/issues/6310
    "all numbered 0, and every delta names its call": call(0, '{"a":', name="first", called="A") + call(0, "1}", called="A")
    + call(0, '{"b":', name="second", called="B") + call(0, "2}", called="B") + END,
    "not numbered at all": call(None, '{"a":', name="first", called="A") + call(None, "1}")
    + call(None, "", name="second", called="B") + call(None, '{"b":2}') + END,
    "words within": call(0, '{"a":', name="first", called="A") + call(0, "1}") + chunk({"content": "\n"})
    + call(1, '{"b":2}', name="second", called="B") + END,
}  # fmt: skip


def crossed(stream: bytes, target: Any) -> bytes:
    crossing = Crossing(OPENAI.stream_reader(), target.stream_writer(CALL, NOW))
    told = crossing.feed(stream)
    assert crossing.ended
    return told + crossing.tail(None)


def events(told: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in told.splitlines() if line.startswith(b"data: {")]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_client_of_messages_is_told_each_call_with_its_own_arguments(stream: bytes) -> None:
    open_: dict[int, dict[str, Any]] = {}
    calls = []
    for event in events(crossed(stream, ANTHROPIC)):
        match event["type"]:
            case "content_block_start":
                open_[event["index"]] = {**event["content_block"], "said": ""}
            case "content_block_delta":
                open_[event["index"]]["said"] += event["delta"].get("partial_json", "")  # of a block that is open, or a KeyError
            case "content_block_stop":
                block = open_.pop(event["index"])
                if block["type"] == "tool_use":
                    calls.append((block["id"], block["name"], json.loads(block["said"])))
    assert calls == BOTH


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_client_of_responses_is_told_each_call_with_its_own_arguments(stream: bytes) -> None:
    output = events(crossed(stream, RESPONSES))[-1]["response"]["output"]
    calls = [item for item in output if item["type"] == "function_call"]
    assert [(one["call_id"], one["name"], json.loads(one["arguments"])) for one in calls] == BOTH


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_nothing_more_is_told_of_a_part_that_ended(stream: bytes) -> None:
    ended = set()
    for event in OPENAI.stream_reader().feed(stream):
        match event:
            case PartEnd():
                ended.add(event.index)
            case PartStart() | Delta():
                assert event.index not in ended
            case _:
                pass


def test_calls_that_come_one_after_another_are_told_as_they_come() -> None:
    reader = OPENAI.stream_reader()
    reader.feed(call(0, '{"a":1}', name="first", called="A"))
    told = reader.feed(call(1, '{"b":', name="second", called="B"))
    assert [type(event) for event in told] == [PartEnd, PartStart, Delta]


def test_a_call_without_arguments_is_told_at_the_end_with_those_behind_it() -> None:
    reader = OPENAI.stream_reader()
    told = reader.feed(call(0, "", name="first", called="A") + call(1, '{"b":2}', name="second", called="B") + call(2, "", name="third", called="C"))
    told += reader.feed(chunk({"content": "so much"}) + END)
    parts = [event for event in told if isinstance(event, PartStart)]
    assert [part.name or part.kind for part in parts] == ["first", "second", "third", "text"]
    assert [part.index for part in parts] == [0, 1, 2, 3]
    assert sum(isinstance(event, PartEnd) for event in told) == 4


def test_a_seal_waits_with_its_call() -> None:
    sealed = {"index": 1, "id": "B", "function": {"name": "second", "arguments": '{"b":2}'}, "extra_content": {"google": {"thought_signature": "s"}}}
    told = crossed(call(0, '{"a":', name="first", called="A") + chunk({"tool_calls": [sealed]}) + call(0, "1}") + END, RESPONSES)
    kinds = [item["type"] for item in events(told)[-1]["response"]["output"]]
    assert kinds == ["function_call", "function_call", "reasoning"]


def test_arguments_in_many_pieces_beside_another_call_are_read_a_few_times_only() -> None:
    """Each piece looks like an end: read again from the beginning, 20,000 of them would hold the loop for minutes."""
    pieces = 20_000
    stream = call(0, '{"a":["', name="first", called="A") + call(1, '{"b":2}', name="second", called="B")
    reader, began = OPENAI.stream_reader(), time.perf_counter()
    for piece in (stream, *[call(0, 'word word word","')] * pieces, call(0, '"]}'), END):
        told = [event for event in reader.feed(piece) if isinstance(event, PartStart)]
    assert [event.name for event in told] == ["second"]
    assert time.perf_counter() - began < 4.0
