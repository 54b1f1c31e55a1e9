"""Conversation -> a chat completions request, in the words every service of this shape understands.

Law: text-only content is one string, since many services take no lists; `max_tokens` unless the model is OpenAI's own, whose
newer ones refuse it; a developer's words are the system's, unless it is. What gets lost is reported, as `crossings` says.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Audio,
    Conversation,
    Document,
    Effort,
    Image,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats import _schema, _steps, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import STRIDE, Steps, drained
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.openai_chat import _media, _models, _reasoning
from llm_gateway.formats.openai_chat.request_reader import SHAPE

PATH = "/chat/completions"
Fields = dict[str, Any]
_MOST_STOPS = 4
_LONGEST_USER = 64
_BUDGETS: tuple[tuple[int, Effort], ...] = ((1024, "minimal"), (4096, "low"), (12000, "medium"))
_TIERS = {"standard_only": "default"}
# Fields written as they are, under the same name.
_PLAIN = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "metadata",
    "verbosity",
)


def write(call: Conversation, model: str) -> Outgoing:
    body, dropped = drained(_write(call, model))
    return Outgoing(msgspec.json.encode(body), PATH, dropped=tuple(dict.fromkeys(dropped)))


def write_steps(call: Conversation, model: str) -> Steps[Outgoing]:
    body, dropped = yield from _write(call, model)
    written = yield from _steps.encoded(body, "messages")
    return Outgoing(written, PATH, dropped=tuple(dict.fromkeys(dropped)))


def _write(call: Conversation, model: str) -> Steps[tuple[Fields, list[str]]]:
    dropped = crossings.unsaid(call, SHAPE)
    body: Fields = {"model": model, "messages": (yield from _messages(call, model, dropped))}
    effort = _effort(call.thinking)
    if effort is not None and _models.thinks(model):
        body["reasoning_effort"] = effort
    elif effort not in {None, "none"}:
        dropped.append(crossings.name(call, "thinking"))
    untaken, lost = _models.unsampled(call, model, effort)
    dropped += lost
    body |= {field: value for field in _PLAIN if field not in untaken and (value := getattr(call, field)) is not None}
    if call.max_tokens is not None:
        body["max_completion_tokens" if _models.own(model) else "max_tokens"] = call.max_tokens
    if call.stop and "stop" not in untaken:
        _write_stop(call, body, dropped)
    _write_tools(call, body, dropped)
    _write_rest(call, body, dropped)
    if call.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if call.format == SHAPE:
        body |= {name: raw for name, raw in call.extras.items() if "[" not in name}
    return body, dropped


def _messages(call: Conversation, model: str, dropped: list[str]) -> Steps[list[Fields]]:
    written: list[Fields] = []
    developer = "developer" if _models.own(model) else "system"
    pending: list[Part] = []  # images from tool results, which only a user message may hold
    for at, message in enumerate(call.messages):
        if at % STRIDE == STRIDE - 1:
            yield
        if message.role != "tool" and pending:
            written.append({"role": "user", "content": _parts(Message("user", tuple(pending), at=message.at), dropped)})
            pending = []
        if message.role == "assistant":
            written.append(_assistant(message, dropped))
        elif message.role == "tool":
            written += [
                _result(part, message, pending, dropped) for part in message.parts if isinstance(part, ToolResult)
            ]
        else:
            role = developer if message.role == "developer" else message.role
            fields: Fields = {"role": role, "content": _parts(message, dropped)}
            if message.name is not None:
                fields["name"] = message.name
            written.append(fields)
    if pending:
        last = Message("user", tuple(pending), at=call.messages[-1].at)
        written.append({"role": "user", "content": _parts(last, dropped)})
    return written


def _parts(message: Message, dropped: list[str]) -> str | list[Fields]:
    if all(isinstance(part, Text) for part in message.parts):
        return _text(message, dropped)
    return [_part(part, message, dropped) for part in message.parts]


def _text(message: Message, dropped: list[str]) -> str:
    texts = [part for part in message.parts if isinstance(part, Text)]
    if any(part.cache is not None for part in texts):
        dropped.append(f"{message.at}.cache_control")
    return "\n\n".join(part.text for part in texts)


def _part(part: Part, message: Message, dropped: list[str]) -> Fields:
    if isinstance(part, Text | Image | Document | Video) and part.cache is not None:
        dropped.append(f"{message.at}.cache_control")
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Refusal(text=text):
            return {"type": "refusal", "refusal": text}
        case Image(media=media, detail=detail):
            if media.file_id is not None:
                raise _impossible(message, "an image by file id")
            url = {"url": _media.to_url(media)}
            return {"type": "image_url", "image_url": url if detail is None else {**url, "detail": detail}}
        case Audio(media=media, format=name) if media.data is not None:
            return {"type": "input_audio", "input_audio": {"data": media.data, "format": name or "wav"}}
        case Video(media=media) if media.file_id is None:
            return {"type": "video_url", "video_url": {"url": _media.to_url(media)}}
        case Document():
            return _document(part, message)
        case Opaque(format=shape, raw=raw) if shape == SHAPE:
            return dict(msgspec.json.decode(raw))
        case Opaque(kind=kind):
            raise _impossible(message, f"'{kind}' parts")
        case Audio() | Video():
            raise _impossible(message, "media by id")
        case ToolCall() | ToolResult() | Reasoning():
            raise _impossible(message, "tool calls and thoughts from a user")
        case _:
            assert_never(part)


def _impossible(message: Message, what: str) -> Fault:
    path = crossings.inside(message.at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)


def _document(part: Document, message: Message) -> Fields:
    if part.text is not None:
        about = "\n".join(line for line in (part.name, part.context) if line)
        return {"type": "text", "text": f"{about}\n\n{part.text}" if about else part.text}
    media = part.media
    if (
        media is None
        or (media.url is not None)
        or (media.file_id is not None and not media.file_id.startswith("file-"))
    ):
        raise _impossible(message, "a document by URL or id")
    if media.file_id is not None:
        return {"type": "file", "file": {"file_id": media.file_id}}
    return {
        "type": "file",
        "file": {"filename": part.name or _media.file_name(media.mime), "file_data": _media.to_url(media)},
    }


def _assistant(message: Message, dropped: list[str]) -> Fields:
    fields: Fields = {"role": "assistant"}
    texts = tuple(part for part in message.parts if isinstance(part, Text))
    content = "".join(part.text for part in texts)
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    fields["content"] = content or None
    if calls:
        fields["tool_calls"] = calls
    thoughts: list[str] = []
    for part in message.parts:
        match part:
            case Refusal(text=text):
                fields["refusal"] = text
            case Audio(id=str() as name):
                fields["audio"] = {"id": name}
            case Reasoning(signature=None, redacted=None):
                thoughts.append(_reasoning.shown([part]))
            case Reasoning():
                dropped.append(f"{message.at}.thinking")
            case Text(cache=cache) | ToolCall(cache=cache) if cache is not None:
                dropped.append(f"{message.at}.cache_control")
            case Text() | ToolCall():
                pass
            case Opaque(kind=kind):
                dropped.append(f"{message.at}.content.{kind}")
            case _:
                dropped.append(f"{message.at}.content.{type(part).__name__.lower()}")
    if thoughts:
        fields["reasoning_content"] = "".join(thoughts)
    if content == "" and not calls and "refusal" not in fields and "audio" not in fields:
        fields["content"] = ""
    if message.name is not None:
        fields["name"] = message.name
    return fields


def _call(part: ToolCall) -> Fields:
    if part.kind == "custom":
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": part.arguments}}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}


def _result(part: ToolResult, message: Message, pending: list[Part], dropped: list[str]) -> Fields:
    texts = tuple(piece for piece in part.content if isinstance(piece, Text))
    others = [piece for piece in part.content if not isinstance(piece, Text)]
    if others:
        pending.append(Text(f"Attachments of tool result {part.call_id}:"))
        pending += others
    if part.cache is not None:
        dropped.append(f"{message.at}.cache_control")
    text = _text(Message("tool", texts, at=message.at), dropped)
    if part.is_error and not text.lower().startswith("error"):
        text = f"Error: {text}"
    return {"role": "tool", "tool_call_id": part.call_id, "content": text}


def _write_tools(call: Conversation, body: Fields, dropped: list[str]) -> None:
    if not call.tools:
        return
    body["tools"] = [_tool(tool, at, dropped) for at, tool in enumerate(call.tools)]
    choice = call.tool_choice
    if choice is not None:
        if choice.allowed:
            named = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
            body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}
        elif choice.mode == "tool":
            kinds = {tool.name: tool.kind for tool in call.tools}
            kind = "custom" if kinds.get(choice.name or "") == "custom" else "function"
            body["tool_choice"] = {"type": kind, kind: {"name": choice.name}}
        else:
            body["tool_choice"] = choice.mode
    if call.parallel_tools is not None:
        body["parallel_tool_calls"] = call.parallel_tools


def _tool(tool: Tool, at: int, dropped: list[str]) -> object:
    if tool.cache is not None:
        dropped.append(f"tools[{at}].cache_control")
    if tool.kind == "function":
        function: Fields = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.schema is not None:
            function["parameters"] = _schema.with_properties(tool.schema)
        if tool.strict is not None:
            function["strict"] = tool.strict
        return {"type": "function", "function": function}
    if tool.format != SHAPE:
        raise crossings.no_tool(tool, at)
    if tool.kind != "custom":
        return tool.raw
    custom: Fields = {"name": tool.name}
    custom |= {"description": tool.description} if tool.description is not None else {}
    custom |= {"format": tool.raw} if tool.raw is not None else {}
    return {"type": "custom", "custom": custom}


def _write_stop(call: Conversation, body: Fields, dropped: list[str]) -> None:
    body["stop"] = list(call.stop[:_MOST_STOPS])
    if len(call.stop) > _MOST_STOPS:
        dropped.append(crossings.name(call, "stop"))


def _write_rest(call: Conversation, body: Fields, dropped: list[str]) -> None:
    if call.output is not None:
        _write_output(call, body)
    if call.modalities:
        body["modalities"] = list(call.modalities)
    if call.user is not None:
        if len(call.user) <= _LONGEST_USER:
            body["user"] = call.user
        else:
            dropped.append(crossings.name(call, "user"))
    if call.service_tier is not None:
        body["service_tier"] = _TIERS.get(call.service_tier, call.service_tier)


def _write_output(call: Conversation, body: Fields) -> None:
    output = call.output
    if output is None or output.kind == "text":
        return
    if output.kind == "json":
        body["response_format"] = {"type": "json_object"}
        return
    schema: Fields = {"name": output.name or "reply", "schema": output.schema}
    if output.description is not None:
        schema["description"] = output.description
    if output.strict is not None:
        schema["strict"] = output.strict
    elif call.format != SHAPE:
        schema["strict"] = True  # a schema that binds is what the other shapes mean by one
    body["response_format"] = {"type": "json_schema", "json_schema": schema}


def _effort(thinking: Thinking | None) -> Effort | None:
    """Switched off, it is left to the model's default: "none" is refused by most."""
    if thinking is None:
        return None
    if thinking.effort is not None:
        return thinking.effort
    if thinking.enabled is False or thinking.budget is None:
        return None
    for most, effort in _BUDGETS:
        if thinking.budget <= most:
            return effort
    return "high"
