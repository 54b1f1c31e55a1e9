"""Anthropic messages as a Format.

Law: stateless; every method is a pure function of its arguments.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._splice import Splice
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.anthropic_messages import _usage, errors, replies, request_reader, request_writer
from llm_gateway.formats.anthropic_messages.stream_reader import MessageReader
from llm_gateway.formats.anthropic_messages.stream_writer import MessageWriter
from llm_gateway.formats.anthropic_messages.watch import MessageWatch
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary


class AnthropicMessages:
    name = "anthropic_messages"
    stream_type = b"text/event-stream"
    request_headers = frozenset({b"anthropic-version", b"anthropic-beta"})
    reply_headers = frozenset({b"anthropic-organization-id"})

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if model is None:
            model = _members.text(members, "model")
        _members.filled_array(members, "messages")
        max_tokens = _members.count(members, "max_tokens") if "max_tokens" in members else None
        return Peek(members, model, "stream" in members and _members.flag(members, "stream"), True, max_tokens)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        return Outgoing(_members.join({**peek.members, "model": _members.written(model)}), request_writer.PATH)

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write(call, model)

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return request_reader.read_steps(peek)

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        return request_writer.write_steps(call, model)

    def splice(self, peek: Peek) -> Passage:
        return Splice(MessageWatch())

    def summarise(self, body: bytes) -> Summary:
        return summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply)

    def stream_reader(self) -> StreamReader:
        return MessageReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return MessageWriter()

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault, request_id)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


class _Whole(msgspec.Struct, gc=False):
    type: str = ""
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None


_decode_whole = tolerant(msgspec.json.Decoder(_Whole).decode)


def summarise(body: bytes) -> Summary:
    try:
        whole = _decode_whole(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_message() from None
    if whole.type == "error":
        return Summary(None, fault=errors.read(200, body))
    if whole.type != "message":
        raise _no_message()
    return Summary(_usage.read(whole.usage) if whole.usage else None, whole.stop_reason)


def _no_message() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a message.")
