"""OpenAI responses as a Format.

Law: stateless; every method is a pure function of its arguments.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._framed import Framed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.contract import Outgoing, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.openai_responses import errors, replies, request_reader, request_writer
from llm_gateway.formats.openai_responses.stream_reader import ResponseReading
from llm_gateway.formats.openai_responses.stream_writer import ResponseWriter
from llm_gateway.formats.openai_responses.watch import SealedPassage

_STORED = ("previous_response_id", "conversation", "prompt")  # each brings an input of its own
_NONE = Raw(b"")


class OpenAIResponses:
    name = "openai_responses"
    stream_type = b"text/event-stream"
    request_headers = frozenset({b"openai-beta"})
    reply_headers = frozenset({b"openai-version", b"openai-processing-ms"})

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        try:
            head = _decode_head(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _peek_with_care(members, model)
        if not _says(head.input):
            return _peek_with_care(members, model)
        return Peek(members, model or head.model, head.stream is True, True, head.max_output_tokens)

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

    def splice(self, peek: Peek) -> SealedPassage:
        return SealedPassage()

    def summarise(self, body: bytes) -> Summary:
        return replies.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, call, now)

    def stream_reader(self) -> StreamReader:
        return Framed(ResponseReading())

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return ResponseWriter(call, now)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


class _Head(msgspec.Struct, gc=False):
    """What peek wants to know, in one decode; whatever does not fit is looked at again, with care for the message."""

    model: Annotated[str, msgspec.Meta(min_length=1)]
    input: Raw = _NONE
    stream: bool | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


def _says(given: Raw) -> bool:
    """A string, or a list with something in it."""
    opening = bytes(memoryview(given)[:16])
    return opening[:1] == b'"' or (opening[:1] == b"[" and opening[1:].lstrip()[:1] not in {b"]", b""})


def _peek_with_care(members: dict[str, Raw], model: str | None) -> Peek:
    """Names the member that is wrong. Raises Fault INVALID, or reads what the strict way could not."""
    if model is None:
        model = _members.text(members, "model")
    _check_input(members)
    stream = "stream" in members and _members.flag(members, "stream")
    max_tokens = _members.count(members, "max_output_tokens") if "max_output_tokens" in members else None
    return Peek(members, model, stream, True, max_tokens)


def _check_input(members: dict[str, Raw]) -> None:
    given = members.get("input")
    stored = any(bytes(members.get(name, b"null")) != b"null" for name in _STORED)
    if given is None or bytes(given) == b"null":
        if not stored:
            raise invalid("'input' is required.", "input")
        return
    opening = bytes(memoryview(given)[:1])
    if opening not in {b'"', b"["}:
        raise invalid("'input' must be a string or an array.", "input")
    if opening == b"[" and not stored:
        _members.filled_array(members, "input")
