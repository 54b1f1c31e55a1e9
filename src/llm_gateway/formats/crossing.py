"""A streamed reply on its way from one shape into another: bytes -> events -> bytes, joined once per feed.

Law: knows events, no shape. Whole events only leave it, so `between` is always true.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    Delta,
    End,
    Event,
    Failed,
    Finish,
    PartEnd,
    PartStart,
    Start,
    TranscriptDelta,
    UsageUpdate,
)
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import no_text
from llm_gateway.formats.contract import StreamReader, StreamWriter

_SAID_BY_OPENING = frozenset({"tool", "opaque", "audio"})

LENGTH: Final = "length"


class Followed:
    """A StreamWriter, and what is open in what it has written: for a stream that we may end."""

    __slots__ = ("_choices", "_finished", "_parts", "_tail", "_write", "fail", "heartbeat", "tail")

    def __init__(self, inner: StreamWriter) -> None:
        self._write, self.tail, self.fail, self.heartbeat = inner.write, inner.tail, inner.fail, inner.heartbeat
        self._parts: dict[tuple[int, int], None] = {}
        self._choices: set[int] = set()
        self._finished: set[int] = set()

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                pass
            case Start():
                self._choices.add(0)
            case PartStart():
                self._choices.add(event.choice)
                self._parts[event.choice, event.index] = None
            case PartEnd():
                self._parts.pop((event.choice, event.index), None)
            case Finish():
                self._finished.add(event.choice)
            case _:
                pass
        return self._write(event)

    def ends(self, usage: Usage) -> list[Event]:
        """What ends it here; nothing where it has not begun, or where all has ended."""
        left = sorted(self._choices - self._finished)
        if not left:
            return []
        parts = [PartEnd(index, choice) for choice, index in self._parts]
        return [*parts, *(Finish(LENGTH, choice) for choice in left), UsageUpdate(usage), End()]


class Crossing:
    """A Passage."""

    __slots__ = ("_known_as", "_reader", "_rest", "_writer", "between", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self, reader: StreamReader, writer: StreamWriter, known_as: tuple[str, str] = ("", "")) -> None:
        """known_as: the id and model of a reply whose own shape has none."""
        self._known_as = known_as
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.ended = False
        self.failed: Fault | None = None
        self.characters = 0
        self.between = True

    def __repr__(self) -> str:
        state = "failed" if self.failed else "ended" if self.ended else "passing"
        return f"Crossing({state}, finish={self.finish!r}, characters={self.characters})"

    def feed(self, data: bytes) -> bytes:
        if self.ended or self.failed is not None:
            return b""
        try:
            return self._cross(self._reader.feed(data))
        except UnicodeDecodeError:  # a member that was only looked at now
            self.failed = no_text()
            return b""

    def close(self, *, whole: bool = True) -> bytes:
        if self.ended or self.failed is not None:
            return b""
        try:
            return self._cross(self._reader.close())
        except UnicodeDecodeError:
            self.failed = no_text()
            return b""

    def tail(self, cost: float | None) -> bytes:
        return self._rest + self._writer.tail(cost)

    def fail(self, fault: Fault) -> bytes:
        return self._writer.fail(fault)

    def heartbeat(self) -> bytes:
        return self._writer.heartbeat()

    def follow(self) -> None:
        self._writer = Followed(self._writer)

    def curtail(self, usage: Usage) -> bool:
        writer = self._writer
        if self.ended or self.failed is not None or not isinstance(writer, Followed) or not (ends := writer.ends(usage)):
            return False
        self._rest = b"".join(map(writer.write, ends))
        self.usage, self.finish = usage, LENGTH
        self.ended = self.meaningful = True
        return True

    def _cross(self, events: list[Event]) -> bytes:
        write = self._writer.write
        written: list[bytes] = []
        try:
            for event in events:
                if type(event) is Delta:
                    if event.text:
                        self.meaningful = True
                        self.characters += len(event.text)
                elif type(event) is UsageUpdate:  # some upstreams count with every chunk
                    self.usage = event.usage
                elif type(event) is Failed:
                    self.failed = event.fault
                    break
                elif type(event) is Start:
                    written.append(write(self._named(event)))
                    continue
                else:
                    self._note(event)
                written.append(write(event))
        except Fault as fault:  # an end that the client's shape has no word for
            self.failed = fault
        return b"".join(written)

    def _named(self, event: Start) -> Start:
        name, model = self._known_as
        return event if event.id else replace(event, id=name, model=event.model or model)

    def _note(self, event: Event) -> None:
        match event:
            case PartStart():
                self.meaningful = self.meaningful or event.kind in _SAID_BY_OPENING or event.redacted is not None
                self.characters += len(event.name or "") if event.kind == "tool" else 0
            case TranscriptDelta():
                self.meaningful = True
                self.characters += len(event.text)
            case Finish():
                self.meaningful = True
                self.finish = event.native_finish or event.finish
            case End():
                self.ended = True
            case _:
                self.meaningful = True
