"""An embeddings shape as data: the functions that read and write it, and everything about it that is alike in all of them.

Law: vectors come whole, nothing streams. Same shape in and out: untouched but for the model's name, which stands in the body or,
for shapes whose path says it, nowhere in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Text, Usage
from llm_gateway.formats import _members, _typed, embedding_crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary

Fields = dict[str, Any]
_EMPTY = frozenset({b"", b"null", b"{}", b"[]", b'""'})


def named(body: Fields, model: str) -> Fields:
    return {**body, "model": model}


def unnamed(body: Fields, _: str) -> Fields:
    """For shapes whose path says the model."""
    return {name: value for name, value in body.items() if name != "model"}


def _nothing(_: EmbeddingCall) -> list[str]:
    return []


class Embedding(Struct, kw_only=True):
    """A Format of one shape. `path`: with `{model}` where it says the model; `placed`: a body with the model where it says it.
    `needs`: one of these members has to be there. `body`: what is asked; `lost`: the client's names of what `body` says less
    exactly than it was asked, beyond what the table drops. `said`: the reply."""

    name: str
    path: str
    needs: tuple[str, ...]
    read: Callable[[Peek], EmbeddingCall]
    body: Callable[[EmbeddingCall], Fields]
    counted: Callable[[bytes], Summary]
    reply: Callable[[bytes], Embeddings]
    said: Callable[[Embeddings, EmbeddingCall], Fields]
    fault: Callable[[Fault], Outgoing]
    faulty: Callable[[int, bytes], Fault]
    placed: Callable[[Fields, str], Fields] = named
    lost: Callable[[EmbeddingCall], list[str]] = _nothing
    stream_type: bytes = b""
    request_headers: frozenset[bytes] = frozenset()
    reply_headers: frozenset[bytes] = frozenset()

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        members = _members.decode(body)
        if not model:
            model = _members.text(members, "model")
        if all(bytes(memoryview(members.get(name, b"null"))[:4]) == b"null" for name in self.needs):
            raise _typed.missing(self.needs[0])
        return Peek(members, model)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        return Outgoing(msgspec.json.encode(self.placed(peek.members, model)), self._path(model))

    def splice(self, peek: Peek) -> Passage:
        raise _no_stream()

    def summarise(self, body: bytes) -> Summary:
        return self.counted(body)

    def read_request(self, peek: Peek) -> EmbeddingCall:
        return self.read(peek)

    def write_request(self, call: EmbeddingCall, model: str) -> Outgoing:
        dropped = [*embedding_crossings.unsaid(call, self.name), *self.lost(call)]
        body = self.body(call)
        if call.format == self.name:
            body |= {name: raw for name, raw in call.extras.items() if "[" not in name}
        sent = msgspec.json.encode(self.placed(body, model))
        return Outgoing(sent, self._path(model), dropped=tuple(dict.fromkeys(dropped)))

    def read_reply(self, body: bytes) -> Embeddings:
        return self.reply(body)

    def write_reply(self, reply: Embeddings, call: EmbeddingCall, now: int = 0) -> Outgoing:
        return Outgoing(msgspec.json.encode(self.said(reply, call)), headers=JSON_HEADERS)

    def stream_reader(self) -> StreamReader:
        raise _no_stream()

    def stream_writer(self, call: EmbeddingCall, now: int = 0) -> StreamWriter:
        raise _no_stream()

    def _path(self, model: str) -> str:
        return self.path.replace("{model}", quote(model.removeprefix("models/"), safe=""))

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return self.fault(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return self.faulty(status, body)


def _no_stream() -> Fault:
    return invalid("Embeddings do not stream.", "stream")


def decoded(decoder: Callable[[bytes], Any], body: bytes) -> Any:
    """An upstream's reply. Fault(UPSTREAM_BROKEN) for what is none."""
    try:
        return decoder(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise no_reply() from None


def no_reply() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply holds no embeddings.")


def rest(members: dict[str, Raw], known: frozenset[str]) -> dict[str, Raw]:
    """What no type names; empty ones ask for nothing."""
    return {name: raw for name, raw in members.items() if name not in known and bytes(raw) not in _EMPTY}


def words(one: Input) -> str:
    """Of an input that is text, whole or in pieces."""
    if one.text is not None:
        return one.text
    return "\n\n".join(piece.text for piece in one.pieces if isinstance(piece, Text))


def tokens(usage: Usage | None) -> int:
    return 0 if usage is None else usage.input
