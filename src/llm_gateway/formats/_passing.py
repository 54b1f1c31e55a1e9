"""Shapes that nothing crosses: requests whose model is read and replaced, replies whose usage is read, all else passed on.

Law: the client's bytes are the upstream's, but for the model's name; the upstream's are the client's. A `Passing` is one such shape
as data: its path, what it cannot do without, how it streams, where it tells its usage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats import _members, _multipart
from llm_gateway.formats._incoming import unsaid
from llm_gateway.formats._splice import Splice, Verdict
from llm_gateway.formats.contract import Outgoing, Passage, Peek, StreamReader, StreamWriter, Summary
from llm_gateway.formats.openai_chat import errors

_JSON = b"application/json"
# The last event tells the usage and that it is the last, and holds the whole picture or transcript: it is read whole.
_WHOLE = 16 << 20
_PAGE = re.compile(rb"(?i)\s*<(?:!doctype|html)")  # what something between us and the provider says instead
_decode = msgspec.json.Decoder().decode


def asks_to_stream(members: Mapping[str, Raw]) -> bool:
    """`stream`, written as JSON or as a form's text."""
    return bytes(members.get("stream", b"")).strip().lower() == b"true"


def _never(_: Mapping[str, Raw]) -> bool:
    return False


class Passing(Struct, kw_only=True):
    """One shape. `needs`: members a request must have; `default`: the model that the API itself takes if none is named;
    `multipart`: whether bodies come as forms (`either`: also as JSON); `streams`: what of a request asks for a stream;
    `closing`: types of the events that end one; `binary`: streams are bytes without events, unless a request asks for some;
    `plain`: whether replies may be text."""

    name: str
    path: str
    needs: tuple[str, ...]
    usage: Callable[[dict[str, Any]], Usage | None]
    default: str = ""
    multipart: bool = False
    either: bool = False
    streams: Callable[[Mapping[str, Raw]], bool] = _never
    closing: frozenset[str] = frozenset()
    binary: Callable[[Mapping[str, Raw]], bool] = _never
    plain: bool = False
    stream_type: bytes = b""
    request_headers: frozenset[bytes] = frozenset({b"openai-beta"})
    reply_headers: frozenset[bytes] = frozenset({b"openai-version", b"openai-processing-ms"})

    def peek(self, body: bytes, model: str | None = None, *, stream: bool | None = None) -> Peek:
        form: _multipart.Form | None = None
        if self.multipart and not (self.either and body[:1] == b"{"):
            form = _multipart.read(body)
            members = _multipart.members(form)
            named = model or _multipart.text(form, "model")
        else:
            members = _members.decode(body)
            named = model or (_members.text(members, "model") if "model" in members or not self.default else None)
        for name in self.needs:
            if name not in members:
                raise _members.invalid(f"'{name}' is required.", name)
        if not (named or self.default):
            raise _members.invalid("'model' is required.", "model")
        return Peek(members, named or self.default, self.streams(members), form=form)

    def forward(self, peek: Peek, model: str) -> Outgoing:
        form: _multipart.Form | None = peek.form
        if form is None:
            return Outgoing(_members.replaced(peek.members, {"model": _members.written(model)}), self.path)
        kind = b'multipart/form-data; boundary="%b"' % form.boundary
        return Outgoing(_multipart.join(form, "model", model), self.path, content_type=kind)

    def summarise(self, body: bytes) -> Summary:
        """Raises Fault UPSTREAM_BROKEN. What is no JSON object has told no usage."""
        try:
            tree = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not self.plain or body[:1] == b"{" or _PAGE.match(body):
                raise Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not what was asked for.") from None
            tree = None
        if not isinstance(tree, dict):
            return Summary(None)
        if tree.get("error"):
            return Summary(None, fault=errors.read(200, body))
        return Summary(self.usage(tree))

    def splice(self, peek: Peek) -> Passage:
        if self.binary(peek.members):
            return Flow()
        return Splice(_Watch(self.closing, self.usage), _WHOLE)

    def write_error(self, fault: Fault, request_id: str) -> Outgoing:
        return errors.write(fault)

    def read_error(self, status: int, body: bytes) -> Fault:
        return errors.read(status, body)

    def read_request(self, peek: Peek) -> Any:
        raise _uncrossed(self.name)

    def write_request(self, call: Any, model: str) -> Outgoing:
        raise _uncrossed(self.name)

    def read_reply(self, body: bytes) -> Any:
        raise _uncrossed(self.name)

    def write_reply(self, reply: Any, call: Any, now: int = 0) -> Outgoing:
        raise _uncrossed(self.name)

    def stream_reader(self) -> StreamReader:
        raise _uncrossed(self.name)

    def stream_writer(self, call: Any, now: int = 0) -> StreamWriter:
        raise _uncrossed(self.name)


class Flow:
    """A Passage of bytes without events, sound for one: only HTTP's own framing can say that they are all there."""

    __slots__ = ("between", "ended", "failed", "meaningful")
    usage: Usage | None = None
    finish: str | None = None
    characters = 0

    def __init__(self) -> None:
        self.between = True
        self.ended = False
        self.meaningful = False
        self.failed: Fault | None = None

    def __repr__(self) -> str:
        return f"Flow({'failed' if self.failed else 'ended' if self.ended else 'passing'})"

    def feed(self, data: bytes) -> bytes:
        if data:
            self.meaningful, self.between = True, False  # nothing can be said in the midst of a sound
        return data

    def close(self, *, whole: bool = True) -> bytes:
        if whole and self.meaningful:
            self.ended = True
        else:
            self.failed = Fault(Kind.UPSTREAM_CUT, "The upstream ended its reply before it was complete.")
        return b""

    def tail(self, cost: float | None) -> bytes:
        return b""

    def fail(self, fault: Fault) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""

    def follow(self) -> None:
        """Of bytes there is nothing to remember."""

    def curtail(self, usage: Usage) -> bool:
        return False


class _Watch:
    """Events whose `type` says what they are; there is no end mark but the last one's type."""

    __slots__ = ("_closing", "_done", "_read", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self, closing: frozenset[str], read: Callable[[dict[str, Any]], Usage | None]) -> None:
        self._closing = closing
        self._read = read
        self._done = False
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = self.ended = False
        self.characters = 0
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        return False

    def look(self, event: bytes) -> Verdict:
        data = sse.payload(event)
        if not data:
            return Verdict.SEND
        if data == b"[DONE]":
            self.ended, self.failed = self.meaningful, None if self.meaningful else unsaid()
            return Verdict.HOLD
        try:
            tree = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event that is not JSON.")
            return Verdict.DROP
        if not isinstance(tree, dict):
            return Verdict.SEND
        if tree.get("error") or tree.get("type") == "error":
            self.failed = errors.read(200, data)
            return Verdict.DROP
        self.meaningful = True
        delta = tree.get("delta")
        self.characters += len(delta) if isinstance(delta, str) else 0
        if tree.get("type") not in self._closing:
            return Verdict.SEND
        self._done = True
        self.usage = self._read(tree) or self.usage
        return Verdict.HOLD

    def complete(self) -> bool:
        return self._done

    def tail(self, held: list[bytes], cost: float | None) -> bytes:
        return b"".join(held)

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def follow(self) -> None:
        """These shapes have no word for a reply that is shorter than it was to be."""

    def curtail(self, first: bytes, usage: Usage) -> list[bytes]:
        return []


def _uncrossed(name: str) -> Fault:
    return Fault(Kind.INVALID, f"This request cannot be made in another API's shape than its own ({name}).", param="model")
