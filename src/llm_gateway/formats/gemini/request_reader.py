"""A generateContent request -> Conversation.

Law: the first wrong value is a Fault naming its path; what a Conversation cannot say becomes an extra, named by its path.
The model and whether to stream are the path's to say. Each function's answer becomes a message of role `tool`, in its
place, and finds the call that it answers: by id, or by name where there is none.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, structs

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
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Peek
from llm_gateway.formats.gemini import _casing, _ids, _reading, _schema, _thinking, _wire
from llm_gateway.formats.gemini._reading import SHAPE

Extras = dict[str, Raw]
_decode = msgspec.json.Decoder(_wire.Request).decode
_decode_content = msgspec.json.Decoder(_wire.Content).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_function = msgspec.json.Decoder(_wire.Function).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_KNOWN = _typed.names(_wire.Request) | {"model", "cachedContent"}
_GENERATION = _typed.names(_wire.Generation)
_FUNCTION = _typed.names(_wire.Function) | {"behavior"}
_ROLES = frozenset({None, "", "user", "model", "function", "tool"})
_EMPTY = frozenset({b"", b"null"})


def read(peek: Peek) -> Conversation:
    body = _casing.normal(_members.join(peek.members))
    return drained(_read(peek, _typed.decode(_decode, body), _decode_members(body)))


def read_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("contents"))
    request = yield from _steps.decoded(_decode, _decode_content, peek.members, "contents", given, _casing.normal)
    rest = {name: raw for name, raw in peek.members.items() if name != "contents"}
    return (yield from _read(peek, request, _decode_members(_casing.normal(_members.join(rest)))))


def _read(peek: Peek, request: _wire.Request, members: dict[str, Raw]) -> Steps[Conversation]:
    """members: the body's, but for its contents."""
    extras: Extras = {
        name: raw.copy() for name, raw in members.items() if name not in _KNOWN and bytes(raw) not in _EMPTY
    }
    asked = request.generation_config or _wire.Generation()
    for name, raw in _members.object_(members, "generationConfig").items():
        if name not in _GENERATION and bytes(raw) not in _EMPTY:
            extras[f"generationConfig.{name}"] = raw.copy()
    return Conversation(
        model=peek.model,
        messages=(yield from _messages(request, members, extras)),
        tools=_tools(request.tools or [], extras),
        tool_choice=_choice(request.tool_config),
        max_tokens=asked.max_output_tokens or None,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=None if asked.top_k is None else int(asked.top_k),
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        stop=tuple(asked.stop_sequences or ()),
        seed=asked.seed,
        n=asked.candidate_count,
        logprobs=asked.response_logprobs,
        top_logprobs=asked.logprobs,
        output=_output(asked),
        thinking=_thinking.read(asked.thinking_config),
        modalities=tuple(one.lower() for one in asked.response_modalities or ()),
        stream=peek.stream,
        stream_usage=True,
        format=SHAPE,
        extras=extras,
    )


def _messages(request: _wire.Request, members: dict[str, Raw], extras: Extras) -> Steps[tuple[Message, ...]]:
    messages: list[Message] = []
    if (cached := members.get("cachedContent")) is not None and bytes(cached) not in _EMPTY:
        # The prompt's beginning, kept by the account that made it: other shapes must refuse it, not leave it out.
        kept = Opaque(SHAPE, "cachedContent", Raw(b'{"cachedContent":%b}' % bytes(cached)))
        messages.append(Message("user", (kept,), at="cachedContent"))
    system = request.system_instruction
    if isinstance(system, str):
        system = _wire.Content([Raw(msgspec.json.encode({"text": system}))])
    if system is not None and (parts := _parts(system, "systemInstruction", 0, extras)):
        messages.append(Message("system", parts, at="systemInstruction"))
    calls: list[ToolCall] = []
    for at, content in enumerate(request.contents):
        path = f"contents[{at}]"
        if content.role not in _ROLES:
            raise invalid(f"'{path}.role' must be 'user' or 'model'.", f"{path}.role")
        parts = _parts(content, path, at, extras)
        if content.role == "model":
            calls += [part for part in parts if isinstance(part, ToolCall)]
            messages.append(Message("assistant", parts, at=path))
        else:
            messages += _turns(parts, path, calls)
        if at % STRIDE == STRIDE - 1:
            yield
    return tuple(messages)


