"""A messages request -> Conversation.

Law: the first wrong value is a Fault naming its path; what a Conversation cannot say becomes an extra, named by its path.
`system` becomes the first message; each tool result becomes a message of role `tool`, in its place.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Conversation,
    Message,
    OutputFormat,
    Part,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
)
from llm_gateway.formats import _members, _steps, _typed
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.anthropic_messages import _blocks, _wire
from llm_gateway.formats.contract import Peek

_decode = msgspec.json.Decoder(_wire.Request).decode
_decode_message = msgspec.json.Decoder(_wire.Message).decode
_decode_tool = msgspec.json.Decoder(_wire.ToolSpec).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_KNOWN = _typed.names(_wire.Request)
_TOOL = _typed.names(_wire.ToolSpec)


def read(peek: Peek) -> Conversation:
    return drained(_read(peek, _typed.decode(_decode, _members.join(peek.members))))


def read_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("messages"))
    request = yield from _steps.decoded(_decode, _decode_message, peek.members, "messages", given)
    return (yield from _read(peek, request))


def _read(peek: Peek, request: _wire.Request) -> Steps[Conversation]:
    extras = {name: raw for name, raw in peek.members.items() if name not in _KNOWN and bytes(raw) != b"null"}
    choice = request.tool_choice
    user = (request.metadata or {}).get("user_id")
    return Conversation(
        model=request.model,
        messages=(yield from _messages(request, extras)),
        tools=tuple(_tool(raw, f"tools[{at}]", extras) for at, raw in enumerate(request.tools or ())),
        tool_choice=_choice(choice),
        parallel_tools=False if choice is not None and choice.disable_parallel_tool_use else None,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=tuple(request.stop_sequences or ()),
        output=_output(request),
        thinking=_thinking(request),
        stream=bool(request.stream),
        stream_usage=True,
        user=user if isinstance(user, str) else None,
        service_tier=request.service_tier,
        cache=_blocks.mark(request.cache_control),
        format=_blocks.SHAPE,
        extras=extras,
    )


def _messages(request: _wire.Request, extras: dict[str, Raw]) -> Steps[tuple[Message, ...]]:
    messages: list[Message] = []
    if system := _blocks.read(request.system, "system", extras):
        messages.append(Message("system", system, at="system"))
    for at, message in enumerate(request.messages):
        parts = _blocks.read(message.content, f"messages[{at}].content", extras)
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


def _tool(raw: Raw, path: str, extras: dict[str, Raw]) -> Tool:
    tool = _typed.decode(_decode_tool, raw, path)
    if tool.type not in {None, "custom"}:
        return Tool(
            tool.name,
            cache=_blocks.mark(tool.cache_control),
            kind=tool.type or "",
            format=_blocks.SHAPE,
            raw=raw.copy(),
        )
    for name, value in _decode_members(raw).items():
        if name not in _TOOL and bytes(value) not in {b"null", b"false"}:
            extras[f"{path}.{name}"] = value.copy()
    if not bytes(tool.input_schema):
        raise _typed.missing(f"{path}.input_schema")
    return Tool(tool.name, tool.description, tool.input_schema.copy(), tool.strict, _blocks.mark(tool.cache_control))


def _choice(choice: _wire.ToolChoice | None) -> ToolChoice | None:
    match choice:
        case None:
            return None
        case _wire.ToolChoice(type="any"):
            return ToolChoice("required")
        case _wire.ToolChoice(type="tool", name=name):
            if not name:
                raise _typed.missing("tool_choice.name")
            return ToolChoice("tool", name)
        case _wire.ToolChoice(type="none"):
            return ToolChoice("none")
        case _:
            return ToolChoice("auto")


def _output(request: _wire.Request) -> OutputFormat | None:
    wanted = request.output_format or (request.output_config.format if request.output_config is not None else None)
    return None if wanted is None else OutputFormat("schema", schema=wanted.schema.copy())


def _thinking(request: _wire.Request) -> Thinking | None:
    config = request.thinking
    effort = request.output_config.effort if request.output_config is not None else None
    if config is None:
        return None if effort is None else Thinking(effort=effort)
    return Thinking(
        enabled=config.type != "disabled",
        effort=effort,
        budget=config.budget_tokens,
        adaptive=config.type in {"adaptive", "between_tools"},
        visible=None if config.display is None else config.display != "omitted",
    )
