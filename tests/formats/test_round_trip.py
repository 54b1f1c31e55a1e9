"""Shape -> typed middle -> shape loses nothing that the table does not name: generated conversations, and the recorded ones.

What a writer leaves out it must report, or the table must call it adjusted; what the table calls kept must come back equal.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from msgspec import Raw, structs

from formats.sampling import generated
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import (
    Conversation,
    Image,
    Media,
    Message,
    OutputFormat,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_gateway.formats import crossings
from llm_gateway.formats.crossings import Fate
from llm_gateway.wiring import formats
from replay.recordings import Interaction, load
from replay.served import CHAT, Served, served

MODEL = {
    "openai_chat": "gpt-4o-mini",
    "openai_responses": "gpt-5-mini",
    "openai_completions": "gpt-3.5-turbo-instruct",
    "anthropic_messages": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock_converse": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "ollama_chat": "llama3.2",
    "ollama_generate": "llama3.2",
}
TALKS = tuple(name for name in CHAT if name not in {"openai_completions", "ollama_generate"})
IN_PATH = {"gemini", "bedrock_converse"}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()


@cache
def shapes() -> dict[str, Any]:
    return dict(formats())


def back(name: str, body: bytes) -> Conversation:
    shape = shapes()[name]
    read: Conversation = shape.read_request(shape.peek(body, "m" if name in IN_PATH else None))
    return read


# -- what is said -----------------------------------------------------------------------------------------------------


def bare(text: str) -> str:
    """Without white space, in which shapes differ where they join, and without the mark of a failed tool."""
    return "".join(text.split()).removeprefix("Error:")


def said(call: Conversation) -> dict[str, Any]:
    """Of all messages: words by role, images, calls and their answers, in order."""
    names = {part.id: part.name for message in call.messages for part in message.parts if isinstance(part, ToolCall)}
    words: dict[str, str] = {}
    images, calls, results = [], [], []
    for message in call.messages:
        role = "system" if message.role == "developer" else message.role
        for part in message.parts:
            if isinstance(part, Text):
                words[role] = words.get(role, "") + bare(part.text)
            elif isinstance(part, Image):
                images.append(part.media.data or part.media.url)
            elif isinstance(part, ToolCall):
                calls.append((part.name, json.loads(part.arguments or "{}")))
            elif isinstance(part, ToolResult):
                told = "".join(bare(piece.text) for piece in part.content if isinstance(piece, Text))
                results.append((names.get(part.call_id), told))
    return {"words": {role: text for role, text in words.items() if text}, "images": images, "calls": calls, "results": results}


# -- what is asked ----------------------------------------------------------------------------------------------------


def close(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        return one is not None and other is not None and abs(one - other) < 1e-9
    if isinstance(one, Raw | OutputFormat | dict):
        return bool(msgspec.json.decode(msgspec.json.encode(one)) == msgspec.json.decode(msgspec.json.encode(other)))
    return bool(one == other)


def losses(call: Conversation, name: str, model: str) -> list[str]:
    """What the round through a shape lost without a word."""
    sent = shapes()[name].write_request(call, model)
    again = back(name, sent.body)
    reported = set(sent.dropped)
    lost = []
    for row in crossings.TABLE:
        value = getattr(call, row.field)
        if value is None or value == () or value in row.idle:
            continue
        told, fate = getattr(again, row.field), crossings.fate(row, name)
        own = crossings.name(call, row.field)
        heard = any(each == own or each.startswith((f"{own}.", f"{own}[")) for each in reported)
        if row.field == "tools":
            if {tool.name for tool in value} - {tool.name for tool in told} and not shortened(call):
                lost.append("tools")
        elif fate is Fate.KEEP and not close(told, value) and not heard:
            lost.append(f"{row.field}: {value!r} became {told!r}")
        elif row.field == "cache" and fate is Fate.ADJUST and marked(again):
            continue
        elif fate is Fate.ADJUST and told in (None, ()) and not heard and not nothing(call, row.field):
            lost.append(f"{row.field}: {value!r} is gone")
        elif fate is Fate.DROP and not heard:
            lost.append(f"{row.field} is not reported")
    return lost


def marked(call: Conversation) -> bool:
    """Whether a part has the mark that stood above all of them."""
    return any(getattr(part, "cache", None) is not None for message in call.messages for part in message.parts)


def shortened(call: Conversation) -> bool:
    """A choice that leaves tools out."""
    choice = call.tool_choice
    return choice is not None and (bool(choice.allowed) or choice.mode in {"none", "tool"})


def nothing(call: Conversation, field: str) -> bool:
    """Where what is left out is what it says: no tools now, no special answer, thinking as the model likes."""
    if field == "tool_choice":
        return shortened(call) or call.tool_choice == ToolChoice() or not call.tools
    if field == "parallel_tools":
        return call.tool_choice is not None and call.tool_choice.mode == "none"
    if field == "output":
        return call.output is not None and call.output.kind == "text"
    thinking = call.thinking
    if field == "thinking" and thinking is not None:
        return thinking.enabled is False or thinking.effort == "none" or (thinking.effort is None and thinking.budget is None)
    return getattr(call, field) == 1  # of sampling: the default


# -- generated --------------------------------------------------------------------------------------------------------

WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Cf")), min_size=1, max_size=12)
NAME = st.from_regex(r"[a-z][a-z_]{0,14}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAME, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(NAME, JSON, max_size=3).map(json.dumps)
SCHEMA = st.dictionaries(NAME, st.sampled_from([{"type": "string"}, {"type": "integer"}]), min_size=1, max_size=3).map(
    lambda properties: Raw(
        msgspec.json.encode({"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False})
    )
)
TEXT = WORD.map(Text)
IMAGE = st.just(Image(Media("image/png", PNG)))


@st.composite
def turns(draw, tools: list[str]) -> tuple[Message, ...]:
    """A user and a model in turn, with calls answered in the next message, as every API asks for."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", (draw(TEXT),), at="messages[0]"))
    for number in range(draw(st.integers(1, 3))):
        messages.append(Message("user", tuple(draw(st.lists(TEXT | IMAGE, min_size=1, max_size=3))), at=f"messages[{len(messages)}]"))
        called = draw(st.lists(st.sampled_from(tools), max_size=2)) if tools else []
        parts: list[Any] = draw(st.lists(TEXT, max_size=2))
        calls = [ToolCall(f"call_{number}_{at}", name, draw(ARGUMENTS)) for at, name in enumerate(called)]
        if not parts and not calls:
            continue
        messages.append(Message("assistant", (*parts, *calls), at=f"messages[{len(messages)}]"))
        for call in calls:
            result = ToolResult(call.id, (draw(TEXT),), call.name, is_error=draw(st.booleans()))
            messages.append(Message("tool", (result,), at=f"messages[{len(messages)}]"))
    if messages[-1].role == "assistant":
        messages.append(Message("user", (draw(TEXT),), at=f"messages[{len(messages)}]"))
    return tuple(messages)


