"""Every recorded chat and messages interaction, through every view of it: they must agree."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from formats.sampling import each
from formats.shapes import CALL, MODELS, NOW, asked, other, peeked, recorded, request_body, shape_of
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Delta, PartStart
from llm_gateway.core.types import Reasoning, Refusal, Text, ToolCall
from llm_gateway.formats import _splice
from llm_gateway.formats.crossing import Crossing

# Streams whose upstream reported an error in them.
FAILED = {"groq-chat_completions-stream-ac04e50f33", "openrouter-chat_completions-stream-e25c1dc8b7"}
# Requests that the provider refused, and so do we.
REFUSED = {
    "anthropic-messages-plain-8d1d0f2ef2",
    "deepseek-chat_completions-plain-6e577a1ae7",
    "mistral-chat_completions-plain-2d9f1262fa",
    "ollama-chat_completions-plain-a53c4f343e",
}


# A prompt that Gemini would not answer: a reply without candidates.
BLOCKED = {"vertex-generateContent-plain-2a55c07b81"}


PLAIN = [one for one in recorded(streaming=False) if one.status < 400 and one.id not in BLOCKED]
STREAMS = [one for one in recorded(streaming=True) if one.status < 400]
ERRORS = [one for one in recorded() if one.status >= 400]
ASKED = [one for one in recorded() if isinstance(one.request, dict)]


@each(PLAIN)
def test_a_plain_reply_is_summarised_and_read_alike(interaction):
    shape = shape_of(interaction)
    summary, reply = shape.summarise(interaction.body), shape.read_reply(interaction.body)
    assert summary.fault is None
    assert reply.usage == summary.usage
    assert summary.usage is None or summary.usage.input + summary.usage.output > 0
    assert (summary.finish or None) == (recorded_finish(json.loads(interaction.body)) or None)


def recorded_finish(reply):
    if "candidates" in reply:
        said = reply["candidates"][0].get("finishReason")
        return {1: "STOP", 2: "MAX_TOKENS"}.get(said, said)  # one recorder asked for enums as numbers
    return reply.get("stop_reason") or (reply.get("choices") or [{}])[0].get("finish_reason")


@each(PLAIN)
def test_a_plain_reply_keeps_its_words_in_the_other_shape(interaction):
    shape = shape_of(interaction)
    reply = shape.read_reply(interaction.body)
    if len(reply.choices) != 1:
        return
    crossed = other(shape).read_reply(other(shape).write_reply(reply, CALL, NOW).body)
    assert said(crossed.choices[0].parts) == said(reply.choices[0].parts)
    if reply.usage is not None:
        assert crossed.usage is not None
        assert (crossed.usage.input, crossed.usage.output, crossed.usage.cache_read) == (
            reply.usage.input,
            reply.usage.output,
            reply.usage.cache_read,
        )


def said(parts):
    """Text, thoughts shown, and calls, each joined: shapes cut text into parts differently."""
    text = "".join(part.text for part in parts if isinstance(part, Text | Refusal))
    thoughts = "".join(part.text or "\n\n".join(part.summary) for part in parts if isinstance(part, Reasoning))
    calls = [(part.name, json.loads(part.arguments or "{}")) for part in parts if isinstance(part, ToolCall)]
    return text, thoughts, calls


@each(STREAMS)
def test_a_stream_is_spliced_and_read_alike(interaction):
    shape = shape_of(interaction)
    splice = shape.splice(asked())
    splice.feed(interaction.body)
    splice.close()
    assert splice.ended is (interaction.id not in FAILED)
    assert (splice.failed is not None) is (interaction.id in FAILED)
    for writer in (shape, other(shape)):
        crossing = Crossing(shape.stream_reader(), writer.stream_writer(CALL, NOW))
        crossing.feed(interaction.body)
        crossing.close()
        assert (crossing.ended, crossing.failed is not None) == (splice.ended, splice.failed is not None)
        assert crossing.usage == splice.usage
        assert (crossing.finish is None) <= (splice.finish in {None, ""})
        assert crossing.meaningful == splice.meaningful
    assert near(splice.characters, generated(shape, interaction.body))


def generated(shape, body):
    """Characters of everything the events say was generated."""
    total = 0
    for event in shape.stream_reader().feed(body):
        if isinstance(event, Delta):
            total += len(event.text)
        elif isinstance(event, PartStart) and event.kind == "tool":
            total += len(event.name or "")
        elif type(event).__name__ == "OpaqueDelta":
            total += len(json.loads(bytes(event.raw)).get("partial_json") or "")
        elif isinstance(event, PartStart) and event.kind == "opaque":
            total += len(json.loads(bytes(event.raw)).get("name") or "")
    return total


def near(counted, actual):
    return abs(counted - actual) <= max(0.2 * actual, 4)


@each([one for one in STREAMS if one.id not in FAILED])
def test_a_stream_says_the_same_after_crossing(interaction):
    shape = shape_of(interaction)
    there = Crossing(shape.stream_reader(), other(shape).stream_writer(CALL, NOW))
    crossed = there.feed(interaction.body) + there.close() + there.tail(None)
    assert texts(other(shape), crossed) == texts(shape, interaction.body)


def texts(shape, body):
    reader = shape.stream_reader()
    kinds, found = {}, {}
    for event in reader.feed(body) + reader.close():
        if isinstance(event, PartStart) and event.choice == 0:
            kinds[event.choice, event.index] = event.kind
            if event.kind == "tool":
                found.setdefault("called", []).append(event.name)
        elif isinstance(event, Delta) and event.choice == 0:
            kind = kinds[0, event.index]
            found[kind] = found.get(kind, "") + event.text
    if "tool" in found:  # a call without arguments gets "{}", which says the same
        found["tool"] = found["tool"].replace("{}", "")
    found["text"] = found.pop("text", "") + found.pop("refusal", "")
    return {kind: text for kind, text in found.items() if text}


@each(STREAMS)
def test_what_passes_is_what_came_when_the_client_asked_for_usage(interaction):
    splice = shape_of(interaction).splice(asked())
    passed = splice.feed(interaction.body) + splice.close()
    if splice.failed is None:
        passed += splice.tail(None)
        assert (
            passed.removesuffix(b"data: [DONE]\n\n").strip()
            == interaction.body.removesuffix(b"data: [DONE]\n\n").strip()
        )
    else:
        assert interaction.body.startswith(passed)


@each(STREAMS)
def test_a_stream_that_stops_early_fails(interaction):
    """Cut behind the last event that comes before any end mark."""
    shape = shape_of(interaction)
    watched = shape.splice(asked())
    events = interaction.body.replace(b"\r\n", b"\n").split(b"\n\n")
    kept = []
    for event in events:
        watched.feed(event + b"\n\n")
        if watched.finish or watched.ended or watched.failed:
            break
        kept.append(event + b"\n\n")
    for passage in (shape.splice(asked()), Crossing(shape.stream_reader(), other(shape).stream_writer(CALL, NOW))):
        passage.feed(b"".join(kept))
        passage.close()
        assert passage.failed is not None
        assert passage.failed.kind is Kind.UPSTREAM_CUT
        assert not passage.ended


@each(ERRORS)
def test_an_error_becomes_a_fault_that_says_no_secret(interaction):
    shape = shape_of(interaction)
    fault = shape.read_error(interaction.status, interaction.body)
    assert fault.kind.name == EXPECTED.get(interaction.id, BY_STATUS[interaction.status])
    assert fault.message
    assert len(fault.message) <= 4096
    if fault.kind is Kind.UPSTREAM_AUTH:
        assert "key" not in fault.message
        assert fault.body is None
    for writer in (shape, other(shape)):
        told = writer.write_error(fault, "req_1")
        error = json.loads(told.body)["error"]
        assert fault.message in error["message"] or fault.body is not None
        assert told.status >= 400


BY_STATUS = {
    400: "INVALID",
    401: "UPSTREAM_AUTH",
    403: "UPSTREAM_AUTH",
    404: "UPSTREAM_NO_MODEL",
    408: "TIMEOUT",
    422: "UNPROCESSABLE",
    429: "UPSTREAM_RATE_LIMIT",
    500: "UPSTREAM_ERROR",
    503: "OVERLOADED",
    529: "OVERLOADED",
}
EXPECTED = {
    "gemini-generateContent-plain-34558d1035": "CONTEXT_LENGTH",
    "gemini-generateContent-plain-d835422342": "UPSTREAM_AUTH",
    "gemini-streamGenerateContent-plain-562cf1fc39": "UPSTREAM_AUTH",
    "vertex-generateContent-plain-d0a6ed7670": "CONTEXT_LENGTH",
    "anthropic-messages-plain-30bf2efcc4": "CONTEXT_LENGTH",
    "anthropic-messages-plain-f69532d566": "CONTEXT_LENGTH",
    "azure-chat_completions-plain-2970bdd2bb": "UPSTREAM_NO_MODEL",
    "azure-chat_completions-plain-4950325274": "CONTENT_FILTER",
    "deepseek-chat_completions-plain-b7d30b6593": "CONTEXT_LENGTH",
    "ollama-cloud-chat_completions-plain-39edc3dba9": "CONTEXT_LENGTH",
    "openrouter-chat_completions-plain-c71dfa87ed": "CONTEXT_LENGTH",
    "xai-chat_completions-plain-7d392336e2": "UPSTREAM_AUTH",
}


@each(ASKED)
def test_a_request_is_read_and_says_the_same_again_in_its_own_shape(interaction):
    shape = shape_of(interaction)
    body = request_body(interaction)
    assert body is not None
    peek = shape.peek(body)
    if interaction.id in REFUSED:
        with pytest.raises(Fault):
            shape.read_request(peek)
        return
    call = shape.read_request(peek)
    turns = "contents" if shape.name == "gemini" else "messages"
    assert json.loads(shape.forward(peek, "m").body)[turns] == interaction.request[turns]
    try:
        again = shape.write_request(call, call.model)
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  the kind is what is asked, not that it is raised
        return
    told = shape.read_request(peeked(shape, again.body))
    assert [tool.name for tool in told.tools] == [tool.name for tool in call.tools]
    assert told.max_tokens == call.max_tokens or call.max_tokens is None


@each(ASKED)
def test_a_request_crosses_or_is_refused_by_name(interaction):
    if interaction.id in REFUSED:
        return
    shape = shape_of(interaction)
    target = other(shape)
    body = request_body(interaction)
    assert body is not None
    call = shape.read_request(shape.peek(body))
    try:
        crossed = target.write_request(call, MODELS[target.name])
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return
    told = target.read_request(peeked(target, crossed.body))
    assert told.stream == call.stream
    assert len(told.tools) == len(call.tools) or call.tool_choice is not None
    assert spoken(call) <= spoken(told)  # a text document, say, is told as text


def spoken(call):
    """All the words of all roles, without what is between them."""
    words = []
    for message in call.messages:
        for part in message.parts:
            inner = part.content if hasattr(part, "content") else (part,)
            words += [piece.text.strip() for piece in inner if isinstance(piece, Text)]
    return Counter("".join(words).replace("\n", "").replace(" ", ""))


def test_the_bound_for_whole_events_is_the_documented_one():
    assert _splice._WHOLE == 64 << 10
