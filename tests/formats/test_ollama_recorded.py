"""Ollama's recorded traffic, in its own shapes and in others, and theirs in Ollama's."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from functools import cache

import ollama
import pytest

from formats.sampling import each
from formats.shapes import CALL, GEMINI, MODELS, NOW, SHAPES, recorded, request_body, shape_of
from formats.test_bad_input import broken
from formats.test_ollama import ANTHROPIC, ASKED, CHAT, GENERATE, OPENAI, OWN, lines
from formats.test_recorded import REFUSED, near, said, spoken
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, End, Failed, PartStart
from llm_gateway.core.types import ToolCall
from llm_gateway.formats.crossing import Crossing
from replay.recordings import Interaction, Recordings, load

# Ruby's client sent answers to calls that it had left out of what it sent.
ANSWERLESS = {
    "ollama-ollama_chat-plain-ef230dbf06",
    "ollama-ollama_chat-stream-86c41c4cc4",
    "ollama-ollama_chat-stream-9916e44817",
}


@cache
def own_traffic() -> tuple[Interaction, ...]:
    try:
        recordings = load()
    except FileNotFoundError:
        recordings = Recordings(())
    return tuple(one for one in recordings.interactions if one.row["api"] in OWN)


def shape_here(interaction):
    return OWN[interaction.row["api"]]


PLAIN = [one for one in own_traffic() if one.status < 400 and not one.row["streaming"]]
STREAMS = [one for one in own_traffic() if one.status < 400 and one.row["streaming"]]
FOREIGN = [one for one in recorded() if one.status < 400]


def body_of(interaction) -> bytes:
    return json.dumps(interaction.request).encode()


def crossed(reader, writer, body: bytes) -> bytes:
    passage = Crossing(reader.stream_reader(), writer.stream_writer(CALL, NOW))
    told = passage.feed(body) + passage.close()
    assert passage.failed is None
    return told + passage.tail(None)


def texts(shape, body: bytes) -> dict[str, str]:
    """What a stream says, by kind; whatever calls it makes, as one text."""
    reader = shape.stream_reader()
    kinds: dict[int, str] = {}
    found: dict[str, str] = {}
    for event in reader.feed(body) + reader.close():
        if isinstance(event, PartStart) and not event.choice:
            kinds[event.index] = event.kind
            if event.kind == "tool":
                found["called"] = found.get("called", "") + f" {event.name}"
        elif isinstance(event, Delta) and not event.choice:
            kind = {"refusal": "text"}.get(kinds[event.index], kinds[event.index])
            found[kind] = found.get(kind, "") + (event.text if kind != "tool" else "".join(event.text.split()))
    return {kind: text for kind, text in found.items() if kind in {"text", "reasoning", "tool", "called"} and text}


def meaning(found: dict[str, str]) -> str:
    """The calls' arguments, or the input of a custom tool, without what JSON leaves open."""
    return found.get("tool", "").replace("{}", "")


# -- recorded traffic of these shapes ---------------------------------------------------------------------------------


@each(PLAIN)
def test_a_recorded_reply_is_summarised_and_read_alike_and_written_as_it_was(interaction):
    shape = shape_here(interaction)
    summary, reply = shape.summarise(interaction.body), shape.read_reply(interaction.body)
    recorded_reply = json.loads(interaction.body)
    assert summary.fault is None
    assert (summary.finish, summary.usage) == (recorded_reply["done_reason"], reply.usage)
    assert reply.usage is not None
    assert reply.usage.output == recorded_reply["eval_count"] > 0
    assert reply.created > 1_700_000_000
    told = json.loads(shape.write_reply(reply, CALL, NOW).body)
    for call in told.get("message", {}).get("tool_calls", ()):
        call.pop("id") if "id" not in interaction.body.decode() else None
    assert {"prompt_eval_count": 0} | recorded_reply == {"prompt_eval_count": 0} | told


@each(PLAIN)
def test_a_recorded_reply_keeps_its_words_in_other_shapes(interaction):
    reply = shape_here(interaction).read_reply(interaction.body)
    for target in (*SHAPES.values(), GEMINI):
        again = target.read_reply(target.write_reply(reply, CALL, NOW).body)
        assert said(again.choices[0].parts) == said(reply.choices[0].parts)
        assert again.choices[0].finish == reply.choices[0].finish
        assert again.usage is not None
        assert (again.usage.input, again.usage.output) == (reply.usage.input, reply.usage.output)