@st.composite
def conversations(draw, *, talks: bool = True) -> Conversation:
    names = draw(st.lists(NAME, max_size=3, unique=True)) if talks else []
    messages = draw(turns(names)) if talks else (Message("user", (draw(TEXT),), at="messages[0]"),)
    tools = tuple(Tool(name, draw(WORD), draw(SCHEMA)) for name in names)
    choices = [ToolChoice(), ToolChoice("required"), ToolChoice("none"), *(ToolChoice("tool", name) for name in names)]
    unit = st.floats(0, 1).map(lambda number: round(number, 3))
    return Conversation(
        model="m",
        messages=messages,
        tools=tools,
        tool_choice=draw(st.none() | st.sampled_from(choices)) if tools else None,
        parallel_tools=draw(st.none() | st.booleans()) if tools else None,
        max_tokens=draw(st.none() | st.integers(16, 100_000)),
        temperature=draw(st.none() | unit),
        top_p=draw(st.none() | unit),
        top_k=draw(st.none() | st.integers(1, 100)),
        min_p=draw(st.none() | unit),
        frequency_penalty=draw(st.none() | unit),
        presence_penalty=draw(st.none() | unit),
        stop=tuple(draw(st.lists(WORD, max_size=4, unique=True))),
        seed=draw(st.none() | st.integers(0, 2**31 - 1)),
        logit_bias=draw(st.none() | st.just({"50256": -100.0})),
        output=draw(st.none() | st.builds(OutputFormat, kind=st.just("schema"), name=st.just("answer"), schema=SCHEMA)),
        thinking=draw(st.none() | st.builds(Thinking, effort=st.sampled_from(["low", "medium", "high"]))),
        stream=draw(st.booleans()),
        user=draw(st.none() | WORD),
        metadata=draw(st.none() | st.just(Raw(b'{"a":"b"}'))),
        service_tier=draw(st.sampled_from([None, "auto", "default", "flex"])),
        verbosity=draw(st.none() | st.sampled_from(["low", "high"])),
        format="somewhere_else",
    )


