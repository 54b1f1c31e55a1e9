"""A stream of server-sent events that comes in AWS event-stream frames, as Bedrock's `invoke-with-response-stream` sends
Claude's: each frame of type `chunk` holds one event, in base64.

Law: what an event says is the inner passage's business; here only its framing changes. An exception frame ends the stream.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import broken, cut
from llm_gateway.formats.bedrock_converse import errors
from llm_gateway.formats.contract import Passage

FRAMED = b"application/vnd.amazon.eventstream"


class _Chunk(Struct, gc=False):
    bytes: str


class _Kind(Struct, gc=False):
    type: str = ""


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_kind = msgspec.json.Decoder(_Kind).decode


class Unframed:
    """A Passage around one that reads SSE."""

    __slots__ = ("_failed", "_frames", "_inner")

    def __init__(self, inner: Passage) -> None:
        self._inner = inner
        self._frames = eventstream.Frames()
        self._failed: Fault | None = None

    def __repr__(self) -> str:
        return f"Unframed({self._inner!r}{', failed' if self._failed else ''})"

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def finish(self) -> str | None:
        return self._inner.finish

    @property
    def meaningful(self) -> bool:
        return self._inner.meaningful

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def failed(self) -> Fault | None:
        return self._failed or self._inner.failed

    @property
    def characters(self) -> int:
        return self._inner.characters

    @property
    def between(self) -> bool:
        return self._inner.between

    def feed(self, data: bytes) -> bytes:
        if self._over():
            return b""
        passed: list[bytes] = []
        try:
            for frame in self._frames.feed(data):
                passed.append(self._inner.feed(_event(frame)))
                if self._over():
                    break
        except Fault as fault:
            self._failed = fault
        if self._frames.damage is not None and not self._over():
            self._failed = self._frames.damage
        return b"".join(passed)

    def close(self, *, whole: bool = True) -> bytes:
        if self._over():
            return b""
        if self._frames.size:
            self._failed = cut()
            return b""
        return self._inner.close(whole=whole)

    def tail(self, cost: float | None) -> bytes:
        return self._inner.tail(cost)

    def fail(self, fault: Fault) -> bytes:
        return self._inner.fail(fault)

    def heartbeat(self) -> bytes:
        return self._inner.heartbeat()

    def follow(self) -> None:
        self._inner.follow()

    def curtail(self, usage: Usage) -> bool:
        return self._inner.curtail(usage)

    def _over(self) -> bool:
        return self.ended or self.failed is not None


def _event(data: bytes) -> bytes:
    """A frame as a server-sent event; b"" for one that holds none. Raises Fault for one that tells of an error."""
    frame = eventstream.decode(data)
    fault = errors.framed(frame)
    if fault is not None:
        raise fault
    if frame.text(":event-type") != "chunk":
        return b""
    try:
        said = base64.b64decode(_decode(frame.payload).bytes, validate=True)
        kind = _decode_kind(said).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
        raise broken() from None
    if b"\n" in said or not kind.isidentifier():
        raise broken()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), said)
