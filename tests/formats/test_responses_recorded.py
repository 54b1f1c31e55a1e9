"""Every recorded interaction of the Responses API, through every view of it: they must agree."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from formats.sampling import EVERY_CUT, each
from formats.shapes import CALL, GEMINI, MODELS, NOW, SHAPES, asked
from formats.test_recorded import BY_STATUS, near, spoken, texts
from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Reasoning, Refusal, Text, ToolCall
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.openai_responses import OpenAIResponses, sealed_reply
from replay.recordings import Interaction, Recordings, load

RESPONSES = OpenAIResponses()
RESPONSE, EVENT = TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)
OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
OTHERS = (OPENAI, ANTHROPIC, GEMINI)
# A stream and a reply that report an error of the upstream's under status 200.
FAILED = {"openai-responses-stream-2d29dc3c77", "bedrock-responses-plain-c1f9290cd6"}
# Two streams in one recording: what follows the first's end is not passed.
TWICE = {"azure-responses-stream-af237cc40e", "openrouter-responses-stream-f67d9abcc6"}
# Items of xAI's that OpenAI's own types do not describe; they pass as they came.
ODD = {"xai-responses-plain-cd7dfcd849", "xai-responses-stream-e41f5eb484"}
# What cannot cross: its beginning is stored at the provider, or there is nothing in it to answer.
STORED = ("previous_response_id", "prompt", "conversation")


def recorded(**wanted: object) -> list[Interaction]:
    try:
        return list(load().select(api="responses", **wanted))
    except FileNotFoundError:
        return list(Recordings(()).select())


PLAIN = [one for one in recorded(streaming=False) if one.status < 400]
ANSWERED = [one for one in PLAIN if one.id not in FAILED]
STREAMS = [one for one in recorded(streaming=True) if one.status < 400]
WHOLE = [one for one in STREAMS if one.id not in FAILED]
ERRORS = [one for one in recorded() if one.status >= 400]
ASKED = [one for one in recorded() if isinstance(one.request, dict) and "model" in one.request]
SELF_CONTAINED = [one for one in ASKED if not any(one.request.get(name) for name in STORED)]
EXPECTED = {
    "azure-responses-plain-d35e6142a0": "CONTENT_FILTER",
    "openai-responses-plain-306002f3c1": "UPSTREAM_NO_MODEL",
    "openai-responses-plain-3f63dac98a": "UPSTREAM_QUOTA",
    "openai-responses-plain-9273eb53e1": "UPSTREAM_NO_MODEL",
    "openai-responses-plain-92e147ccd3": "UPSTREAM_NO_MODEL",
    "openai-responses-plain-f9fb359e10": "UPSTREAM_NO_MODEL",
    "xai-responses-plain-dc79574e6e": "UPSTREAM_AUTH",
}


def says(item: dict[str, Any]) -> bool:
    content = [one.get("text") or one.get("refusal") for one in item.get("content") or ()]
    return bool(item.get("summary") or any(content) or item.get("encrypted_content"))


def body_of(interaction: Interaction) -> bytes:
    return json.dumps(interaction.request).encode()


def items(body: bytes) -> list[dict[str, Any]]:
    return json.loads(body)["output"]


# -- requests ---------------------------------------------------------------------------------------------------------


@each(ASKED)
def test_a_request_goes_through_untouched_but_for_the_model(interaction):
    peek = RESPONSES.peek(body_of(interaction))
    sent = RESPONSES.forward(peek, "other")
    assert json.loads(sent.body) == {**interaction.request, "model": "other"}
    assert sent.path == "/responses"


@each(SELF_CONTAINED)
def test_a_request_says_the_same_again_in_its_own_shape(interaction):
    call = RESPONSES.read_request(RESPONSES.peek(body_of(interaction)))
    told = RESPONSES.read_request(RESPONSES.peek(RESPONSES.write_request(call, call.model).body))
    assert spoken(told) == spoken(call)
    assert told.tools == call.tools or [tool.name for tool in told.tools] == [tool.name for tool in call.tools]
    assert (told.max_tokens, told.output, told.stream) == (call.max_tokens, call.output, call.stream)
    assert [len(one.parts) for one in told.messages if one.role != "assistant"] == [
        len(one.parts) for one in call.messages if one.role != "assistant"
    ]


@each(SELF_CONTAINED)
def test_a_request_crosses_or_is_refused_by_name(interaction):
    call = RESPONSES.read_request(RESPONSES.peek(body_of(interaction)))
    for target in OTHERS:
        try:
            crossed = target.write_request(call, MODELS[target.name])
        except Fault as fault:
            assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
            continue
        peek = target.peek(crossed.body, "m") if target is GEMINI else target.peek(crossed.body)
        told = target.read_request(peek)
        assert spoken(call) <= spoken(told)
        assert calls(told) == calls(call)
        assert len(told.tools) == len(call.tools) or call.tool_choice is not None


def calls(call):
    parts = [part for message in call.messages for part in message.parts if isinstance(part, ToolCall)]
    return [(part.name, json.loads(part.arguments or "{}")) for part in parts]


@each([one for one in ASKED if one not in SELF_CONTAINED])
def test_what_is_stored_elsewhere_is_refused_by_its_name(interaction):
    with pytest.raises(Fault) as caught:
        RESPONSES.read_request(RESPONSES.peek(body_of(interaction)))
    assert caught.value.kind is Kind.INVALID
    assert caught.value.param in STORED
    assert "'input'" in caught.value.message


# -- replies ----------------------------------------------------------------------------------------------------------


@each(ANSWERED)
def test_a_reply_is_summarised_and_read_alike(interaction):
    summary, reply = RESPONSES.summarise(interaction.body), RESPONSES.read_reply(interaction.body)
    told = json.loads(interaction.body)
    assert summary.fault is None
    assert reply.usage == summary.usage
    assert summary.usage is not None
    assert (summary.usage.input, summary.usage.output) == (
        told["usage"]["input_tokens"],
        told["usage"]["output_tokens"],
    )
    assert summary.finish == ((told.get("incomplete_details") or {}).get("reason") or told.get("status"))
    assert reply.id == told["id"]


@each([one for one in PLAIN if one.id in FAILED])
def test_a_failed_reply_is_a_fault(interaction):
    summary = RESPONSES.summarise(interaction.body)
    assert summary.fault is not None
    assert summary.fault.kind is Kind.UPSTREAM_ERROR
    with pytest.raises(Fault):
        RESPONSES.read_reply(interaction.body)


@each(ANSWERED)
def test_a_reply_survives_the_typed_middle(interaction):
    reply = RESPONSES.read_reply(interaction.body)
    written = RESPONSES.write_reply(reply, CALL, NOW)
    again = RESPONSES.read_reply(written.body)
    assert written.dropped == ()
    assert again.choices == reply.choices
    assert again.usage == reply.usage
    kept = [one for one in items(interaction.body) if one["type"] not in {"reasoning", "message"} or says(one)]
    assert [one["type"] for one in items(written.body)] == [one["type"] for one in kept]
    if interaction.id not in ODD:
        RESPONSE.validate_json(written.body)


@each(ANSWERED)
def test_a_reply_keeps_its_words_in_every_other_shape(interaction):
    reply = RESPONSES.read_reply(interaction.body)
    for target in OTHERS:
        crossed = target.read_reply(target.write_reply(reply, CALL, NOW).body)
        assert said(crossed.choices[0].parts) == said(reply.choices[0].parts)
        assert crossed.usage is not None
        assert reply.usage is not None
        assert (crossed.usage.input, crossed.usage.output) == (reply.usage.input, reply.usage.output)


def said(parts):
    """Words, thoughts shown, and calls with what they hold; a custom tool's text is an object's member elsewhere."""
    text = "".join(part.text for part in parts if isinstance(part, Text | Refusal))
    thoughts = "".join(part.text or "".join(part.summary) for part in parts if isinstance(part, Reasoning))
    told = [(part.name, arguments(part)) for part in parts if isinstance(part, ToolCall)]
    return text, "".join(thoughts.split()), told


def arguments(call):
    try:
        told = json.loads(call.arguments or "{}")
    except ValueError:
        return call.arguments
    return told.get("input", told) if isinstance(told, dict) else told


@each(PLAIN)
def test_a_sealed_reply_differs_in_its_id_only(interaction):
    told = json.loads(sealed_reply(interaction.body, lambda name: f"sealed-{name}"))
    meant = json.loads(interaction.body)
    assert told["id"] == f"sealed-{meant['id']}"
    if meant.get("previous_response_id"):
        assert told.pop("previous_response_id") == f"sealed-{meant.pop('previous_response_id')}"
    assert told == {**meant, "id": told["id"]}


# -- streams ----------------------------------------------------------------------------------------------------------


@each(STREAMS)
def test_a_stream_is_spliced_and_read_alike(interaction):
    splice = RESPONSES.splice(asked())
    passed = splice.feed(interaction.body) + splice.close()
    failed = interaction.id in FAILED
    assert (splice.ended, splice.failed is not None) == (not failed, failed)
    if not failed:
        passed += splice.tail(None)
        assert passed == interaction.body or (interaction.id in TWICE and interaction.body.startswith(passed))
    for writer in (RESPONSES, *OTHERS):
        crossing = Crossing(RESPONSES.stream_reader(), writer.stream_writer(CALL, NOW))
        crossing.feed(interaction.body)
        crossing.close()
        assert (crossing.ended, crossing.failed is not None) == (splice.ended, splice.failed is not None)
        assert (crossing.usage, crossing.meaningful) == (splice.usage, splice.meaningful)
        assert near(splice.characters, crossing.characters + typed(interaction.body))


def typed(body):
    """Characters of code and commands, which only this shape streams."""
    shown = ("code_interpreter_call_code.delta", "shell_call_command.delta", "mcp_call_arguments.delta")
    events = (json.loads(sse.payload(one)) for one in sse.split(body) if any(word.encode() in one for word in shown))
    return sum(len(one["delta"]) for one in events if one["type"].endswith(shown))


@each(WHOLE)
def test_a_stream_says_what_its_last_event_says(interaction):
    reader = RESPONSES.stream_reader()
    body = interaction.body
    crossing = Crossing(reader, RESPONSES.stream_writer(CALL, NOW))
    told = crossing.feed(body) + crossing.close() + crossing.tail(0.5)
    meant = RESPONSES.read_reply(ending(body))
    again = RESPONSES.read_reply(ending(told))
    assert said(again.choices[0].parts) == said(meant.choices[0].parts)
    assert again.choices[0].finish == meant.choices[0].finish
    assert again.usage is not None
    assert (again.usage.cost, again.usage.input) == (0.5, meant.usage and meant.usage.input)
    assert texts(RESPONSES, told) == texts(RESPONSES, body)


def ending(body):
    """The response in the event that ends a stream."""
    events = [sse.payload(one) for one in sse.split(body)]
    told = [json.loads(one) for one in events if one.startswith(b"{")]
    ends = [one for one in told if one["type"] in {"response.completed", "response.incomplete"}]
    return json.dumps(ends[0]["response"]).encode()


@each(WHOLE)
def test_a_stream_says_the_same_after_crossing(interaction):
    for target in OTHERS:
        there = Crossing(RESPONSES.stream_reader(), target.stream_writer(CALL, NOW))
        crossed = there.feed(interaction.body) + there.close() + there.tail(None)
        told, meant = texts(target, crossed), texts(RESPONSES, interaction.body)
        told_calls, meant_calls = told.pop("tool", ""), meant.pop("tool", "")
        assert told == {name: value for name, value in meant.items() if name != "opaque"}
        other = b"custom_tool_call_input" in interaction.body or b"response.incomplete" in interaction.body
        assert other or "".join(told_calls.split()) == "".join(meant_calls.split())


@each([one for one in STREAMS if one.id not in ODD])
def test_what_is_written_is_what_the_sdk_takes(interaction):
    crossing = Crossing(RESPONSES.stream_reader(), RESPONSES.stream_writer(CALL, NOW))
    told = crossing.feed(interaction.body) + crossing.close()
    told += crossing.tail(0.5) if crossing.failed is None else crossing.fail(crossing.failed)
    events = [json.loads(sse.payload(one)) for one in sse.split(told)]
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in {"response.completed", "response.incomplete", "response.failed"}
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


@each(STREAMS)
def test_a_stream_that_stops_before_its_end_fails(interaction):
    events = list(sse.split(interaction.body))
    for kept in {1, len(events) // 2, len(events) - 1} if len(events) > 4 else {1}:
        passage = RESPONSES.splice(asked())
        crossing = Crossing(RESPONSES.stream_reader(), OPENAI.stream_writer(CALL, NOW))
        for one in (passage, crossing):
            one.feed(b"".join(events[:kept]))
            one.close()
            if interaction.id not in TWICE and interaction.id not in FAILED:
                assert one.failed is not None
                assert (one.failed.kind, one.ended) == (Kind.UPSTREAM_CUT, False)


def outcome(passage, pieces):
    passed = [passage.feed(piece) for piece in pieces]
    passed.append(passage.close())
    fault = passage.failed and (passage.failed.kind, passage.failed.message)
    passed.append(b"" if fault else passage.tail(0.125))
    return b"".join(passed), passage.usage, passage.finish, passage.meaningful, passage.characters, fault


@each(STREAMS)
def test_however_it_is_cut(interaction):
    """At every byte for streams under 8 KiB (by `make replay`; at every ninth by `make test`), at a sample of places for longer
    ones."""
    body = interaction.body

    def passages():
        sealed = RESPONSES.splice(asked())
        sealed.seal = "sealed-{}".format
        return (
            RESPONSES.splice(asked()),
            sealed,
            Crossing(RESPONSES.stream_reader(), ANTHROPIC.stream_writer(CALL, NOW)),
        )

    whole = [outcome(passage, [body]) for passage in passages()]
    dice = random.Random(interaction.id)
    stride = 1 if EVERY_CUT else 9
    places = range(1 + dice.randrange(stride), len(body), stride) if len(body) < 8192 else dice.sample(range(1, len(body)), 8)
    for at in places:
        assert [outcome(passage, [body[:at], body[at:]]) for passage in passages()] == whole, at
    short = body[:6000]
    whole = [outcome(passage, [short]) for passage in passages()]
    pieces = [short[at : at + 7] for at in range(0, len(short), 7)]
    assert [outcome(passage, pieces) for passage in passages()] == whole


@each(WHOLE)
def test_a_sealed_stream_differs_in_its_ids_only(interaction):
    splice = RESPONSES.splice(asked())
    splice.seal = "sealed-{}".format
    told = splice.feed(interaction.body) + splice.close() + splice.tail(None)
    meant = list(sse.split(interaction.body))
    for one, other in zip(sse.split(told), meant, strict=interaction.id not in TWICE):
        if b'"response":' not in other:
            assert one == other
            continue
        sealed, plain = json.loads(sse.payload(one)), json.loads(sse.payload(other))
        assert sealed["response"].pop("id") == f"sealed-{plain['response'].pop('id')}"
        if plain["response"].get("previous_response_id"):
            earlier = plain["response"].pop("previous_response_id")
            assert sealed["response"].pop("previous_response_id") == f"sealed-{earlier}"
        assert sealed == plain


# -- errors -----------------------------------------------------------------------------------------------------------


@each(ERRORS)
def test_an_error_becomes_a_fault_that_says_no_secret(interaction):
    fault = RESPONSES.read_error(interaction.status, interaction.body)
    assert fault.kind.name == EXPECTED.get(interaction.id, BY_STATUS[interaction.status])
    assert fault.message
    if fault.kind is Kind.UPSTREAM_AUTH:
        assert "key" not in fault.message
        assert fault.body is None
    for writer in (RESPONSES, *OTHERS):
        told = writer.write_error(fault, "req_1")
        assert told.status >= 400
        assert json.loads(told.body)["error"]
