"""A whole reply of Ollama's <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no reply at all is a Fault. What no Completion can say
(durations, a generate's context) is kept in `extras` and goes back to clients of Ollama's shapes only.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import (
    Audio,
    Choice,
    Completion,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats import _arguments, _typed
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.contract import Outgoing, Summary
from llm_gateway.formats.ollama import _facts, _media, _wire, errors

CHAT, GENERATE = "ollama_chat", "ollama_generate"
SHAPES = frozenset({CHAT, GENERATE})
Fields = dict[str, Any]
_decode = msgspec.json.Decoder(_wire.Reply).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_KNOWN = _typed.names(_wire.Reply) - {"created_at"}


def _look(body: bytes) -> _wire.Reply:
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_reply() from None
    if not reply.error and reply.said() is None:
        raise _no_reply()
    return reply


def _no_reply() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a reply of Ollama's chat or generate.")


def summarise(body: bytes) -> Summary:
    reply = _look(body)
    if reply.error:
        return Summary(None, fault=errors.read(200, body))
    return Summary(_facts.usage(reply), reply.done_reason)


def read(body: bytes) -> Completion:
    reply = _look(body)
    if reply.error:
        raise errors.read(200, body)
    said = reply.said() or _wire.Said()
    parts = _parts(said, reply.created_at)
    reason, native = _facts.finish(reply.done_reason, called=bool(said.tool_calls))
    return Completion(
        id=_facts.reply_id(reply.created_at),
        model=reply.model or "",
        choices=(Choice(parts, reason, native_finish=native, logprobs=_facts.logprobs(reply.logprobs)),),
        usage=_facts.usage(reply),
        created=_facts.moment(reply.created_at),
        format=GENERATE if reply.message is None else CHAT,
        extras={name: raw for name, raw in _decode_members(body).items() if name not in _KNOWN},
    )


def _parts(said: _wire.Said, when: str | None) -> tuple[Part, ...]:
    parts: list[Part] = []
    if said.thinking:
        parts.append(Reasoning(said.thinking))
    if said.content:
        parts.append(Text(said.content))
    parts += [Image(_media.read(data)) for data in said.images or ()]
    parts += [tool_call(call, when, at) for at, call in enumerate(said.tool_calls or ())]
    return tuple(parts)


def tool_call(call: _wire.SaidCall, when: str | None, place: int) -> ToolCall:
    function = call.function or _wire.SaidFunction()
    written = bytes(function.arguments)
    arguments = "{}" if written in {b"", b"null"} else written.decode()
    return ToolCall(call.id or _facts.call_id(when, place), function.name or "", arguments)


def write(reply: Completion, now: int, *, generate: bool) -> Outgoing:
    dropped: list[str] = []
    body: Fields = {"model": reply.model, "created_at": _facts.time(reply.created or now)}
    if reply.choices:
        choice = reply.choices[0]
        body |= placed(_said(choice, dropped, pictured=generate), generate=generate)
        body |= {"done": True, "done_reason": choice.native_finish or _facts.done_reason(choice.finish)}
        if choice.logprobs is not None:
            body["logprobs"] = _facts.written_logprobs(choice.logprobs)
    else:
        body |= placed({}, generate=generate) | {"done": True, "done_reason": "stop"}
    if reply.usage is not None:
        body |= _facts.written_usage(reply.usage)
    if reply.format in SHAPES:
        body |= reply.extras
    elif len(reply.choices) > 1:
        dropped.append("choices")
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(dropped)))


def placed(said: Fields, *, generate: bool) -> Fields:
    """What was said where the shape says it: `content` in a message, or as `response` beside the rest."""
    if not generate:
        return {"message": {"role": "assistant", "content": "", **said}}
    return {"response": said.get("content", ""), **{name: value for name, value in said.items() if name != "content"}}


def _said(choice: Choice, dropped: list[str], *, pictured: bool) -> Fields:
    """pictured: the shape has a place for an image, one; messages have one, too, but Ollama's own client fails on it."""
    texts: list[str] = []
    thoughts: list[str] = []
    images: list[str] = []
    calls: list[Fields] = []
    for part in choice.parts:
        match part:
            case Text(text=text, citations=citations):
                texts.append(text)
                if citations:
                    dropped.append("content.citations")
            case Refusal(text=text):
                texts.append(text)
            case Reasoning(redacted=None):
                thoughts.append(part.text or "\n\n".join(part.summary))
            case ToolCall():
                calls.append(written_call(part, len(calls)))
            case Image(media=media) if media.data is not None and pictured and not images:
                images.append(media.data)
            case Audio(transcript=str() as transcript):
                texts.append(transcript)
                dropped.append("content.audio")
            case Opaque(kind=kind):
                dropped.append(f"content.{kind}")
            case Audio() | Image() | Video() | Document() | ToolResult() | Reasoning():
                dropped.append(f"content.{type(part).__name__.lower()}")
            case _:
                assert_never(part)
    said: Fields = {"content": "".join(texts)}
    said |= {"thinking": "".join(thoughts)} if any(thoughts) else {}
    said |= {"image": images[0]} if images else {}
    return said | ({"tool_calls": calls} if calls else {})


def written_call(call: ToolCall, place: int) -> Fields:
    function = {"index": place, "name": call.name, "arguments": _arguments.told(call)}
    return {"id": call.id, "function": function} if call.id else {"function": function}
