"""A chat completions request -> Conversation.

Law: one decode, one walk; the first wrong value is a Fault naming its path. Nothing is guessed. What a Conversation cannot
say becomes an extra, named by its path.
"""

from __future__ import annotations

from typing import Any, assert_never, get_args

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Audio,
    CacheMark,
    Conversation,
    Document,
    Effort,
    Image,
    Media,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
)
from llm_gateway.formats import _members, _steps, _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Peek
from llm_gateway.formats.openai_chat import _media, _reasoning, _wire

SHAPE = "openai_chat"
_decode = msgspec.json.Decoder(_wire.Request).decode
_decode_items = msgspec.json.Decoder(list[Raw]).decode
_decode_message = msgspec.json.Decoder(_wire.Message).decode
_EFFORTS: dict[str, Effort] = {effort: effort for effort in get_args(Effort)}
_KNOWN = _typed.names(_wire.Request)
_MESSAGE = _typed.names(_wire.Message) | {"annotations"}
_TOOL = _typed.names(_wire.ToolSpec)
_PARTS = {
    kind.__struct_config__.tag: _typed.names(kind)
    for kind in (
        _wire.TextPart,
        _wire.RefusalPart,
        _wire.ThinkingPart,
        _wire.ImagePart,
        _wire.VideoPart,
        _wire.AudioPart,
        _wire.FilePart,
        _wire.DocumentPart,
    )
}


def read(peek: Peek) -> Conversation:
    request = _typed.decode(_decode, _members.join(peek.members))
    return drained(_read(peek, request, _typed.tree(peek.members["messages"])))


def read_steps(peek: Peek) -> Steps[Conversation]:
    given = yield from _steps.items(peek.members.get("messages"))
    request = yield from _steps.decoded(_decode, _decode_message, peek.members, "messages", given)
    trees = yield from _steps.trees(given)
    return (yield from _read(peek, request, trees))


def _read(peek: Peek, request: _wire.Request, trees: list[dict[str, Any]]) -> Steps[Conversation]:
    """trees: the messages, for what the typed ones have no place for."""
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    return Conversation(
        model=request.model,
        messages=(yield from _messages(request.messages)),
        tools=_tools(request, peek),
        tool_choice=_choice(request),
        parallel_tools=request.parallel_tool_calls,
        max_tokens=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        stop=_stop(request.stop),
        seed=request.seed,
        n=request.n,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
        logit_bias=request.logit_bias,
        output=_output(request.response_format),
        thinking=_thinking(request),
        modalities=tuple(request.modalities or ()),
        stream=bool(request.stream),
        stream_usage=peek.wants_usage,
        user=request.user,
        metadata=_given(request.metadata),
        service_tier=request.service_tier,
        verbosity=request.verbosity,
        functions=bool(request.functions) and not request.tools,
        format=SHAPE,
        extras=(yield from _extras(peek.members, trees)),
    )


def _given(raw: Raw) -> Raw | None:
    return None if bytes(raw) in {b"", b"null"} else raw.copy()


def _stop(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def _extras(members: dict[str, Raw], messages: list[dict[str, Any]]) -> Steps[dict[str, Raw]]:
    extras = {name: raw for name, raw in members.items() if name not in _KNOWN and bytes(raw) != b"null"}
    extras |= yield from _steps.unread(messages, _MESSAGE, "messages")
    for at, message in enumerate(messages):
        content = message.get("content")
        parts: list[dict[str, Any]] = content if isinstance(content, list) else []
        for position, part in enumerate(parts):
            known = _PARTS[part["type"]]
            for name in part.keys() - known:
                if part[name] is not None:
                    extras[f"messages[{at}].content[{position}].{name}"] = _typed.written(part[name])
        if at % STRIDE == STRIDE - 1:
            yield
    return extras


def _messages(messages: list[_wire.Message]) -> Steps[tuple[Message, ...]]:
    read: list[Message] = []
    legacy = ""  # the id we gave to the last function_call, which had none
    for at, message in enumerate(messages):
        path = f"messages[{at}]"
        match message.role:
            case "tool":
                if not message.tool_call_id:
                    raise _typed.missing(f"{path}.tool_call_id")
                read.append(_result(message, message.tool_call_id, path))
            case "function":
                read.append(_result(message, legacy or f"call_{at}", path))
            case "assistant":
                if message.function_call is not None:
                    legacy = f"call_{at}"
                read.append(Message("assistant", _assistant(message, legacy, path), message.name, path))
            case _:
                if message.content is None:
                    raise _typed.missing(f"{path}.content")
                read.append(Message(message.role, _content(message, path), message.name, path))
        if at % STRIDE == STRIDE - 1:
            yield
    return tuple(read)


def _result(message: _wire.Message, call: str, path: str) -> Message:
    content = _content(message, path)
    cache = next(
        (part.cache for part in content if isinstance(part, Text) and part.cache), _mark(message.cache_control)
    )
    return Message("tool", (ToolResult(call, content, name=message.name, cache=cache),), at=path)


def _assistant(message: _wire.Message, legacy: str, path: str) -> tuple[Part, ...]:
    parts: list[Part] = [*_reasoning.read(message.reasoning_details, message.reasoning_content, message.reasoning)]
    parts += _content(message, path)
    if message.refusal:
        parts.append(Refusal(message.refusal))
    if message.audio is not None:
        parts.append(Audio(Media(), id=message.audio.id))
    for position, call in enumerate(message.tool_calls or ()):
        parts.append(_call(call, f"{path}.tool_calls[{position}]"))
    if message.function_call is not None:
        parts.append(ToolCall(legacy, message.function_call.name, message.function_call.arguments))
    return tuple(parts)


def _call(call: _wire.Call, path: str) -> ToolCall:
    if not call.id:
        raise _typed.missing(f"{path}.id")
    if call.type == "custom":
        if call.custom is None:
            raise _typed.missing(f"{path}.custom")
        return ToolCall(call.id, call.custom.name, call.custom.input, "custom")
    if call.function is None:
        raise _typed.missing(f"{path}.function")
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return ToolCall(call.id, call.function.name, call.function.arguments, signature=signature)


def _content(message: _wire.Message, path: str) -> tuple[Part, ...]:
    content = message.content
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content, _mark(message.cache_control)),) if content else ()
    parts = [_part(part, f"{path}.content[{at}]") for at, part in enumerate(content)]
    if message.cache_control is not None and parts and isinstance(parts[-1], Text):
        parts[-1] = Text(parts[-1].text, _mark(message.cache_control))
    return tuple(parts)


