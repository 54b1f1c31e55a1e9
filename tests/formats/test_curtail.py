"""Streams that are ended by us, at any place: what the client then has is a whole reply of its shape that became as long as it may."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from formats import bedrock
from llm_gateway import wiring
from llm_gateway.core import sse
from llm_gateway.core.events import Delta, End, Event, Failed, Finish, PartEnd, PartStart, Start, UsageUpdate
from llm_gateway.core.types import Conversation, Usage
from llm_gateway.formats.contract import Passage, Peek, StreamReader
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.marks import Marked, field
from llm_gateway.formats.openai_responses.shape import OpenAIResponses
from llm_gateway.formats.openai_responses.watch import SealedPassage
from llm_gateway.formats.unframed import Unframed

FORMATS = wiring.formats()
SHAPES = (
    "openai_chat", "openai_completions", "openai_responses", "anthropic_messages", "gemini", "gemini_array", "bedrock_converse",
    "ollama_chat", "ollama_generate",
)  # fmt: skip
CALL = Conversation(model="m", messages=(), stream_usage=True)
USAGE = Usage(input=11, output=7, estimated=True)
TEXT: list[Event] = [Start("id-1", "m-1", 1_700_000_000), PartStart(0, "text"), Delta(0, "one "), Delta(0, "two ")]
CALLING: list[Event] = [*TEXT, PartEnd(0), PartStart(1, "tool", id="call_1", name="look"), Delta(1, '{"pla'), Delta(1, 'ce":"')]
THINKING: list[Event] = [TEXT[0], PartStart(0, "reasoning"), Delta(0, "hm "), Delta(0, "hm ")]
PLACES = {"text": TEXT, "call": CALLING, "thought": THINKING}
WORDS = {
    "openai_responses": "max_output_tokens", "anthropic_messages": "max_tokens", "gemini": "MAX_TOKENS", "gemini_array": "MAX_TOKENS",
    "bedrock_converse": "max_tokens",
}  # fmt: skip
each = pytest.mark.parametrize("shape", SHAPES)


def begun(shape: str, events: list[Event]) -> list[bytes]:
    """As an upstream of that shape would send them; Gemini's always as server-sent events."""
    name = "gemini" if shape == "gemini_array" else shape
    writer = FORMATS[name].stream_writer(CALL, 1_700_000_000)
    return [piece for event in events if (piece := writer.write(event))]


def followed(passage: Passage, pieces: list[bytes]) -> bytes:
    passage.follow()
    return b"".join(passage.feed(piece) for piece in pieces)


def read(shape: str, body: bytes) -> list[Event]:
    reader: StreamReader
    if shape == "gemini_array":
        body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in json.loads(body))
        shape = "gemini"
    reader = FORMATS[shape].stream_reader()
    return reader.feed(body) + reader.close()


def whole(shape: str, body: bytes) -> list[Event]:
    """The reply's events; it became as long as it may, and says what it used."""
    events = read(shape, body)
    assert not [event for event in events if isinstance(event, Failed)], events
    assert [event.finish for event in events if isinstance(event, Finish)] == ["length"]
    assert sum(isinstance(event, PartStart) for event in events) == sum(isinstance(event, PartEnd) for event in events)
    assert [(event.usage.input, event.usage.output) for event in events if isinstance(event, UsageUpdate)][-1] == (11, 7)
    assert isinstance(events[-1], End)
    return events


