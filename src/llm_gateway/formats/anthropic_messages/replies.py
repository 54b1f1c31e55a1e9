"""A whole message <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no message at all is a Fault.
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
    FinishReason,
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
from llm_gateway.formats._halves import replaced
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.anthropic_messages import _blocks, _parts, _usage, _wire, errors
from llm_gateway.formats.contract import Outgoing

Fields = dict[str, Any]
_decode = msgspec.json.Decoder(_wire.Reply).decode
_decode_kind = msgspec.json.Decoder(_wire.Kind).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_FINISHES: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "content_filter",
}
_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
    "content_filter": "refusal",
    "error": "end_turn",
}


def finish(word: str | None) -> tuple[FinishReason, str | None]:
    """The reason, and Anthropic's own word where ours says less."""
    known = _FINISHES.get(word or "end_turn", "stop")
    return known, word if word and _STOP_REASONS[known] != word else None


def stop_reason(reason: FinishReason, stop_sequence: str | None) -> str:
    return "stop_sequence" if stop_sequence is not None and reason == "stop" else _STOP_REASONS[reason]


def unfinished() -> Fault:
    """Of an answer that ended in an error: this API has no stop reason for it, and any of them would be taken for success."""
    return Fault(Kind.UPSTREAM_ERROR, "The model could not finish its answer. Send the request again.", code="model_failed")


def read(body: bytes) -> Completion:
    body = replaced(body)
    try:
        if _decode_kind(body).type == "error":
            raise errors.read(200, body)
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a message.") from None
    parts = _read_parts(reply.content)
    reason, native = finish(reply.stop_reason)
    return Completion(
        id=reply.id,
        model=reply.model,
        choices=(Choice(parts, reason, 0, reply.stop_sequence, native),),
        usage=_usage.read(reply.usage) if reply.usage else None,
        service_tier=_tier(reply.usage),
        format=_blocks.SHAPE,
    )


def _read_parts(content: list[Raw]) -> tuple[Part, ...]:
    try:
        return tuple(_blocks.block(raw, f"content[{at}]", {}) for at, raw in enumerate(content))
    except Fault as fault:
        raise Fault(Kind.UPSTREAM_BROKEN, f"The upstream's reply is not a message: {fault.message}") from None


def _tier(usage: dict[str, Any] | None) -> str | None:
    tier = (usage or {}).get("service_tier")
    return tier if isinstance(tier, str) else None


def write(reply: Completion) -> Outgoing:
    """Raises Fault UPSTREAM_ERROR for an answer that the model could not finish."""
    dropped: list[str] = []
    choice = reply.choices[0] if reply.choices else Choice((), "stop")
    if choice.finish == "error":
        raise unfinished()
    written = (_block(part, dropped) for part in choice.parts)
    body: Fields = {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [block for block in written if block is not None],
        "stop_reason": stop_reason(choice.finish, choice.stop_sequence),
        "stop_sequence": choice.stop_sequence,
        "usage": _usage.write(reply.usage) if reply.usage is not None else {"input_tokens": 0, "output_tokens": 0},
    }
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(dropped)))


def _block(part: Part, dropped: list[str]) -> Fields | Raw | None:
    match part:
        case Text(text=text, citations=citations):
            block: Fields = {"type": "text", "text": text}
            if cited := [one for citation in citations if (one := _parts.citation(citation)) is not None]:
                block["citations"] = cited
            return block
        case Refusal(text=text):
            return {"type": "text", "text": text}
        case ToolCall():
            return {"type": "tool_use", "id": _parts.call_id(part.id), "name": part.name, "input": tool_input(part)}
        case Reasoning(redacted=str() as data, format=_blocks.SHAPE):
            return {"type": "redacted_thinking", "data": data}
        case Reasoning(redacted=None, signature=signature):
            sealed = signature if signature is not None and part.format == _blocks.SHAPE else ""
            return {"type": "thinking", "thinking": part.text or "\n\n".join(part.summary), "signature": sealed}
        case Audio(transcript=str() as transcript):
            return {"type": "text", "text": transcript}
        case Opaque(format=_blocks.SHAPE, raw=raw):
            return raw
        case Opaque() | Audio() | Image() | Video() | Document() | ToolResult() | Reasoning():
            dropped.append(f"content.{type(part).__name__.lower()}")
            return None
        case _:
            assert_never(part)


def tool_input(call: ToolCall) -> Raw | Fields:
    """An object, as Anthropic's clients rely on. What the model wrote instead of one is kept under a name of its own."""
    if call.kind == "custom":
        return {"input": call.arguments}
    written = call.arguments.strip() or "{}"
    try:
        _decode_object(written.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {"invalid_json": call.arguments}
    return Raw(written)
