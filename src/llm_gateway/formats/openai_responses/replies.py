"""A whole response <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no response at all, or a failed one, is a Fault.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Choice, Completion, Conversation, FinishReason, ToolCall, Usage
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.contract import Outgoing, Summary
from llm_gateway.formats.openai_responses import _envelope, _items, _output, _usage, errors

SHAPE = _items.SHAPE


class Reply(Struct, gc=False):
    """`output` stays raw where only the summary is wanted. A response that was asked for in the background has none yet."""

    id: str | None = None
    object: str | None = None
    model: str | None = None
    created_at: int | float | None = None
    status: str | None = None
    incomplete_details: dict[str, Any] | None = None
    output: list[Raw] | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    error: Any = None


decode = tolerant(msgspec.json.Decoder(Reply).decode)
_SEARCH = b'"web_search_call"'


def summarise(body: bytes) -> Summary:
    reply = _look(body)
    fault = errors.read(200, body) if reply.error else None
    return Summary(counted(reply), _envelope.word(reply.status, reply.incomplete_details), fault)


def read(body: bytes) -> Completion:
    reply = _look(body)
    if reply.error:
        raise errors.read(200, body)
    parts, tokens = _output.parts(reply.output or [])
    reason, native = ended(reply, called=any(isinstance(part, ToolCall) for part in parts))
    return Completion(
        id=reply.id or "",
        model=reply.model or "",
        choices=(Choice(tuple(parts), reason, native_finish=native, logprobs=tokens),),
        usage=counted(reply),
        created=int(reply.created_at or 0),
        service_tier=reply.service_tier or None,
        format=SHAPE,
    )


def _look(body: bytes) -> Reply:
    try:
        reply = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_response() from None
    if reply.output is None and not reply.error:
        raise _no_response()
    return reply


def _no_response() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a response.")


def ended(reply: Reply, *, called: bool) -> tuple[FinishReason, str | None]:
    reason = (reply.incomplete_details or {}).get("reason")
    return _envelope.finish(reply.status, reason if isinstance(reason, str) else None, called=called)


def counted(reply: Reply) -> Usage | None:
    if not reply.usage:
        return None
    return _usage.read(reply.usage, sum(_searched(raw) for raw in reply.output or ()), reply.service_tier)


def _searched(raw: Raw) -> bool:
    if bytes(raw).find(_SEARCH) < 0:
        return False
    return _output.item(raw).type == "web_search_call"


def write(reply: Completion, call: Conversation, now: int) -> Outgoing:
    choice = reply.choices[0] if reply.choices else Choice((), "stop")
    names = _items.Names(reply.id)
    output = _items.Output(names, choice.logprobs or ())
    for part in choice.parts:
        output.add(part)
    output.end()
    body = head(names.reply, reply.model, reply.created or now, call)
    body |= _envelope.ending(choice.finish)
    body["output"] = output.items
    body["usage"] = _usage.write(reply.usage) if reply.usage is not None else None
    if (told := _envelope.tier(reply.service_tier)) is not None:
        body["service_tier"] = told
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(output.dropped)))


def head(name: str, model: str, created: int, call: Conversation) -> dict[str, Any]:
    """A response's members without its output, in the state `in_progress`."""
    return {
        "id": name,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "model": model,
        **_envelope.about(call),
    }
