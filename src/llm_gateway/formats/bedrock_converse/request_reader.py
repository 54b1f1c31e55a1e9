"""A Converse request -> Conversation.

Law: the first wrong value is a Fault naming its path; what a Conversation cannot say becomes an extra, named by its path.
The model and whether to stream are the path's to say. `system` becomes the first message; each tool result becomes a
message of role `tool`, in its place. A guardrail is something that other shapes must refuse, not leave out: it becomes a
part that only this one can say.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Conversation,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from llm_gateway.formats import _members, _steps, _typed
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.bedrock_converse import _families, _reading, _wire
from llm_gateway.formats.bedrock_converse._reading import SHAPE
from llm_gateway.formats.contract import Peek

Extras = dict[str, Raw]
GUARD = "guardrailConfig"
MORE = "additionalModelRequestFields"
_decode = msgspec.json.Decoder(_wire.Request).decode
_decode_message = msgspec.json.Decoder(_wire.Message).decode
_decode_tool = msgspec.json.Decoder(_wire.ToolSpec).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_name = msgspec.json.Decoder(_wire.Named).decode
_KNOWN = _typed.names(_wire.Request)
_PARTLY = {
    "inferenceConfig": _typed.names(_wire.Inference),
    "outputConfig": _typed.names(_wire.OutputConfig),
    "toolConfig": _typed.names(_wire.ToolConfig),
}
_TOOL = _typed.names(_wire.ToolSpec)


def read(peek: Peek) -> Conversation:
    return drained(_read(peek, _typed.decode(_decode, _members.join(peek.members))))


def read_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("messages"))
    request = yield from _steps.decoded(_decode, _decode_message, peek.members, "messages", given)
    return (yield from _read(peek, request))


def _read(peek: Peek, request: _wire.Request) -> Steps[Conversation]:
    extras = _extras(peek.members)
    asked = request.inference_config or _wire.Inference()
    output = request.output_config or _wire.OutputConfig()
    config = request.tool_config or _wire.ToolConfig()
    more = _more(request.additional_model_request_fields or {}, extras)
    return Conversation(
        model=peek.model,
        messages=(yield from _messages(request, extras)),
        tools=_tools(config.tools or [], extras),
        tool_choice=_choice(config.tool_choice),
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=_families.read_top_k(more),
        stop=tuple(asked.stop_sequences or ()),
        output=_output(output.text_format),
        thinking=_families.read_thinking(more, output.effort),
        stream=peek.stream,
        stream_usage=True,
        service_tier=request.service_tier.type if request.service_tier is not None else None,
        format=SHAPE,
        extras=extras,
    )


def _extras(members: dict[str, Raw]) -> Extras:
    """Whole members that have no name in a request, and members of those that have."""
    extras = {name: raw for name, raw in members.items() if name not in _KNOWN and not _reading.null(raw)}
    for name, known in _PARTLY.items():
        for inner, raw in _members.object_(members, name).items():
            if inner not in known and not _reading.null(raw):
                extras[f"{name}.{inner}"] = raw.copy()
    return extras


def _more(fields: dict[str, Raw], extras: Extras) -> dict[str, Any]:
    """The model's own fields as a tree; those that no reader takes become extras."""
    told = {name: _typed.tree(raw) for name, raw in fields.items()}
    for name in _families.unread(told):
        extras[f"{MORE}.{name}"] = fields[name].copy()
    return told


def _messages(request: _wire.Request, extras: Extras) -> Steps[tuple[Message, ...]]:
    messages: list[Message] = []
    if request.guardrail_config:
        raw = Raw(msgspec.json.encode(request.guardrail_config))
        messages.append(Message("user", (Opaque(SHAPE, GUARD, raw),), at=GUARD))
    if system := _reading.parts(request.system or [], "system", extras):
        messages.append(Message("system", system, at="system"))
    for at, message in enumerate(request.messages or ()):
        parts = _reading.parts(message.content, f"messages[{at}].content", extras)
        if any(isinstance(part, ToolCall) and not (part.id and part.name) for part in parts):
            path = f"messages[{at}].content"
            raise _members.invalid(f"'{path}': a toolUse needs a toolUseId and a name.", path)
        if message.role == "user":
            messages += _turns(parts, f"messages[{at}]")
        else:
            messages.append(Message(message.role, parts, at=f"messages[{at}]"))
        if at % STRIDE == STRIDE - 1:
            yield
    return tuple(messages)


def _turns(parts: tuple[Part, ...], path: str) -> list[Message]:
    """A user message's tool results as messages of their own, in order with the rest."""
    turns: list[Message] = []
    said: list[Part] = []
    for part in parts:
        if isinstance(part, ToolResult):
            if said:
                turns.append(Message("user", tuple(said), at=path))
                said = []
            turns.append(Message("tool", (part,), at=path))
        else:
            said.append(part)
    if said or not turns:
        turns.append(Message("user", tuple(said), at=path))
    return turns


def _tools(given: list[_wire.Block], extras: Extras) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for at, entry in enumerate(given):
        path = f"toolConfig.tools[{at}]"
        name, raw = _reading.named(entry, path)
        if name == "cachePoint":
            _reading.mark(tools, raw, path, extras)
        elif name == "toolSpec":
            tools.append(_tool(raw, f"{path}.toolSpec", extras))
        else:
            said = _typed.decode(_decode_name, raw, f"{path}.{name}")
            whole = Raw(msgspec.json.encode({name: raw}))
            tools.append(Tool(said.name, kind=name, format=SHAPE, raw=whole))
    return tuple(tools)


def _tool(raw: Raw, path: str, extras: Extras) -> Tool:
    tool = _typed.decode(_decode_tool, raw, path)
    for name, value in _decode_members(raw).items():
        if name not in _TOOL and not _reading.null(value):
            extras[f"{path}.{name}"] = value.copy()
    return Tool(tool.name, tool.description, tool.input_schema.json.copy(), tool.strict)


def _choice(choice: _wire.ToolChoice | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case _wire.ToolChoice(tool=_wire.Named(name=name)):
            return ToolChoice("tool", name)
        case _wire.ToolChoice(any=dict()):
            return ToolChoice("required")
        case _:
            return ToolChoice("auto")


def _output(wanted: _wire.TextFormat | None) -> OutputFormat | None:
    if wanted is None:
        return None
    said = wanted.structure.json_schema
    path = "outputConfig.textFormat.structure.jsonSchema.schema"
    try:
        _decode_members(said.schema.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _members.invalid(f"'{path}' must be the text of a JSON object.", path) from None
    return OutputFormat("schema", said.name, said.description, Raw(said.schema.encode()))