def _parts(content: _wire.Content, path: str, at: int, extras: Extras) -> tuple[Part, ...]:
    parts: list[Part] = []
    for place, raw in enumerate(content.parts or ()):
        part = _reading.part(raw, f"{path}.parts[{place}]", _ids.made(str(at), place), extras)
        if isinstance(part, ToolCall) and not part.name:
            raise _typed.missing(f"{path}.parts[{place}].functionCall.name")
        if part is not None:
            parts.append(part)
    return tuple(parts)


def _turns(parts: tuple[Part, ...], path: str, calls: list[ToolCall]) -> list[Message]:
    """A user content's function answers as messages of their own, in order with the rest. calls: those not answered yet."""
    turns: list[Message] = []
    said: list[Part] = []
    for part in parts:
        if isinstance(part, ToolResult):
            if said:
                turns.append(Message("user", tuple(said), at=path))
                said = []
            turns.append(Message("tool", (_answering(part, path, calls),), at=path))
        else:
            said.append(part)
    if said or not turns:
        turns.append(Message("user", tuple(said), at=path))
    return turns


def _answering(result: ToolResult, path: str, calls: list[ToolCall]) -> ToolResult:
    by_id = (call for call in calls if result.call_id and call.id == result.call_id)
    by_name = (call for call in calls if not result.call_id and call.name == result.name)
    call = next(by_id, None) or next(by_name, None)
    if call is not None:
        calls.remove(call)
        return structs.replace(result, call_id=call.id, name=call.name)
    if not result.name:
        raise _typed.missing(f"{path}.functionResponse.name")
    return result if result.call_id else structs.replace(result, call_id=_ids.made(result.name, 0))


def _tools(given: list[dict[str, Raw]] | dict[str, Raw], extras: Extras) -> tuple[Tool, ...]:
    """Gemini takes one entry without its array, too."""
    tools: list[Tool] = []
    for at, entry in enumerate(given if isinstance(given, list) else [given]):
        for name, raw in entry.items():
            if bytes(raw) in _EMPTY:
                continue
            if name == "functionDeclarations":
                tools += _functions(raw, f"tools[{at}].functionDeclarations", extras)
            else:
                tools.append(Tool(name, kind=name, format=SHAPE, raw=Raw(msgspec.json.encode({name: raw}))))
    return tuple(tools)


def _functions(raw: Raw, path: str, extras: Extras) -> list[Tool]:
    tools: list[Tool] = []
    for at, each in enumerate(_typed.decode(_decode_list, raw, path)):
        one = _typed.decode(_decode_function, each, f"{path}[{at}]")
        for name, value in _decode_members(each).items():
            if name not in _FUNCTION and bytes(value) not in _EMPTY:
                extras[f"{path}[{at}].{name}"] = value.copy()
        tools.append(Tool(one.name, one.description, _parameters(one)))
    return tools


def _parameters(function: _wire.Function) -> Raw | None:
    if bytes(function.parameters_json_schema) not in _EMPTY:
        return function.parameters_json_schema.copy()
    return None if bytes(function.parameters) in _EMPTY else _schema.read(function.parameters)


def _choice(config: _wire.ToolConfig | None) -> ToolChoice | None:
    calling = config.function_calling_config if config is not None else None
    if calling is None or not calling.mode:
        return None
    allowed = tuple(calling.allowed_function_names or ())
    match calling.mode.upper():
        case "NONE":
            return ToolChoice("none")
        case "ANY" if len(allowed) == 1:
            return ToolChoice("tool", allowed[0])
        case "ANY":
            return ToolChoice("required", allowed=allowed)
        case "AUTO" | "VALIDATED" | "MODE_UNSPECIFIED":
            return ToolChoice("auto", allowed=allowed)
        case _:
            path = "toolConfig.functionCallingConfig.mode"
            raise invalid(f"'{path}' must be AUTO, ANY, NONE or VALIDATED.", path)


def _output(asked: _wire.Generation) -> OutputFormat | None:
    if bytes(asked.response_json_schema) not in _EMPTY:
        return OutputFormat("schema", schema=asked.response_json_schema.copy())
    if bytes(asked.response_schema) not in _EMPTY:
        return OutputFormat("schema", schema=_schema.read(asked.response_schema))
    return OutputFormat("json") if asked.response_mime_type == "application/json" else None
