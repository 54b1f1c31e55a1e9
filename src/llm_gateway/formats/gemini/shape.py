"""Gemini's generateContent as a Format.

Law: stateless; every method is a pure function of its arguments. The model and whether to stream stand in the path, not in
the body.
"""

from __future__ import annotations

from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Completion, Conversation
from llm_gateway.formats import _members
from llm_gateway.formats._members import invalid
from llm_gateway.formats._splice import Splice
from llm_gateway.formats._steps import Steps
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.gemini import errors, replies, request_reader, request_writer
from llm_gateway.formats.gemini._array import ArrayPassage, ArrayWriter
from llm_gateway.formats.gemini.stream_reader import ContentReader
from llm_gateway.formats.gemini.stream_writer import ContentWriter
from llm_gateway.formats.gemini.watch import ContentWatch

# The last event may hold a picture, or all that a long answer rests on: it is read whole.
_WHOLE = 16 << 20
_LIMITS = ("maxOutputTokens", "max_output_tokens")


class Gemini:
    """`array`: for clients that take a stream as one JSON array; towards the upstream there is no difference."""

    name: str
    stream_type: bytes
    request_headers = frozenset({b"x-goog-api-client", b"x-server-timeout"})
    reply_headers = frozenset({b"x-gemini-service-tier"})

    def __init__(self, *, array: bool = False) -> None:
        self._array = array
        self.name = "gemini_array" if array else "gemini"
        self.stream_type = b"application/json" if array else b"text/event-stream"

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if model is None:
            model = _members.text(members, "model")
        if not model:
            raise invalid("The path must name a model: /v1beta/models/MODEL:generateContent.", "model")
        _members.filled_array(members, "contents")
        return Peek(members, model, bool(stream), True, _limit(members))

    def forward(self, peek: Peek, model: str) -> Outgoing:
        members = peek.members
        if "model" in members:  # the path says it, in the upstream's words
            members = {name: raw for name, raw in members.items() if name != "model"}
        return Outgoing(_members.join(members), request_writer.path(model, stream=peek.stream))

    def read_request(self, peek: Peek) -> Conversation:
        return request_reader.read(peek)

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return request_writer.write(call, model)

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return request_reader.read_steps(peek)

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        return request_writer.write_steps(call, model)

    def splice(self, peek: Peek) -> Passage:
        splice = Splice(ContentWatch(), _WHOLE)
        return ArrayPassage(splice) if self._array else splice

    def summarise(self, body: bytes) -> Summary:
        return replies.summarise(body)

    def read_reply(self, body: bytes) -> Completion:
        return replies.read(body)

    def write_reply(self, reply: Completion, call: Conversation, now: int = 0) -> Outgoing:
        return replies.write(reply, now)

    def stream_reader(self) -> StreamReader:
        return ContentReader()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        return ArrayWriter(ContentWriter()) if self._array else ContentWriter()

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault, array=self._array)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)


def _limit(members: dict[str, Raw]) -> int | None:
    """The most tokens asked for; 0, which Gemini takes for no limit, is none."""
    asked = _members.object_(members, "generationConfig") or _members.object_(members, "generation_config")
    for name in _LIMITS:
        if name in asked and bytes(asked[name]) != b"0":
            return _members.count(asked, name)
    return None
