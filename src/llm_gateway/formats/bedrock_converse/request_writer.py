"""Conversation -> a Converse request.

Law: Converse's rules are met by moving and merging, never by inventing: system text to `system`, tool results first in a
user message, one message per turn, nothing empty. One exception: tools that the conversation calls must be declared there,
so calls whose tools a client left out are declared by name. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, structs

from llm_gateway.core.types import Conversation, Message, Opaque, Text, Tool, ToolCall, ToolResult
from llm_gateway.formats import _steps, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.bedrock_converse import _families, _writing
from llm_gateway.formats.bedrock_converse._families import Family
from llm_gateway.formats.bedrock_converse._reading import SHAPE
from llm_gateway.formats.bedrock_converse._writing import Blocks, PartWriter
from llm_gateway.formats.bedrock_converse.request_reader import GUARD, MORE
from llm_gateway.formats.contract import Outgoing

Fields = dict[str, Any]
_SYSTEM = frozenset({"system", "developer"})
_EMPTY_SCHEMA = Raw(b'{"type":"object","properties":{}}')
_TIERS = {
    "default": "default",
    "standard_only": "default",
    "flex": "flex",
    "priority": "priority",
    "reserved": "reserved",
}
_DOTS = frozenset({".", ".."})
_THINKING_TOP_P = 0.95  # the least that Claude takes while thinking


class _Turn:
    """One message to be. Results of tools come first in it."""

    __slots__ = ("rest", "results", "role")

    def __init__(self, role: str) -> None:
        self.role = role
        self.results: Blocks = []
        self.rest: Blocks = []


def path(model: str, *, stream: bool) -> str:
    """Below the API's root. A model may be an ARN."""
    if model in _DOTS:
        raise invalid(f"'{model}' is no model's name.", "model")
    return f"/model/{quote(model, safe='')}/converse{'-stream' if stream else ''}"


def write(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write(call, model))
    return Outgoing(msgspec.json.encode(body), path(model, stream=call.stream), dropped=tuple(dict.fromkeys(dropped)))


def write_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write(call, model)
    written = yield from _steps.encoded(body, "messages")
    return Outgoing(written, path(model, stream=call.stream), dropped=tuple(dict.fromkeys(dropped)))


def _write(call: Conversation, model: str) -> Steps[tuple[Fields, list[str]]]:
    dropped = crossings.unsaid(call, SHAPE)
    call = _with_a_turn(call, dropped)
    family = _families.of(model)
    writer = PartWriter(dropped, family, own=call.format == SHAPE)
    body: Fields = {"messages": (yield from _messages(call, writer, family, dropped))}
    if system := _system(call, writer, dropped):
        body["system"] = system
    _write_guard(call, body)
    called = yield from _called(call)
    _write_tools(call, called, family, body, dropped)
    _write_model(call, model, body, dropped)
    if call.service_tier in _TIERS:
        body["serviceTier"] = {"type": _TIERS[call.service_tier]}
    elif call.service_tier not in {None, "auto"}:
        dropped.append("service_tier")
    if call.format == SHAPE:
        _restore(call.extras, body)
    return body, dropped


def _with_a_turn(call: Conversation, dropped: list[str]) -> Conversation:
    """Converse wants someone to answer: instructions alone become what the user says."""
    if call.format == SHAPE or any(message.role not in _SYSTEM for message in call.messages):
        return call
    dropped += [f"{message.at}.role" for message in call.messages]
    return structs.replace(call, messages=tuple(structs.replace(each, role="user") for each in call.messages))


def _system(call: Conversation, writer: PartWriter, dropped: list[str]) -> Blocks:
    blocks: Blocks = []
    leading = True
    for message in call.messages:
        if message.role not in _SYSTEM:
            leading = leading and message.at == GUARD
            continue
        if not leading:
            dropped.append(f"{message.at}.role")
        if call.format != SHAPE and not all(isinstance(part, Text) for part in message.parts):
            raise invalid(f"'{message.at}.content': a system message holds text only.", f"{message.at}.content")
        for part in message.parts:
            blocks += writer.write(part, message)
    return blocks


