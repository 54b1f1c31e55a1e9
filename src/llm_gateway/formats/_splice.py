"""A stream passed through to a client of the same shape, by whole events: the mechanics, for every SSE shape.

Law: bytes that go through are the upstream's own; what an event means is its shape's `Watch` to say. An event the watch
holds back takes all that follow with it. One over `whole` bytes passes in pieces, unread, and `between` is False until
its end. Prints itself as its state: passing -> held -> ended | failed.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import no_text

_WHOLE = 64 << 10
MOST_HELD = 16 << 20  # bytes behind an end that never comes; or four events, where those are longer


class Verdict(Enum):
    SEND = "send"
    HOLD = "hold"
    DROP = "drop"


class Watch(Protocol):
    """What one shape learns from the events of one stream."""

    usage: Usage | None
    finish: str | None
    meaningful: bool
    characters: int
    ended: bool  # the end mark went by
    failed: Fault | None

    def glance(self, data: bytes) -> bool: ...  # True: `data` is one event of the usual kind, and has been seen
    def look(self, event: bytes) -> Verdict: ...  # any one whole event
    def complete(self) -> bool: ...  # whether the stream may end here, without its end mark
    def tail(self, held: list[bytes], cost: float | None) -> bytes: ...
    def fail(self, fault: Fault) -> bytes: ...
    def heartbeat(self) -> bytes: ...
    # What ends the stream here, at its greatest length, with this usage; first: its first event. Nothing where that cannot be said
    def curtail(self, first: bytes, usage: Usage) -> list[bytes]: ...
    def follow(self) -> None: ...  # it may be asked to


class Splice:
    """A Passage. The usual chunk costs two Python calls and no copy."""

    __slots__ = ("_blocks", "_first", "_glance", "_held", "_holding", "_seam", "_usual", "_watch", "_whole", "between", "ended", "failed")

    def __init__(self, watch: Watch, whole: int = _WHOLE) -> None:
        """whole: bytes up to which an event is read before it passes."""
        self._watch = watch
        self._whole = whole
        self._glance = watch.glance
        self._blocks = sse.Blocks()
        self._held: list[bytes] = []
        self._holding = 0  # bytes of it
        self._seam = b""
        self._first: bytes | None = None  # the first event, where it is wanted; b"" until it came
        self._usual = True  # nothing is kept or held, so a whole event may take the short way
        self.between = True
        self.ended = False
        self.failed: Fault | None = None

    def __repr__(self) -> str:
        state = "failed" if self.failed else "ended" if self.ended else "held" if self._held else "passing"
        return f"Splice({state}, finish={self.finish!r}, characters={self.characters})"

    @property
    def usage(self) -> Usage | None:
        return self._watch.usage

    @property
    def finish(self) -> str | None:
        return self._watch.finish

    @property
    def meaningful(self) -> bool:
        return self._watch.meaningful

    @property
    def characters(self) -> int:
        return self._watch.characters

    def feed(self, data: bytes) -> bytes:
        if self._usual and self._glance(data):
            return data
        if self._over():
            return b""
        if not self.between:
            return self._feed_piece(data)
        block = self._blocks.feed(data)
        passed = self._pass(block) if block else b""
        if self._blocks.size > self._whole:
            passed += self._release()
        self._usual = not (self._blocks.size or self._held or self._over() or not self.between)
        return passed

    def close(self, *, whole: bool = True) -> bytes:
        self._usual = False
        if self._over():
            return b""
        passed = b""
        rest = self._blocks.take()
        if rest.strip():
            passed = self._pass(rest.rstrip(b"\r\n") + b"\n\n")
        if self._over():
            return passed
        if self.between and self._watch.complete():
            self.ended = True
        else:
            self.failed = Fault(Kind.UPSTREAM_CUT, "The upstream ended its stream before the reply was complete.")
        return passed

    def tail(self, cost: float | None) -> bytes:
        held, self._held = self._held, []
        return self._watch.tail(held, cost)

    def fail(self, fault: Fault) -> bytes:
        self._usual = False
        self._held = []
        return self._watch.fail(fault)

    def heartbeat(self) -> bytes:
        return self._watch.heartbeat()

    def follow(self) -> None:
        self._first, self._usual = b"", False
        self._watch.follow()

    def curtail(self, usage: Usage) -> bool:
        if self._over() or self._held or not self.between or not self._first or self._watch.complete():
            return False
        self._held = self._watch.curtail(self._first, usage)
        if not self._held:
            return False
        watch = self._watch
        watch.usage, watch.meaningful = usage, True
        self.ended = watch.ended = True
        self._usual = False
        self._blocks.take()
        return True

    def _over(self) -> bool:
        return self.ended or self.failed is not None

    def _pass(self, block: bytes) -> bytes:
        """A block of whole events, without those that are held back or dropped; the same object if none is."""
        watch = self._watch
        passed: list[bytes] = []
        untouched = True
        for event in sse.split(block):
            if self._first == b"" and sse.payload(event):
                self._first = event
            if not self._held and self._glance(event):
                passed.append(event)
                continue
            try:
                verdict = watch.look(event)
            except UnicodeDecodeError:  # in a member that we read; what we do not read goes by as it came
                self.failed = no_text()
                return b"".join(passed)
            if verdict is Verdict.SEND and not self._held:
                passed.append(event)
                continue
            untouched = False
            if verdict is not Verdict.DROP:
                self._held.append(event)
                self._holding += len(event)
            if watch.ended or watch.failed is not None:
                self.ended, self.failed = watch.failed is None, watch.failed
                break
            if self._holding > max(MOST_HELD, 4 * self._whole):
                self.failed = went_on()
                break
        return block if untouched else b"".join(passed)

    def _release(self) -> bytes:
        """An event too long to wait for: what there is of it goes out, and from here on we are inside it. Its text is not
        counted: it is mostly an image's base64, which nobody is billed for by its length."""
        if self._over():
            return b""
        if self._held:
            self.failed = went_on()
            return b""
        self.between = False
        self._watch.meaningful = True
        return self._feed_piece(self._blocks.take())

    def _feed_piece(self, data: bytes) -> bytes:
        """More of an oversize event, and what may follow it."""
        seam = self._seam
        joined = seam + data
        cut = sse.first_boundary(joined) - len(seam)
        if cut <= 0:
            self._seam = joined[-3:]
            return data
        self._seam = b""
        self.between = True
        return data[:cut] + self.feed(data[cut:])


def went_on() -> Fault:
    """What a stream that is over, and does not end, fails with."""
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream went on after the end of its reply.")