@each(STREAMS)
def test_a_recorded_stream_passes_untouched_and_is_read_alike(interaction):
    shape = shape_here(interaction)
    splice = shape.splice(ASKED)
    assert splice.feed(interaction.body) + splice.close() + splice.tail(0.5) == interaction.body
    assert (splice.ended, splice.failed, splice.finish, splice.meaningful) == (True, None, "stop", True)
    crossing = Crossing(shape.stream_reader(), OPENAI.stream_writer(CALL, NOW))
    crossing.feed(interaction.body)
    assert (crossing.ended, crossing.usage) == (True, splice.usage)
    assert splice.usage is not None
    assert splice.usage.output == lines(interaction.body)[-1]["eval_count"]
    assert near(splice.characters, crossing.characters)


@each(STREAMS)
def test_a_recorded_stream_says_the_same_in_other_shapes(interaction):
    shape = shape_here(interaction)
    meant = texts(shape, interaction.body)
    assert meant
    for target in (*SHAPES.values(), GEMINI, CHAT):
        assert texts(target, crossed(shape, target, interaction.body)) == meant


@each([min(STREAMS, key=lambda one: len(one.body)), *(one for one in STREAMS if len(one.body) < 6000)] if STREAMS else [])
def test_a_stream_cut_anywhere_is_the_same_stream(interaction):
    shape, body = shape_here(interaction), interaction.body
    whole = shape.stream_reader().feed(body)
    assert isinstance(whole[-1], End)
    for at in range(1, len(body)):
        splice, reader = shape.splice(ASKED), shape.stream_reader()
        assert splice.feed(body[:at]) + splice.feed(body[at:]) + splice.tail(None) == body
        assert (splice.ended, splice.failed) == (True, None)
        assert reader.feed(body[:at]) + reader.feed(body[at:]) == whole


@each(STREAMS)
def test_a_stream_byte_by_byte_is_the_same_stream(interaction):
    shape, body = shape_here(interaction), interaction.body[-20_000:]
    body = body[body.find(b"\n") + 1 :]
    splice, reader = shape.splice(ASKED), shape.stream_reader()
    pieces = [body[at : at + 1] for at in range(len(body))]
    assert b"".join(map(splice.feed, pieces)) + splice.tail(None) == body
    assert [event for piece in pieces for event in reader.feed(piece)] == shape.stream_reader().feed(body)


