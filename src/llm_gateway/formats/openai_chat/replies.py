"""A whole chat completion <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no completion at all is a Fault.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import (
    Audio,
    Choice,
    Completion,
    Document,
    Image,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.openai_chat import _logprobs, _reasoning, _reply_wire, _usage, errors
from llm_gateway.formats.openai_chat.request_reader import SHAPE

Fields = dict[str, Any]
_decode = tolerant(msgspec.json.Decoder(_reply_wire.Reply).decode)
_FINISHES = {"pause": "stop"}
_OWN_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
_TIERS = {"standard": "default"}


def read(body: bytes) -> Completion:
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a chat completion.") from None
    if reply.error:
        raise errors.read(200, body)
    if reply.choices is None:
        raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply has no choices.")
    return Completion(
        id=reply.id or "",
        model=reply.model or "",
        choices=tuple(_choice(choice, at) for at, choice in enumerate(reply.choices)),
        usage=_usage.read(reply.usage, reply.service_tier) if reply.usage else None,
        created=int(reply.created or 0),
        service_tier=reply.service_tier or None,
        fingerprint=reply.system_fingerprint or None,
        format=SHAPE,
    )


def _choice(choice: _reply_wire.Choice, at: int) -> Choice:
    parts = _parts(choice.message) if choice.message is not None else (Text(choice.text),) if choice.text else ()
    called = any(isinstance(part, ToolCall) for part in parts)
    finish, native = _reply_wire.finish(choice.finish_reason, called=called)
    return Choice(
        parts,
        finish,
        choice.index if choice.index is not None else at,
        choice.stop_reason if isinstance(choice.stop_reason, str) else None,
        choice.native_finish_reason or native,
        _logprobs.read(choice.logprobs),
    )


def _parts(message: _reply_wire.Message) -> tuple[Part, ...]:
    parts: list[Part] = list(_reasoning.read(message.reasoning_details, message.reasoning_content, message.reasoning))
    cited = tuple(one for note in message.annotations or () if (one := _reply_wire.citation(note)) is not None)
    if isinstance(message.content, str):
        if message.content:
            parts.append(Text(message.content, citations=cited))
    else:
        for thinks, text in _reply_wire.pieces(message.content or []):
            parts.append(Reasoning(text) if thinks else Text(text, citations=cited))
    if message.refusal:
        parts.append(Refusal(message.refusal))
    audio = message.audio
    if audio is not None and (audio.id or audio.data):
        parts.append(Audio(Media(data=audio.data), None, audio.id, audio.transcript, audio.expires_at))
    for at, call in enumerate(message.tool_calls or ()):
        parts.append(_call(call, at))
    function = message.function_call
    if function is not None and function.name:  # Snowflake sends every member, those without meaning empty
        parts.append(ToolCall("call_0", function.name, _reply_wire.arguments(function.arguments)))
    return tuple(parts)


def _call(call: _reply_wire.Call, at: int) -> ToolCall:
    name = call.id or f"call_{at}"
    if call.custom is not None and (call.type == "custom" or call.function is None):
        return ToolCall(name, call.custom.name or "", call.custom.input or "", "custom")
    function = call.function or _reply_wire.Function()
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return ToolCall(name, function.name or "", _reply_wire.arguments(function.arguments), signature=signature)


def write(reply: Completion, now: int, *, functions: bool = False) -> Outgoing:
    """functions: the client knows no `tool_calls`, only its predecessor."""
    dropped: list[str] = []
    body: Fields = {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created or now,
        "model": reply.model,
        "choices": [_write_choice(choice, dropped, functions=functions) for choice in reply.choices],
    }
    if reply.usage is not None:
        body["usage"] = _usage.write(reply.usage)
    if (told := tier(reply.service_tier)) is not None:
        body["service_tier"] = told
    if reply.fingerprint is not None:
        body["system_fingerprint"] = reply.fingerprint
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(dropped)))


def tier(name: str | None) -> str | None:
    """One of OpenAI's tiers, the only ones that its clients know."""
    return _TIERS.get(name, name if name in _OWN_TIERS else None) if name is not None else None


def _write_choice(choice: Choice, dropped: list[str], *, functions: bool) -> Fields:
    message = _message(choice, dropped)
    finish = _FINISHES.get(choice.finish, choice.finish)
    if functions and "tool_calls" in message:
        first, *more = message.pop("tool_calls")
        message["function_call"] = first.get("function")  # there can be one only
        dropped += ["content.tool_calls"] if more else []
        finish = "function_call" if finish == "tool_calls" else finish
    return {
        "index": choice.index,
        "message": message,
        "logprobs": None if choice.logprobs is None else _logprobs.write(choice.logprobs),
        "finish_reason": finish,
    }


def _message(choice: Choice, dropped: list[str]) -> Fields:
    texts: list[str] = []
    thoughts: list[Reasoning] = []
    calls: list[Fields] = []
    notes: list[Fields] = []
    message: Fields = {"role": "assistant", "content": None, "refusal": None}
    for part in choice.parts:
        match part:
            case Text(text=text):
                offset = sum(map(len, texts))
                notes += [
                    note
                    for cited in part.citations
                    if (note := annotation(cited.url, cited.title, offset, offset + len(text)))
                ]
                texts.append(text)
            case Refusal(text=text):
                message["refusal"] = text
            case Reasoning():
                thoughts.append(part)
            case ToolCall():
                calls.append(_write_call(part))
            case Audio(media=media, id=name, transcript=transcript, expires_at=expires):
                message["audio"] = {
                    "id": name or "",
                    "data": media.data,
                    "transcript": transcript or "",
                    "expires_at": expires or 0,
                }
            case Opaque(kind=kind):
                dropped.append(f"content.{kind}")
            case Image() | Video() | Document() | ToolResult():
                dropped.append(f"content.{type(part).__name__.lower()}")
            case _:
                assert_never(part)
    if texts:
        message["content"] = "".join(texts)
    if calls:
        message["tool_calls"] = calls
    if notes:
        message["annotations"] = notes
    if shown := _reasoning.shown(thoughts):
        message["reasoning_content"] = shown
    if sealed := _reasoning.details(thoughts):
        message["reasoning_details"] = sealed
    return message


def annotation(url: str | None, title: str | None, start: int, end: int) -> Fields | None:
    """start, end: the text that the source stands behind, in characters of the whole answer."""
    if url is None:
        return None
    cited = {"url": url, "title": title or "", "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": cited}


def _write_call(call: ToolCall) -> Fields:
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": call.arguments}}
    written: Fields = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    if call.signature is not None:
        written["extra_content"] = {"google": {"thought_signature": call.signature}}
    return written
