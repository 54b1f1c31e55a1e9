"""How many tokens a conversation is, asked in Anthropic's shape and in Gemini's. One typed call: the conversation itself.

Sources: https://docs.anthropic.com/en/api/messages-count-tokens, https://ai.google.dev/api/tokens. Nothing is generated, so
nothing is billed. For a target that cannot count, `egress` does: exactly where it can, else by an estimate, and the reply says so.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Conversation, Usage
from llm_gateway.formats import _members
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats._steps import Steps, drained
from llm_gateway.formats.anthropic_messages import AnthropicMessages
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.gemini.request_writer import path as content_path

_GENERATING = frozenset({"max_tokens", "temperature", "top_p", "top_k", "stop_sequences", "stream", "metadata", "service_tier"})
_ASKED = ("contents", "systemInstruction", "tools", "toolConfig")
_REQUEST = "generateContentRequest"
_encode = msgspec.json.encode


class Count(Struct, frozen=True):
    """`input`: tokens."""

    input: int

    @property
    def usage(self) -> Usage | None:
        return None

    @property
    def finish(self) -> str | None:
        return None


class AnthropicCount:
    name = "anthropic_count"
    stream_type = b"text/event-stream"
    request_headers = AnthropicMessages.request_headers
    reply_headers = AnthropicMessages.reply_headers

    def __init__(self) -> None:
        self._messages = AnthropicMessages()

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        peek = self._messages.peek(body, model)
        return Peek(peek.members, peek.model)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        sent = self._messages.forward(peek, model)
        return Outgoing(sent.body, f"{sent.path}/count_tokens")

    def read_request(self, peek: Peek) -> Conversation:
        return drained(self.read_steps(peek))

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return drained(self.write_steps(call, model))

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return self._messages.read_steps(Peek({"max_tokens": Raw(b"1"), **peek.members}, peek.model))

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        sent = yield from self._messages.write_steps(call, model)
        yield
        members = {name: raw for name, raw in _members.decode(sent.body).items() if name not in _GENERATING}
        return Outgoing(_members.join(members), f"{sent.path}/count_tokens", dropped=sent.dropped)

    def read_reply(self, body: bytes) -> Count:
        return counted(body, "input_tokens", None)

    def write_reply(self, reply: Count, call: Conversation, now: int = 0) -> Outgoing:
        return Outgoing(_encode({"input_tokens": reply.input}), headers=JSON_HEADERS)

    def summarise(self, body: bytes) -> Summary:
        self.read_reply(body)
        return Summary(None)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return self._messages.write_error(fault, request_id)

    def read_error(self, status: int, body: bytes) -> Fault:
        return self._messages.read_error(status, body)

    def splice(self, peek: Peek) -> Passage:
        raise unstreamed()

    def stream_reader(self) -> StreamReader:
        raise unstreamed()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        raise unstreamed()


class GeminiCount:
    """What is counted stands at the top, or whole in `generateContentRequest` (AI Studio counts instructions and tools only there)."""

    name = "gemini_count"
    stream_type = b"application/json"
    request_headers = Gemini.request_headers
    reply_headers = Gemini.reply_headers

    def __init__(self) -> None:
        self._content = Gemini()

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if _REQUEST in members:
            _members.filled_array(_members.object_(members, _REQUEST), "contents")
        else:
            _members.filled_array(members, "contents")
        return Peek(members, model or _members.text(members, "model"))

    def forward(self, peek: Peek, model: str) -> Outgoing:
        members = {name: raw for name, raw in peek.members.items() if name != "model"}
        if _REQUEST in members:
            inner = _members.object_(members, _REQUEST)
            members[_REQUEST] = _members.written({**inner, "model": f"models/{model}"})
        return Outgoing(_members.join(members), _path(model))

    def read_request(self, peek: Peek) -> Conversation:
        return drained(self.read_steps(peek))

    def write_request(self, call: Conversation, model: str) -> Outgoing:
        return drained(self.write_steps(call, model))

    def read_steps(self, peek: Peek) -> Steps[Conversation]:
        return self._content.read_steps(Peek(_members.object_(peek.members, _REQUEST) or peek.members, peek.model))

    def write_steps(self, call: Conversation, model: str) -> Steps[Outgoing]:
        sent = yield from self._content.write_steps(call, model)
        yield
        members: dict[str, Any] = _members.decode(sent.body)
        asked = {name: members[name] for name in _ASKED if name in members}
        body = _encode({_REQUEST: {"model": f"models/{model}", **asked}})
        return Outgoing(body, _path(model), dropped=sent.dropped)

    def read_reply(self, body: bytes) -> Count:
        return counted(body, "totalTokens", 0)  # protobuf's JSON leaves zeros out

    def write_reply(self, reply: Count, call: Conversation, now: int = 0) -> Outgoing:
        return Outgoing(_encode({"totalTokens": reply.input}), headers=JSON_HEADERS)

    def summarise(self, body: bytes) -> Summary:
        self.read_reply(body)
        return Summary(None)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return self._content.write_error(fault, request_id)

    def read_error(self, status: int, body: bytes) -> Fault:
        return self._content.read_error(status, body)

    def splice(self, peek: Peek) -> Passage:
        raise unstreamed()

    def stream_reader(self) -> StreamReader:
        raise unstreamed()

    def stream_writer(self, call: Conversation, now: int = 0) -> StreamWriter:
        raise unstreamed()


def _path(model: str) -> str:
    return f"{content_path(model, stream=False).rpartition(':')[0]}:countTokens"


def counted(body: bytes, name: str, missing: int | None) -> Count:
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        tree = None
    count = tree.get(name, missing) if isinstance(tree, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a count of tokens.")
    return Count(count)


def unstreamed() -> Fault:
    return Fault(Kind.INVALID, "Counts do not stream.", param="stream")
