"""Ollama's chat and generate as Formats.

Law: stateless; every method is a pure function of its arguments. A request that does not say whether to stream streams. One
without messages or prompt is a request to load the model: it goes through to an Ollama, and is refused elsewhere.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._members import invalid
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.ollama import errors, replies, request_reader, request_writer
from llm_gateway.formats.ollama.splice import LineSplice
from llm_gateway.formats.ollama.stream_reader import LineReader
from llm_gateway.formats.ollama.stream_writer import LineWriter

_STREAM_TYPE = b"application/x-ndjson"
_HEADERS: frozenset[bytes] = frozenset()
_NULL = Raw(b"null")
_decode_int = msgspec.json.Decoder(int).decode


class OllamaChat:
    name = replies.CHAT
    stream_type = _STREAM_TYPE
    request_headers = _HEADERS
    reply_headers = _HEADERS

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if bytes(memoryview(members.get("messages", _NULL))[:1]) not in {b"[", b"n"}:
            raise invalid("'messages' must be an array.", "messages")
        return _peek(members, model)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        return _forward(peek, model, request_writer.CHAT_PATH)

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read_chat(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write_chat(call, model)

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return request_reader.read_chat_steps(peek)

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        return request_writer.write_chat_steps(call, model)

    def splice(self, peek: Peek) -> Passage:
        return LineSplice()

    def summarise(self, body: bytes) -> Summary:
        return replies.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, now, generate=False)

    def stream_reader(self) -> StreamReader:
        return LineReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return LineWriter(generate=False, now=now)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


class OllamaGenerate:
    name = replies.GENERATE
    stream_type = _STREAM_TYPE
    request_headers = _HEADERS
    reply_headers = _HEADERS

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if bytes(memoryview(members.get("prompt", _NULL))[:1]) not in {b'"', b"n"}:
            raise invalid("'prompt' must be a string.", "prompt")
        return _peek(members, model)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        return _forward(peek, model, request_writer.GENERATE_PATH)

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read_generate(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write_generate(call, model)

    def splice(self, peek: Peek) -> Passage:
        return LineSplice()

    def summarise(self, body: bytes) -> Summary:
        return replies.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, now, generate=True)

    def stream_reader(self) -> StreamReader:
        return LineReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return LineWriter(generate=True, now=now)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


def _peek(members: dict[str, Raw], model: str | None) -> Peek:
    named = model or _members.text(members, "model")
    streams = bytes(members.get("stream", _NULL)) == b"null" or _members.flag(members, "stream")
    return Peek(members, named, streams, True, _limit(_members.object_(members, "options")))


def _limit(options: dict[str, Raw]) -> int | None:
    """The most tokens asked for; -1 and -2, which Ollama takes for no limit, are none."""
    raw = options.get("num_predict", _NULL)
    if bytes(raw) == b"null":
        return None
    try:
        limit = _decode_int(raw)
    except msgspec.DecodeError:
        raise invalid("'options.num_predict' must be a whole number.", "options.num_predict") from None
    return limit if limit > 0 else None


def _forward(peek: Peek, model: str, path: str) -> Outgoing:
    return Outgoing(_members.replaced(peek.members, {"model": _members.written(model)}), path)
