"""A whole Converse reply <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no reply at all is a Fault. The shape has neither an id nor
the model's name: they are read as "".
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
    Conversation,
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
from llm_gateway.formats import _arguments
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.bedrock_converse import _finish, _media, _reading, _usage, _wire, _writing
from llm_gateway.formats.bedrock_converse._reading import SHAPE
from llm_gateway.formats.contract import Outgoing, Summary

Fields = dict[str, Any]
_decode = msgspec.json.Decoder(_wire.Reply).decode
_STOP_SEQUENCE = "/stop_sequence"


def summarise(body: bytes) -> Summary:
    reply = _reply(body)
    return Summary(_usage.read(reply.usage, reply.service_tier) if reply.usage else None, reply.stop_reason)


def read(body: bytes) -> Completion:
    reply = _reply(body)
    reason, native = _finish.read(reply.stop_reason)
    stopped = _finish.stop_sequence(reply.additional_model_response_fields)
    tier = (reply.service_tier or {}).get("type")
    return Completion(
        id="",
        model="",
        choices=(Choice(_parts(reply), reason, 0, stopped, native),),
        usage=_usage.read(reply.usage, reply.service_tier) if reply.usage else None,
        service_tier=tier if isinstance(tier, str) else None,
        format=SHAPE,
    )


def _reply(body: bytes) -> _wire.Reply:
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_reply("") from None
    if reply.output.message is None and reply.stop_reason is None:  # how AWS answers to an operation it does not know
        raise _no_reply("")
    return reply


def _parts(reply: _wire.Reply) -> tuple[Part, ...]:
    message = reply.output.message
    try:
        return _reading.parts((message.content if message is not None else None) or [], "output.message.content", {})
    except Fault as fault:
        raise _no_reply(f": {fault.message}") from None


def _no_reply(why: str) -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, f"The upstream's reply is not a Converse reply{why or '.'}")


def write(reply: Completion, call: Conversation) -> Outgoing:
    dropped: list[str] = []
    choice = reply.choices[0] if reply.choices else Choice((), "stop")
    written = (_block(part, dropped) for part in choice.parts)
    body: Fields = {
        "output": {"message": {"role": "assistant", "content": [block for block in written if block is not None]}},
        "stopReason": _finish.write(choice.finish, choice.native_finish, choice.stop_sequence),
        "usage": _usage.write(reply.usage),
        "metrics": METRICS,
    }
    if (more := asked_for(call, choice.stop_sequence)) is not None:
        body["additionalModelResponseFields"] = more
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(dropped)))


METRICS = {"latencyMs": 0}  # a member every client counts on; how long it took is in our headers


def asked_for(call: Conversation, stop_sequence: str | None) -> Fields | None:
    """`additionalModelResponseFields`: what stopped the model, if the client asked for it there."""
    wanted = call.extras.get("additionalModelResponseFieldPaths") if call.format == SHAPE else None
    if stop_sequence is None or wanted is None or _STOP_SEQUENCE.encode() not in bytes(wanted):
        return None
    return {"stop_sequence": stop_sequence}


def _block(part: Part, dropped: list[str]) -> Fields | Raw | None:
    match part:
        case Text():
            return _writing.text(part) if part.text or part.citations else None
        case Refusal(text=text) | Audio(transcript=str() as text):
            return {"text": text}
        case ToolCall():
            return tool_use(part)
        case Reasoning(redacted=str()) if part.format in {SHAPE, _reading.SEALED_BY}:
            return {"reasoningContent": {"redactedContent": _writing.redacted(part)}}
        case Reasoning(redacted=None):
            return {"reasoningContent": {"reasoningText": _thought(part)}}
        case Opaque(format="bedrock_converse", raw=raw):
            return raw
        case Image(media=media) if media.data is not None and _media.word(media, _media.IMAGES) is not None:
            return {"image": _writing.source(media, _media.IMAGES, "")}
        case Opaque() | Audio() | Image() | Video() | Document() | ToolResult() | Reasoning():
            dropped.append(f"content.{type(part).__name__.lower()}")
            return None
        case _:
            assert_never(part)


def tool_use(call: ToolCall) -> Fields:
    return {"toolUse": {"toolUseId": _writing.call_id(call.id), "name": call.name, "input": _arguments.told(call)}}


def _thought(part: Reasoning) -> Fields:
    said: Fields = {"text": part.text or "\n\n".join(part.summary)}
    if part.signature is not None and part.format == _reading.SEALED_BY:
        said["signature"] = part.signature
    return said