def _write_guard(call: Conversation, body: Fields) -> None:
    for message in call.messages:
        for part in message.parts if message.at == GUARD else ():
            if isinstance(part, Opaque) and part.format == SHAPE:
                body[GUARD] = part.raw


def _messages(call: Conversation, writer: PartWriter, family: Family, dropped: list[str]) -> Steps[list[Fields]]:
    turns: list[_Turn] = []
    for at, message in enumerate(call.messages):
        if at % STRIDE == STRIDE - 1:
            yield
        if message.role in _SYSTEM or message.at == GUARD:
            continue
        if message.name is not None:
            dropped.append(f"{message.at}.name")
        _add(message, turns, writer)
    turns = [turn for turn in turns if turn.results or turn.rest]
    if not turns and call.format != SHAPE:
        raise invalid("'messages' has nothing to say: it needs a message with content.", "messages")
    if call.cache is not None and turns:
        if family.caches:
            turns[-1].rest.append(_writing.cache_point(call.cache, family))
        else:
            dropped.append(crossings.name(call, "cache"))
    if turns and family.seals:
        _trim_prefill(turns[-1])
    if family.caches and not family.anywhere:
        yield from _unmark(turns)
    return [{"role": turn.role, "content": [*turn.results, *turn.rest]} for turn in turns]


def _unmark(turns: list[_Turn]) -> Steps[None]:
    """Takes the cache points out of turns that hold calls or results."""
    for at, turn in enumerate(turns):
        if turn.results or any(isinstance(block, dict) and "toolUse" in block for block in turn.rest):
            for blocks in (turn.results, turn.rest):
                blocks[:] = [block for block in blocks if not (isinstance(block, dict) and "cachePoint" in block)]
        if at % STRIDE == STRIDE - 1:
            yield


def _add(message: Message, turns: list[_Turn], writer: PartWriter) -> None:
    """The message's blocks, to the last turn if it is of the same role."""
    role = "assistant" if message.role == "assistant" else "user"
    if not turns or turns[-1].role != role:
        turns.append(_Turn(role))
    for part in message.parts:
        place = turns[-1].results if isinstance(part, ToolResult) else turns[-1].rest
        place += writer.write(part, message)


def _trim_prefill(turn: _Turn) -> None:
    """A last assistant message is a beginning to be continued; Claude refuses one that ends in white space."""
    last = turn.rest[-1] if turn.rest else None
    if turn.role == "assistant" and isinstance(last, dict) and "text" in last:
        last["text"] = last["text"].rstrip() or last["text"]


def _called(call: Conversation) -> Steps[set[str]]:
    names: set[str] = set()
    for at, message in enumerate(call.messages):
        if at % STRIDE == STRIDE - 1:
            yield
        names.update(part.name for part in message.parts if isinstance(part, ToolCall))
    return names


def _write_tools(call: Conversation, called: set[str], family: Family, body: Fields, dropped: list[str]) -> None:
    choice = call.tool_choice
    tools: Blocks = []
    declared: set[str] = set()
    for at, tool in enumerate(call.tools):
        if choice is None or not choice.allowed or tool.name in choice.allowed or tool.name in called:
            tools += _tool(tool, at, family, dropped)
            declared.add(tool.name)
    if choice is not None and choice.mode == "none":  # Converse cannot say so, but by having no tools
        if called:
            dropped.append(crossings.name(call, "tool_choice"))
        else:
            tools, declared = [], set()
    tools += [_spec(name, _EMPTY_SCHEMA) for name in sorted(called - declared)] if call.format != SHAPE else []
    if not tools:
        return
    body["toolConfig"] = {"tools": tools}
    if choice is None or choice.mode == "none":
        return
    said = {"auto": {"auto": {}}, "required": {"any": {}}, "tool": {"tool": {"name": choice.name}}}
    body["toolConfig"]["toolChoice"] = said[choice.mode]