@each(STREAMS)
def test_a_stream_that_stops_early_fails(interaction):
    shape, body = shape_here(interaction), interaction.body
    short = body[: body[:-1].rfind(b"\n") + 1] if body.count(b"\n") > 1 else body[:40]
    for cut in (short, body[: len(body) // 2]):
        splice, reader = shape.splice(ASKED), shape.stream_reader()
        passed = splice.feed(cut) + splice.close()
        assert body.startswith(passed)
        assert splice.failed is not None
        assert splice.failed.kind in {Kind.UPSTREAM_CUT, Kind.UPSTREAM_BROKEN}
        assert splice.finish is None
        assert isinstance((reader.feed(cut) + reader.close())[-1], Failed)
        assert "error" in json.loads(splice.fail(splice.failed))


@each([one for one in own_traffic() if one.status < 400])
def test_a_recorded_request_goes_through_and_says_the_same_again(interaction):
    shape = shape_here(interaction)
    peek = shape.peek(body_of(interaction))
    assert peek.stream is interaction.row["streaming"]
    sent = shape.forward(peek, "other")
    assert sent.path == {"ollama_chat": "/api/chat", "ollama_generate": "/api/generate"}[shape.name]
    assert json.loads(sent.body) == interaction.request | {"model": "other"}
    if interaction.id in ANSWERLESS:
        with pytest.raises(Fault) as caught:
            shape.read_request(peek)
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "messages[2]")
        return
    call = shape.read_request(peek)
    again = shape.read_request(shape.peek(shape.write_request(call, call.model).body))
    assert [message.parts for message in again.messages] == [message.parts for message in call.messages]
    assert (again.tools, again.stream, again.temperature, again.seed) == (call.tools, call.stream, call.temperature, call.seed)
    for target in (*SHAPES.values(), GEMINI):
        told = target.write_request(call, MODELS[target.name])
        named = target.peek(told.body, "m") if target is GEMINI else target.peek(told.body)
        assert spoken(call) <= spoken(target.read_request(named))


@each([one for one in own_traffic() if one.status >= 400])
def test_a_recorded_error_is_of_its_kind_and_leaves_as_it_came(interaction):
    fault = shape_here(interaction).read_error(interaction.status, interaction.body)
    assert fault.kind is Kind.UPSTREAM_NO_MODEL
    assert "nonexistent-model" in fault.message
    assert json.loads(CHAT.write_error(fault, "req_1").body) == {"error": fault.message}


# -- every other shape's recorded traffic, into Ollama's words ---------------------------------------------------------


@each([one for one in FOREIGN if isinstance(one.request, dict) and one.id not in REFUSED])
def test_another_shapes_recorded_request_crosses_or_is_refused_by_name(interaction):
    shape = shape_of(interaction)
    call = shape.read_request(shape.peek(request_body(interaction) or b""))
    try:
        told = CHAT.write_request(call, "llama3.2")
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return
    peek = CHAT.peek(told.body)
    again = CHAT.read_request(peek)
    assert spoken(call) <= spoken(again)
    assert (again.max_tokens, again.stream, again.stop) == (call.max_tokens, call.stream, call.stop)
    if interaction.id != "vertex-generateContent-plain-d7ce32bd6f":  # its schema has numbers for types, which stay
        ollama._types.ChatRequest.model_validate_json(told.body)


@each([one for one in FOREIGN if not one.row["streaming"] and b"blockReason" not in one.body])
def test_another_shapes_recorded_reply_is_one_to_ollamas_client(interaction):
    reply = shape_of(interaction).read_reply(interaction.body)
    told = CHAT.write_reply(reply, CALL, NOW).body
    ollama.ChatResponse.model_validate_json(told)
    ollama.GenerateResponse.model_validate_json(GENERATE.write_reply(reply, CALL, NOW).body)
    if len(reply.choices) == 1 and not any(isinstance(part, ToolCall) and part.kind == "custom" for part in reply.choices[0].parts):
        text, thoughts, calls = said(CHAT.read_reply(told).choices[0].parts)
        meant = said(reply.choices[0].parts)
        assert (text[: len(meant[0])], thoughts, calls) == meant


@each([one for one in FOREIGN if one.row["streaming"]])
def test_another_shapes_recorded_stream_is_one_to_ollamas_client(interaction):
    shape = shape_of(interaction)
    for target, kind in ((CHAT, ollama.ChatResponse), (GENERATE, ollama.GenerateResponse)):
        passage = Crossing(shape.stream_reader(), target.stream_writer(CALL, NOW))
        told = passage.feed(interaction.body) + passage.close()
        if passage.failed is not None:
            assert "error" in json.loads(passage.fail(passage.failed))
            continue
        told += passage.tail(0.5)
        parsed = [kind.model_validate_json(line) for line in told.splitlines()]
        assert [one.done for one in parsed] == [False] * (len(parsed) - 1) + [True]
        meant, found = texts(shape, interaction.body), texts(target, told)
        assert {**found, "tool": meaning(found)} == {**meant, "tool": meaning(meant)}


SMALL = [one for one in own_traffic() if one.status < 400 and len(one.body) < 8000 and len(body_of(one)) < 8000]


@each(SMALL)
def test_recorded_traffic_with_something_wrong_in_it_is_read_or_a_fault(interaction):
    shape, dice = shape_here(interaction), random.Random(interaction.id)
    for _ in range(60):
        try:
            call = shape.read_request(shape.peek(json.dumps(broken(interaction.request, dice)).encode()))
            for target in (OPENAI, ANTHROPIC, GEMINI, CHAT, GENERATE):
                with suppress(Fault):
                    target.write_request(call, MODELS.get(target.name, "m"))
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017
        told = b"".join(json.dumps(broken(json.loads(line), dice)).encode() + b"\n" for line in interaction.body.splitlines())
        passage = Crossing(shape.stream_reader(), OPENAI.stream_writer(CALL, NOW))
        passage.feed(told)
        passage.close()
        assert passage.ended is (passage.failed is None)
        with suppress(Fault):
            OPENAI.write_reply(shape.read_reply(told), CALL, NOW)
