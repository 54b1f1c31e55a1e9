"""What a streamed Converse reply tells as it goes by.

Law: reads, never changes. The end is held from `messageStop` to `metadata`, which brings the usage and is the last frame.
The usage gets no cost: this shape has no place.
"""

from __future__ import annotations

from zlib import crc32

import msgspec

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import broken
from llm_gateway.formats._splice import Verdict
from llm_gateway.formats.bedrock_converse import _events, _finish, _usage

_DELTA = _events.HEADERS["contentBlockDelta"]
_PAYLOAD = eventstream.PRELUDE + len(_DELTA)
_BLOCKS = "contentBlock"


class ConverseWatch:
    __slots__ = ("_block", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self) -> None:
        self._block: int | None = None  # the number of the one that is open
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        """One whole delta, which is most of a stream."""
        size = len(data)
        if not data.startswith(_DELTA, eventstream.PRELUDE) or int.from_bytes(data[:4]) != size:
            return False
        if crc32(data[:8]) != int.from_bytes(data[8:12]) or crc32(data[:-4]) != int.from_bytes(data[-4:]):
            return False
        try:
            self._see(_events.decode(data[_PAYLOAD:-4]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def look(self, data: bytes) -> Verdict:
        """Any one whole frame."""
        try:
            name, payload = _events.read(data)
        except Fault as fault:
            self.failed = fault
            return Verdict.DROP
        if name not in _events.HEADERS:
            self.meaningful = True  # of a kind we do not know: the client may
            return Verdict.SEND
        try:
            return self._learn(name, _events.decode(payload))
        except msgspec.ValidationError:
            self.meaningful = True
            return Verdict.SEND
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = broken()
            return Verdict.DROP

    def long(self, headers: bytes) -> bool:
        """Whether a frame with these headers may pass before it is whole: one that neither ends the reply nor breaks it."""
        try:
            name = eventstream.headers(headers).get(":event-type")
        except Fault:
            return False
        return isinstance(name, str) and name.startswith(_BLOCKS)

    def _learn(self, name: str, event: _events.Event) -> Verdict:
        match name:
            case "contentBlockDelta":
                self._see(event)
            case "contentBlockStart":
                self._block = event.content_block_index
                self.meaningful = True
                opened = _events.decode_start(event.start).tool_use
                self.characters += len(opened.name) if opened is not None else 0
            case "messageStop":
                self.meaningful = True
                self.finish = event.stop_reason or "end_turn"
                return Verdict.HOLD
            case "metadata":
                self.usage = _usage.read(event.usage, event.service_tier) if event.usage else self.usage
                self.ended = self.finish is not None
                return Verdict.HOLD if self.ended else Verdict.SEND
            case "contentBlockStop":
                self._block = None
            case _:
                pass  # messageStart
        return Verdict.SEND

    def curtail(self, usage: Usage) -> list[bytes]:
        """What ends the stream here, at its greatest length, with this usage."""
        stop = _finish.write("length", None, None)
        self.usage, self.finish, self.ended, self.meaningful = usage, stop, True, True
        told = {"usage": _usage.write(usage), "metrics": {"latencyMs": 0}}
        ends = [_events.write("messageStop", {"stopReason": stop}), _events.write("metadata", told)]
        if self._block is not None:
            ends.insert(0, _events.write("contentBlockStop", {"contentBlockIndex": self._block}))
        return ends

    def _see(self, event: _events.Event) -> None:
        self._block = event.content_block_index
        delta = _events.decode_delta(event.delta)
        thought, call = delta.reasoning_content, delta.tool_use
        generated = (
            delta.text or (call.input if call is not None else None) or (thought.text if thought is not None else None)
        )
        if generated:
            self.meaningful = True
            self.characters += len(generated)
        elif delta.text is None and call is None and (thought is None or thought.signature or thought.redacted_content):
            self.meaningful = True
