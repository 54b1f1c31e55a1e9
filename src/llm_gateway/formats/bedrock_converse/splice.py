"""A Converse stream passed through to a client of the same shape, by whole frames.

Law: bytes that go through are the upstream's own; what a frame means is the watch's to say. A frame that the watch holds
back takes all that follow with it. One over `_WHOLE` bytes that belongs to a block passes in pieces, unread but for its
headers, and `between` is False until its end; one of any other kind is waited for, up to the format's own limit.
Prints itself as its state: passing -> held -> ended | failed.
"""

from __future__ import annotations

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import cut
from llm_gateway.formats._splice import MOST_HELD, Verdict, went_on
from llm_gateway.formats.bedrock_converse import errors
from llm_gateway.formats.bedrock_converse.watch import ConverseWatch

_WHOLE = 64 << 10


class FrameSplice:
    """A Passage."""

    __slots__ = ("_frames", "_glance", "_held", "_holding", "_left", "_usual", "_waiting", "_watch", "ended", "failed")

    def __init__(self) -> None:
        self._watch = ConverseWatch()
        self._glance = self._watch.glance
        self._frames = eventstream.Frames()
        self._held: list[bytes] = []
        self._holding = 0  # bytes of it
        self._left = 0  # bytes still to come of a frame that passes in pieces
        self._waiting = False  # for the rest of a long frame that must be whole
        self._usual = True  # nothing is kept or held, so a whole frame may take the short way
        self.ended = False
        self.failed: Fault | None = None

    def __repr__(self) -> str:
        state = "failed" if self.failed else "ended" if self.ended else "held" if self._held else "passing"
        return f"FrameSplice({state}, finish={self.finish!r}, characters={self.characters})"

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

    @property
    def between(self) -> bool:
        return not self._left

    def feed(self, data: bytes) -> bytes:
        if self._usual and self._glance(data):
            return data
        if self._over():
            return b""
        if self._left:
            return self._feed_piece(data)
        passed = b"".join(self._pass(self._frames.feed(data)))
        if self._frames.damage is not None and not self._over():
            self.failed = self._frames.damage
        elif self._frames.size > _WHOLE and not self._waiting and not self._over():
            passed += self._release()
        self._usual = not (self._frames.size or self._held or self._over() or not self.between)
        return passed

    def close(self, *, whole: bool = True) -> bytes:
        self._usual = False
        if self._over():
            return b""
        if self._watch.finish is not None and not self._frames.size and not self._left:
            self.ended = True
        else:
            self.failed = cut()
        return b""

    def tail(self, cost: float | None) -> bytes:
        held, self._held = self._held, []
        return b"".join(held)

    def fail(self, fault: Fault) -> bytes:
        self._usual = False
        self._held = []
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b""

    def follow(self) -> None:
        """Which block is open is known anyway."""

    def curtail(self, usage: Usage) -> bool:
        if self._over() or self._held or not self.between or self._watch.finish is not None:
            return False
        self._held = self._watch.curtail(usage)
        self._usual, self.ended = False, True
        return True

    def _over(self) -> bool:
        return self.ended or self.failed is not None

    def _pass(self, frames: list[bytes]) -> list[bytes]:
        """Those that may go now."""
        watch = self._watch
        passed: list[bytes] = []
        for frame in frames:
            self._waiting = False
            verdict = watch.look(frame)
            if verdict is Verdict.SEND and not self._held:
                passed.append(frame)
            elif verdict is not Verdict.DROP:
                self._held.append(frame)
                self._holding += len(frame)
            if watch.ended or watch.failed is not None:
                self.ended, self.failed = watch.failed is None, watch.failed
                break
            if self._holding > MOST_HELD:
                self.failed = went_on()
                break
        return passed

    def _release(self) -> bytes:
        """A frame too long to wait for: what there is of it goes out, if it may, and from here on we are inside it. Its text
        is not counted: it is mostly an image's base64, which nobody is billed for by its length."""
        kept = self._frames.rest()
        start, end = eventstream.PRELUDE, eventstream.PRELUDE + int.from_bytes(kept[4:8])
        if self._held and self._watch.long(kept[start:end]):
            self.failed = went_on()
            return b""
        if end > len(kept) or not self._watch.long(kept[start:end]):
            self._waiting = end <= len(kept)
            self._frames.feed(kept)
            return b""
        self._left = eventstream.length(kept) - len(kept)
        self._watch.meaningful = True
        return kept

    def _feed_piece(self, data: bytes) -> bytes:
        """More of a long frame, and what may follow it."""
        size = min(self._left, len(data))
        self._left -= size
        return data if size == len(data) else data[:size] + self.feed(data[size:])