def said(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@each
@pytest.mark.parametrize("place", PLACES)
def test_a_spliced_stream_ends_as_one_that_became_too_long(shape: str, place: str) -> None:
    passage = FORMATS[shape].splice(Peek({}, "m", True, True))
    passed = followed(passage, begun(shape, PLACES[place]))
    if not passed:
        pytest.skip("there is nothing of this in this shape before it is over")
    assert passage.curtail(USAGE)
    assert (passage.ended, passage.failed, passage.usage, passage.finish) == (True, None, USAGE, WORDS.get(shape, "length"))
    assert passage.feed(begun(shape, TEXT)[-1]) == b""
    assert said(whole(shape, passed + passage.tail(None))) in said(PLACES[place])
    assert not passage.curtail(USAGE)


@each
@pytest.mark.parametrize("place", PLACES)
def test_a_crossed_stream_ends_as_one_that_became_too_long(shape: str, place: str) -> None:
    for spoken in ("openai_chat", "anthropic_messages"):
        passage = Crossing(FORMATS[spoken].stream_reader(), FORMATS[shape].stream_writer(CALL, 1))
        passed = followed(passage, begun(spoken, PLACES[place]))
        assert passage.curtail(USAGE)
        assert (passage.ended, passage.usage, passage.finish) == (True, USAGE, "length")
        assert passage.feed(begun(spoken, TEXT)[-1]) == b""
        events = whole(shape, passed + passage.tail(0.25))
        # A half call, in shapes that have only whole ones, is told as it is of one that the upstream itself broke off.
        assert said(events) in said(PLACES[place]) or "invalid_json" in said(events)
        assert place != "text" or said(events) == "one two "
        assert not passage.curtail(USAGE)


@each
def test_nothing_is_ended_that_has_not_begun_or_that_nobody_follows(shape: str) -> None:
    passage = FORMATS[shape].splice(Peek({}, "m", True, True))
    passage.follow()
    assert not passage.curtail(USAGE) or shape == "bedrock_converse"  # which has no envelope to know
    crossing = Crossing(FORMATS["openai_chat"].stream_reader(), FORMATS[shape].stream_writer(CALL, 1))
    crossing.feed(b"".join(begun("openai_chat", TEXT)))
    assert not crossing.curtail(USAGE)
    assert not crossing.ended


def test_an_end_that_the_upstream_has_told_stays_its_own() -> None:
    for shape in ("openai_chat", "anthropic_messages", "gemini", "bedrock_converse"):
        passage = FORMATS[shape].splice(Peek({}, "m", True, True))
        writer = FORMATS[shape].stream_writer(CALL, 1)
        pieces = [*(writer.write(event) for event in [*TEXT, PartEnd(0), Finish("stop"), UsageUpdate(Usage(input=1, output=2))]), writer.tail(None)]
        passage.follow()
        # All but the very end: `[DONE]`, `message_stop`, the close of the body, the metadata.
        last = pieces[-1]
        cut = len(last) if shape == "gemini" else last[:-2].rfind(b"\n\n") + 2 if shape != "bedrock_converse" else int.from_bytes(last[:4])
        passage.feed(b"".join(pieces[:-1]) + last[:cut])
        assert passage.finish in {"stop", "end_turn", "STOP"}
        assert not passage.curtail(USAGE), shape


def test_every_choice_that_is_open_is_ended() -> None:
    chunk = b'data: {"id":"c","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":%d,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
    passage = FORMATS["openai_chat"].splice(Peek({}, "m", True, False))
    followed(passage, [chunk % (0, b"null"), chunk % (1, b"null"), chunk % (2, b"null"), chunk % (1, b'"stop"')])
    assert passage.curtail(USAGE)
    *ends, done = [sse.payload(event) for event in sse.split(passage.tail(None))]
    told = [json.loads(end) for end in ends]
    assert [(one["choices"][0]["index"], one["choices"][0]["finish_reason"]) for one in told] == [(0, "length"), (2, "length")]
    assert all((one["id"], one["created"], one["model"], "usage" in one) == ("c", 5, "m", False) for one in told)
    assert done == b"[DONE]"
    gemini = FORMATS["gemini"].splice(Peek({}, "m", True, True))
    followed(gemini, [b'data: {"candidates":[{"index":1,"content":{"parts":[{"text":"x"}]}}],"modelVersion":"g","responseId":"r"}\r\n\r\n'])
    gemini.curtail(USAGE)
    last = json.loads(sse.payload(gemini.tail(None)))
    assert [one["finishReason"] for one in last["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert (last["modelVersion"], last["responseId"]) == ("g", "r")


def test_the_cost_stands_where_it_does_in_other_streams() -> None:
    for shape, name in (("openai_chat", '"cost":0.25'), ("anthropic_messages", '"cost":0.25'), ("openai_responses", '"cost":0.25')):
        passage = FORMATS[shape].splice(Peek({}, "m", True, True))
        followed(passage, begun(shape, TEXT))
        passage.curtail(USAGE)
        assert name in passage.tail(0.25).decode().replace(" ", "")


def test_a_response_holds_all_that_was_said_and_is_incomplete() -> None:
    shape = OpenAIResponses()
    passage = shape.splice(Peek({}, "m", True, True))
    assert isinstance(passage, SealedPassage)
    passage.seal = lambda name: f"sealed-{name}"
    passed = followed(passage, begun("openai_responses", CALLING))
    passage.curtail(USAGE)
    events = [json.loads(sse.payload(event)) for event in sse.split(passed + passage.tail(None))]
    read = TypeAdapter[Any](ResponseStreamEvent)
    for event in events:
        read.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    assert (events[-1]["type"], last["status"], last["incomplete_details"]) == ("response.incomplete", "incomplete", {"reason": "max_output_tokens"})
    assert last["id"].startswith("sealed-")
    message, call = last["output"]
    assert (message["status"], message["content"][0]["text"]) == ("completed", "one two ")
    assert (call["status"], call["arguments"]) == ("incomplete", '{"place":"')
    assert last["usage"]["output_tokens"] == 7


def test_an_open_message_of_a_response_keeps_its_words() -> None:
    passage = FORMATS["openai_responses"].splice(Peek({}, "m", True, True))
    followed(passage, begun("openai_responses", TEXT))
    passage.curtail(USAGE)
    events = [json.loads(sse.payload(event)) for event in sse.split(passage.tail(None))]
    kinds = ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.incomplete"]
    assert [event["type"] for event in events] == kinds
    assert (events[0]["text"], events[2]["item"]["status"], events[3]["response"]["output"][0]["content"][0]["text"]) == ("one two ", "incomplete", "one two ")


def test_botocore_reads_the_end() -> None:
    passage = FORMATS["bedrock_converse"].splice(Peek({}, "m", True, True))
    passed = followed(passage, begun("bedrock_converse", TEXT))
    passage.curtail(USAGE)
    events, fault = bedrock.by_boto(passed + passage.tail(None))
    assert fault is None
    assert [next(iter(event)) for event in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]
    assert (events[-2]["messageStop"]["stopReason"], events[-1]["metadata"]["usage"]["outputTokens"]) == ("max_tokens", 7)


def test_what_stands_around_a_passage_passes_it_on() -> None:
    inner = FORMATS["anthropic_messages"].splice(Peek({}, "m", True, True))
    passage = Unframed(Marked(inner, field("signature"), b"MARK"))
    passage.follow()
    inner.feed(b"".join(begun("anthropic_messages", TEXT)))
    assert passage.curtail(USAGE)
    assert passage.ended
    assert b'"stop_reason":"max_tokens"' in passage.tail(None)


def test_in_the_midst_of_a_long_event_nothing_can_be_ended_and_afterwards_it_can() -> None:
    passage = FORMATS["openai_chat"].splice(Peek({}, "m", True, True))
    followed(passage, begun("openai_chat", TEXT))
    passage.feed(b'data: {"choices":[{"index":0,"delta":{"images":["' + b"A" * 70_000)
    assert not passage.between
    assert not passage.curtail(USAGE)
    passage.feed(b'"]}}]}\n\n')
    assert passage.curtail(USAGE)


def test_sound_has_no_word_for_being_too_short() -> None:
    passage = FORMATS["openai_speech"].splice(Peek({}, "m", True))
    passage.follow()
    passage.feed(b"RIFF")
    assert not passage.curtail(USAGE)
