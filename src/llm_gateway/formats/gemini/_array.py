"""The same stream as one JSON array, which is what Gemini's clients get that do not ask for `alt=sse`.

Law: what a chunk says is the inner passage's business; here only its framing changes. The array is closed by `tail`, so one
that broke off is no JSON, except where an error is its last element.
"""

from __future__ import annotations

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Event
from llm_gateway.core.types import Usage
from llm_gateway.formats.contract import Passage, StreamWriter

_MOST = 32 << 20  # bytes of an event that is gathered; the inner passage reads half of that whole


class _Frames:
    """Whole events -> elements, with what goes before each."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = False

    def turn(self, block: bytes) -> bytes:
        told: list[bytes] = []
        for event in sse.split(block):
            if payload := sse.payload(event):
                told += (b",\r\n" if self._begun else b"[", payload)
                self._begun = True
        return b"".join(told)

    def end(self, block: bytes) -> bytes:
        return self.turn(block) + (b"]" if self._begun else b"[]")


class ArrayPassage:
    """A Passage around one that passes SSE. An event too long to hold comes in pieces, of which no element can be made: it
    is gathered here until it is whole, within bounds. So `between` is always true."""

    __slots__ = ("_blocks", "_failed", "_frames", "_inner")

    def __init__(self, inner: Passage) -> None:
        self._inner = inner
        self._blocks = sse.Blocks()
        self._frames = _Frames()
        self._failed: Fault | None = None

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
        return True

    def feed(self, data: bytes) -> bytes:
        if self._failed is not None:
            return b""
        block = self._blocks.feed(self._inner.feed(data))
        if self._blocks.size > _MOST:
            self._blocks.take()
            self._failed = Fault(Kind.UPSTREAM_BROKEN, f"The upstream sent an event of more than {_MOST >> 20} MiB.")
        return self._frames.turn(block)

    def close(self, *, whole: bool = True) -> bytes:
        if self._failed is not None:
            return b""
        return self._frames.turn(self._blocks.feed(self._inner.close(whole=whole)))

    def tail(self, cost: float | None) -> bytes:
        return self._frames.end(self._inner.tail(cost))

    def fail(self, fault: Fault) -> bytes:
        return self._frames.end(self._inner.fail(fault))

    def heartbeat(self) -> bytes:
        return b""

    def follow(self) -> None:
        self._inner.follow()

    def curtail(self, usage: Usage) -> bool:
        return self._inner.curtail(usage)


class ArrayWriter:
    """A StreamWriter around one that writes SSE."""

    __slots__ = ("_frames", "_inner")

    def __init__(self, inner: StreamWriter) -> None:
        self._inner = inner
        self._frames = _Frames()

    def write(self, event: Event) -> bytes:
        return self._frames.turn(self._inner.write(event))

    def tail(self, cost: float | None) -> bytes:
        return self._frames.end(self._inner.tail(cost))

    def fail(self, fault: Fault) -> bytes:
        return self._frames.end(self._inner.fail(fault))

    def heartbeat(self) -> bytes:
        return b""