GENERATED = generated(25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", TALKS)
@GENERATED
@given(call=conversations())
def test_a_generated_conversation_comes_back(name, call):
    assert losses(call, name, MODEL[name]) == []
    again = back(name, shapes()[name].write_request(call, MODEL[name]).body)
    assert said(again) == said(call)
    assert again.stream == call.stream or name in IN_PATH  # where the path says it


@pytest.mark.parametrize("name", ["openai_completions", "ollama_generate"])
@GENERATED
@given(call=conversations(talks=False))
def test_a_question_comes_back_from_shapes_that_only_take_one(name, call):
    assert losses(call, name, MODEL[name]) == []
    again = back(name, shapes()[name].write_request(call, MODEL[name]).body)
    assert said(again) == said(call)


@pytest.mark.parametrize("name", CHAT)
@GENERATED
@given(call=conversations())
def test_what_is_refused_is_refused_by_a_path_of_the_clients(name, call):
    asked = structs.replace(call, n=2, modalities=("text", "audio"))
    try:
        shapes()[name].write_request(asked, MODEL[name])
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  raising is what the table allows
        refusing = {row.field for row in crossings.TABLE if crossings.fate(row, name) is Fate.REFUSE}
        assert fault.param in refusing or str(fault.param).startswith("messages")  # noqa: PT017  as above
    else:
        assert Fate.REFUSE not in {crossings.fate(row, name) for row in crossings.TABLE if row.field in {"n", "modalities"}}


# -- recorded ---------------------------------------------------------------------------------------------------------


def recorded() -> list[tuple[Interaction, Served]]:
    try:
        interactions = load().interactions
    except FileNotFoundError:
        return []
    placed = [(one, served(one)) for one in interactions if isinstance(one.request, dict) and one.status == 200]
    return [(one, where) for one, where in placed if isinstance(where, Served) and where.operation == "chat"]


def asked(one: Interaction, where: Served) -> Conversation:
    shape, body = shapes()[where.form], {name: value for name, value in one.request.items() if name != "modelId"}
    in_path = where.form in IN_PATH
    body = body if in_path else {"model": "m", **body}
    call: Conversation = shape.read_request(
        shape.peek(json.dumps(body).encode(), "m" if in_path else None, stream=one.row["streaming"])
    )
    return call


RECORDED = recorded()


@pytest.mark.parametrize("name", CHAT)
def test_the_recorded_conversations_come_back(name):
    """All in one test for each shape: they are many, and each takes a millisecond."""
    lost: dict[str, list[str]] = {}
    for one, where in RECORDED:
        try:
            call = asked(one, where)
            found = losses(call, name, MODEL[name])
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  a recorded request may ask what another shape has not
            continue
        if found:
            lost[one.id] = found
    assert lost == {}