def _part(part: _wire.Part, path: str) -> Part:
    match part:
        case _wire.TextPart(text=text, cache_control=cache):
            return Text(text, _mark(cache))
        case _wire.RefusalPart(refusal=text):
            return Refusal(text)
        case _wire.ThinkingPart(thinking=thinking):
            return Reasoning(thinking if isinstance(thinking, str) else "".join(piece.text for piece in thinking))
        case _wire.ImagePart(image_url=image, cache_control=cache):
            if isinstance(image, str):
                return Image(_media.from_url(image, f"{path}.image_url"), None, _mark(cache))
            return Image(_media.from_url(image.url, f"{path}.image_url.url"), image.detail, _mark(cache))
        case _wire.VideoPart(video_url=video, cache_control=cache):
            return Video(_media.from_url(video.url, f"{path}.video_url.url"), _mark(cache))
        case _wire.AudioPart(input_audio=audio):
            return Audio(Media(mime=_media.audio_mime(audio.format), data=audio.data), format=audio.format)
        case _wire.FilePart(file=file, cache_control=cache):
            return _file(file, _mark(cache), path)
        case _wire.DocumentPart(document_url=url, document_name=name):
            return Document(_media.from_url(url, f"{path}.document_url"), name=name)
        case _:
            assert_never(part)


def _file(file: _wire.FileData, cache: CacheMark | None, path: str) -> Document:
    if file.file_data is not None:
        data = file.file_data
        media = (
            _media.from_url(data, f"{path}.file.file_data") if data.startswith(("data:", "http")) else Media(data=data)
        )
    elif file.file_id:
        media = Media(file_id=file.file_id)
    else:
        raise _typed.missing(f"{path}.file.file_data")
    return Document(media, name=file.filename, cache=cache)


def _mark(cache: _wire.CacheControl | None) -> CacheMark | None:
    return None if cache is None else CacheMark(cache.ttl)


def _tools(request: _wire.Request, peek: Peek) -> tuple[Tool, ...]:
    tools = [_tool(tool, at, peek) for at, tool in enumerate(request.tools or ())]
    return (*tools, *(_function(function) for function in request.functions or ()))


def _tool(tool: _wire.ToolSpec, at: int, peek: Peek) -> Tool:
    cache = _mark(tool.cache_control)
    if tool.type == "function":
        if tool.function is None:
            raise _typed.missing(f"tools[{at}].function")
        return _function(tool.function, cache)
    if tool.type == "custom":
        if tool.custom is None:
            raise _typed.missing(f"tools[{at}].custom")
        return Tool(
            tool.custom.name, tool.custom.description, kind="custom", format=SHAPE, raw=_given(tool.custom.format)
        )
    raw = _typed.decode(_decode_items, peek.members["tools"])[at].copy()
    return Tool(tool.type, kind=tool.type, format=SHAPE, raw=raw)


def _function(function: _wire.FunctionSpec, cache: CacheMark | None = None) -> Tool:
    return Tool(function.name, function.description, _given(function.parameters), function.strict, cache)


def _choice(request: _wire.Request) -> ToolChoice | None:
    choice = request.tool_choice if request.tool_choice is not None else request.function_call
    match choice:
        case None:
            return None
        case "any":
            return ToolChoice("required")
        case str():
            return ToolChoice(choice)
        case _wire.Named(name=name):
            return ToolChoice("tool", name)
        case _wire.ToolChoice(allowed_tools=_wire.AllowedTools(mode=mode, tools=tools)):
            named = (tool.function or tool.custom for tool in tools)
            return ToolChoice(mode, allowed=tuple(one.name for one in named if one is not None))
        case _wire.ToolChoice(function=function, custom=custom):
            one = function or custom
            if one is None:
                raise _typed.missing("tool_choice.function.name")
            return ToolChoice("tool", one.name)
        case _:
            assert_never(choice)


def _output(wanted: _wire.ResponseFormat | None) -> OutputFormat | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return OutputFormat("json")
    schema = wanted.json_schema
    if schema is None:
        raise _typed.missing("response_format.json_schema")
    return OutputFormat("schema", schema.name, schema.description, _given(schema.schema), schema.strict)


def _thinking(request: _wire.Request) -> Thinking | None:
    effort = request.reasoning_effort
    if effort is not None and effort != "default":
        return Thinking(enabled=effort != "none", effort=effort)
    if (options := request.reasoning) is not None:
        asked = _EFFORTS.get(options.effort or "")
        visible = None if options.exclude is None else not options.exclude
        return Thinking(options.enabled is not False and asked != "none", asked, options.max_tokens, visible=visible)
    if request.thinking is not None:
        return Thinking(enabled=request.thinking.type != "disabled", budget=request.thinking.budget_tokens)
    return None if request.enable_thinking is None else Thinking(enabled=request.enable_thinking)
