"""What we write is what the official SDKs' own types take: every recorded reply, crossed, and streams of them."""

from __future__ import annotations

import json

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from formats.sampling import each
from formats.shapes import CALL, GEMINI, NOW, SHAPES, recorded, shape_of
from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.crossing import Crossing

REPLIES = {"openai_chat": TypeAdapter(ChatCompletion), "anthropic_messages": TypeAdapter(Message), "gemini": TypeAdapter(GenerateContentResponse)}
EVENTS = {
    "openai_chat": TypeAdapter(ChatCompletionChunk),
    "anthropic_messages": TypeAdapter(RawMessageStreamEvent),
    "gemini": TypeAdapter(GenerateContentResponse),
}
PLAIN = [one for one in recorded(streaming=False) if one.status < 400 and b"blockReason" not in one.body]
STREAMS = [one for one in recorded(streaming=True) if one.status < 400]
# Only a beta of Anthropic's has these blocks; the stable SDK types do not know them.
BETA = (b'"mcp_tool', b'"compaction', b'"advisor')
BETA += (b'"finish_reason":"error"',)  # nor, for OpenAI's, the word that routers have for a model's failure


@each(PLAIN, one_in=3)
def test_replies(interaction):
    shape = shape_of(interaction)
    reply = shape.read_reply(interaction.body)
    for writer in (*SHAPES.values(), GEMINI):
        if (writer.name, reply.finish) == ("anthropic_messages", "error"):
            continue  # it has no word for a model's failure, and tells an error
        told = writer.write_reply(reply, CALL, NOW).body
        if not any(mark in told for mark in BETA):
            REPLIES[writer.name].validate_json(told, strict=False)


@each(STREAMS, one_in=3)
def test_streams(interaction):
    shape = shape_of(interaction)
    for writer in (*SHAPES.values(), GEMINI):
        crossing = Crossing(shape.stream_reader(), writer.stream_writer(CALL, NOW))
        told = crossing.feed(interaction.body) + crossing.close()
        if crossing.failed is None:
            told += crossing.tail(0.5)
        for event in sse.split(told):
            data = sse.payload(event)
            if data != b"[DONE]" and not any(mark in data for mark in BETA):
                EVENTS[writer.name].validate_json(data)
    assert json.loads(told.split(b"data: ")[1].split(b"\n")[0])


@pytest.mark.parametrize("kind", Kind)
def test_errors(kind):
    fault = Fault(kind, "What happened.", param="messages[0]", retry_after=1.5)
    told = SHAPES["chat_completions"].write_error(fault, "req_1")
    assert json.loads(told.body)["error"].keys() == {"message", "type", "param", "code"}
    assert dict(told.headers)[b"retry-after"] == b"2"
    assert dict(told.headers)[b"retry-after-ms"] == b"1500"
    told = SHAPES["messages"].write_error(fault, "req_1")
    error = json.loads(told.body)
    assert (error["type"], error["request_id"]) == ("error", "req_1")
    assert "What happened." in error["error"]["message"]
    told = GEMINI.write_error(fault, "req_1")
    error = json.loads(told.body)["error"]
    assert error.keys() == {"code", "message", "status"}
    assert (error["code"], error["message"]) == (told.status, "messages[0]: What happened.")