def _spec(name: str, schema: Raw) -> Fields:
    return {"toolSpec": {"name": name, "inputSchema": {"json": schema}}}


def _tool(tool: Tool, at: int, family: Family, dropped: list[str]) -> Blocks:
    if tool.kind != "function":
        if tool.format != SHAPE or tool.raw is None:
            raise crossings.no_tool(tool, at)
        written: Fields | Raw = tool.raw
    else:
        written = _spec(tool.name, tool.schema or _EMPTY_SCHEMA)
        if tool.description:
            written["toolSpec"]["description"] = tool.description
        if tool.strict and family.strict:
            written["toolSpec"]["strict"] = True
        elif tool.strict:
            dropped.append(f"tools[{at}].strict")
    return [written, _writing.cache_point(tool.cache, family)] if tool.cache is not None and family.anywhere else [written]


def _write_model(call: Conversation, model: str, body: Fields, dropped: list[str]) -> None:
    """How to answer: Converse's own parameters, the model's own, the shape of the answer."""
    family = _families.of(model)
    asked: Fields = {}
    more: Fields = {}
    output: Fields = {}
    if not _families.sampled(model):
        dropped += crossings.unsampled(call)
        call = structs.replace(call, temperature=None, top_p=None, top_k=None)
    if call.max_tokens is not None:
        asked["maxTokens"] = call.max_tokens
    _write_sampling(call, family, asked, dropped)
    if not _families.write_thinking(call, model, asked, more, output):
        dropped.append(crossings.name(call, "thinking"))
    thinks = "thinking" in more
    if thinks:
        _calm(call, asked, dropped)
    if call.top_k is not None and (thinks or not _families.write_top_k(call.top_k, family, more)):
        dropped.append(crossings.name(call, "top_k"))
    _write_output(call, output, dropped)
    body |= {name: held for name, held in zip(_PLACES, (asked, more, output), strict=True) if held}


_PLACES = ("inferenceConfig", MORE, "outputConfig")


def _write_sampling(call: Conversation, family: Family, asked: Fields, dropped: list[str]) -> None:
    if call.temperature is not None:
        asked["temperature"] = min(call.temperature, 1.0)
        if call.temperature > 1:
            dropped.append(crossings.name(call, "temperature"))
    if call.top_p is not None:
        if family.alone and "temperature" in asked and call.format != SHAPE:
            dropped.append(crossings.name(call, "top_p"))
        else:
            asked["topP"] = call.top_p
    if stops := [stop for stop in call.stop if stop.strip() or (stop and not family.seals)]:
        asked["stopSequences"] = stops
    if len(stops) < len(call.stop):  # empty ones, and for Claude those of white space
        dropped.append(crossings.name(call, "stop"))


def _calm(call: Conversation, asked: Fields, dropped: list[str]) -> None:
    """Claude takes no temperature while it thinks, and hardly a top_p."""
    if asked.pop("temperature", 1) != 1:
        dropped.append(crossings.name(call, "temperature"))
    if asked.get("topP", 1) < _THINKING_TOP_P:
        del asked["topP"]
        dropped.append(crossings.name(call, "top_p"))


def _write_output(call: Conversation, output: Fields, dropped: list[str]) -> None:
    wanted = call.output
    if wanted is None or wanted.kind == "text":
        return
    if wanted.kind == "json" or wanted.schema is None:
        dropped.append(crossings.name(call, "output"))
        return
    schema: Fields = {"schema": bytes(wanted.schema).decode()}
    if wanted.name:
        schema["name"] = wanted.name
    if wanted.description:
        schema["description"] = wanted.description
    output["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}


def _restore(extras: dict[str, Raw], body: Fields) -> None:
    """What had no name, back in its place: at the top, or in one of the objects there. What is deeper stays lost."""
    for name, raw in extras.items():
        outer, dot, inner = name.partition(".")
        if not dot and "[" not in name:
            body[name] = raw
        elif outer in {*_PLACES, "toolConfig"} and "[" not in outer and "." not in inner and "[" not in inner:
            body.setdefault(outer, {})[inner] = raw
