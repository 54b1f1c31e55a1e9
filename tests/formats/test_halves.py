"""Replies in which an emoji was cut in two, as services that count text in UTF-16 units write it: no reply is lost over it."""

from __future__ import annotations

import json

import pytest

from formats.shapes import CALL, NOW, SHAPES
from llm_gateway.formats import _halves
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, ANTHROPIC, RESPONSES = SHAPES["chat_completions"], SHAPES["messages"], OpenAIResponses()
ALL = [OPENAI, ANTHROPIC, RESPONSES]
FIRST, SECOND = r"so \ud83d", r"\ude00 well"


def sse(*data: str) -> bytes:
    return "".join(f"event: {json.loads(one)['type']}\ndata: {one}\n\n" if '"type"' in one else f"data: {one}\n\n" for one in data).encode()


CHUNK = '{"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":%s}]}'
BLOCK = '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%s"}}'
WORDS = '{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"%s"}'
ITEM = '{"type":"message","id":"i","content":[{"type":"output_text","text":"%s"}]}'
STREAMS = {
    OPENAI: sse(CHUNK % (FIRST, "null"), CHUNK % (SECOND, '"stop"'), "[DONE]"),
    ANTHROPIC: sse(
        '{"type":"message_start","message":{"id":"m","model":"m"}}', '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        BLOCK % FIRST, BLOCK % SECOND, '{"type":"content_block_stop","index":0}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}', '{"type":"message_stop"}',
    ),
    RESPONSES: sse(
        '{"type":"response.created","response":{"id":"r","model":"m","output":[]}}',
        '{"type":"response.output_item.added","output_index":0,"item":{"type":"message","content":[]}}',
        WORDS % FIRST, WORDS % SECOND, '{"type":"response.output_item.done","output_index":0,"item":%s}' % (ITEM % r"so \ud83d"),
        '{"type":"response.completed","response":{"id":"r","status":"completed","usage":{"output_tokens":3},"output":[%s]}}' % (ITEM % r"so \ud83d"),
    ),
}  # fmt: skip
REPLIES = {
    OPENAI: '{"id":"c","model":"m","choices":[{"index":0,"message":{"content":"%s"},"finish_reason":"stop"}]}',
    ANTHROPIC: '{"type":"message","id":"m","model":"m","content":[{"type":"text","text":"%s"}],"stop_reason":"end_turn"}',
    RESPONSES: '{"object":"response","id":"r","model":"m","status":"completed","output":[' + ITEM + "]}",
}


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_a_stream_with_half_a_character_goes_through_as_it_came(shape) -> None:
    passage = shape.splice(OPENAI.peek(b'{"model":"m","messages":[1],"stream":true}'))
    told = passage.feed(STREAMS[shape])
    assert passage.ended, passage
    assert told + passage.tail(None) == STREAMS[shape]
    assert passage.characters > len("so well")


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
@pytest.mark.parametrize("target", ALL, ids=lambda shape: shape.name)
def test_a_stream_with_half_a_character_crosses(shape, target) -> None:
    crossing = Crossing(shape.stream_reader(), target.stream_writer(CALL, NOW))
    told = crossing.feed(STREAMS[shape])
    assert crossing.ended, crossing
    assert "so \ufffd".encode() in told
    assert "\ufffd well".encode() in told


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_a_reply_with_half_a_character_is_one(shape) -> None:
    body = (REPLIES[shape] % r"so \uD83D").encode()
    assert shape.summarise(body).finish is not None
    assert shape.read_reply(body).choices[0].parts[0].text == "so \ufffd"


def test_ids_are_sealed_where_half_a_character_stands_beside_them() -> None:
    passage = RESPONSES.splice(OPENAI.peek(b'{"model":"m","messages":[1],"stream":true}'))
    passage.seal = lambda name: f"sealed_{name}"
    told = passage.feed(STREAMS[RESPONSES]) + passage.tail(0.5)
    assert b'"id":"r"' not in told
    assert told.count(b"sealed_r") == 2
    assert b'"cost":0.5' in told


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (r"\ud83d\ude00", None), (r"\uD83D\uDE00", None), (r"\\ud83d", None), (r"\"\\\\", None), (r"\u00e9\ufffd", None), ("plain", None),
        (r"\ud83d", r"\ufffd"), (r"\ude00", r"\ufffd"), (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"), (r"\ude00\ud83d", r"\ufffd\ufffd"),
        (r"\\\ud83dx", r"\\\ufffdx"), (r"\ud83d\n", r"\ufffd\n"),
    ],
)  # fmt: skip
def test_only_halves_are_replaced(text: str, left: str | None) -> None:
    assert _halves.replaced(text.encode()) == (left or text).encode()
    json.loads(f'"{_halves.replaced(text.encode()).decode()}"').encode()
