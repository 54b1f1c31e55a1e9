"""OpenAI chat completions as a Format.

Law: stateless; every method is a pure function of its arguments.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._splice import Splice
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.openai_chat import _usage, errors, replies, request_reader, request_writer
from llm_gateway.formats.openai_chat.stream_reader import ChatReader
from llm_gateway.formats.openai_chat.stream_writer import ChatWriter
from llm_gateway.formats.openai_chat.watch import ChatWatch

_SHORT = 16 << 10  # bytes that are read a second time sooner than a few members one by one
_USAGE_WANTED = Raw(b'{"include_usage":true}')


class OpenAIChat:
    name = "openai_chat"
    stream_type = b"text/event-stream"
    request_headers = frozenset({b"openai-beta"})
    reply_headers = frozenset({b"openai-version", b"openai-processing-ms"})

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if len(body) > _SHORT:
            return _peek_with_care(members, model)
        try:
            head = _decode_head(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _peek_with_care(members, model)
        asked = head.stream is True and head.stream_options is not None and head.stream_options.include_usage is True
        most = head.max_completion_tokens
        if most is None or (head.max_tokens is not None and head.max_tokens > most):
            most = head.max_tokens
        return Peek(members, model or head.model, head.stream is True, asked, most)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        members = {**peek.members, "model": _members.written(model)}
        if peek.stream and not peek.wants_usage:
            options = _members.object_(members, "stream_options")
            options["include_usage"] = Raw(b"true")
            members["stream_options"] = _members.written(options) if len(options) > 1 else _USAGE_WANTED
        return Outgoing(_members.join(members), request_writer.PATH)

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write(call, model)

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return request_reader.read_steps(peek)

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        return request_writer.write_steps(call, model)

    def splice(self, peek: Peek) -> Passage:
        return Splice(ChatWatch(asked=peek.wants_usage))

    def summarise(self, body: bytes) -> Summary:
        try:
            plain = _decode_plain(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _summary_with_care(body)
        if plain.choices and plain.usage is not None and not plain.error:
            usage = _usage.counted(plain.usage, plain.service_tier)
            if usage is not None:
                return Summary(usage, plain.choices[0].finish_reason)
        return _summary_with_care(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, now, functions=call.functions)

    def stream_reader(self) -> StreamReader:
        return ChatReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return ChatWriter(wants_usage=call.stream_usage, now=now, functions=call.functions)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


_Count = Annotated[int, msgspec.Meta(ge=1)] | None


class _Options(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Head(msgspec.Struct, gc=False):
    """What peek wants to know, in one decode; whatever does not fit is looked at again, with care for the message."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[Raw], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _Options | None = None
    max_completion_tokens: _Count = None
    max_tokens: _Count = None


_decode_head = msgspec.json.Decoder(_Head).decode


def _peek_with_care(members: dict[str, Raw], model: str | None) -> Peek:
    """Names the member that is wrong. Raises Fault INVALID, or reads what the strict way could not."""
    if model is None:
        model = _members.text(members, "model")
    _members.filled_array(members, "messages")
    stream = "stream" in members and _members.flag(members, "stream")
    asked = stream and "stream_options" in members and _asked(members)
    limits = [_members.count(members, name) or 0 for name in ("max_completion_tokens", "max_tokens") if name in members]
    return Peek(members, model, stream, asked, max(limits, default=0) or None)


_NO_USAGE = Raw(b"null")


class _Finish(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Whole(msgspec.Struct, gc=False):
    choices: tuple[_Finish, ...] | None = None
    usage: Raw = _NO_USAGE
    error: object = None
    service_tier: object = None


class _Plain(msgspec.Struct, gc=False):
    """A reply whose usage is as OpenAI itself writes it: one decode instead of two."""

    choices: tuple[_Finish, ...] | None = None
    usage: _usage.Plain | None = None
    error: object = None
    service_tier: object = None


_decode_whole = tolerant(msgspec.json.Decoder(_Whole).decode)
_decode_plain = msgspec.json.Decoder(_Plain).decode


def _summary_with_care(body: bytes) -> Summary:
    """Of any reply. Raises Fault UPSTREAM_BROKEN."""
    try:
        whole = _decode_whole(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_completion() from None
    usage = _usage.decode(whole.usage, whole.service_tier)
    if whole.error:
        return Summary(usage, fault=errors.read(200, body))
    if whole.choices is None:
        raise _no_completion()
    return Summary(usage, whole.choices[0].finish_reason if whole.choices else None)


def _no_completion() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a chat completion.")


def _asked(members: dict[str, Raw]) -> bool:
    options = _members.object_(members, "stream_options")
    return "include_usage" in options and bytes(options["include_usage"]) == b"true"
