"""A streamed Converse reply -> events.

Law: one block is one part, except where its deltas change their kind. Blocks are opened by their first delta, since only
some say that they start. `metadata`, which brings the usage, is the end mark; a reply with a `messageStop` is complete
without it.
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Raw

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    CitationDelta,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    OpaqueDelta,
    PartEnd,
    PartKind,
    PartStart,
    SignatureDelta,
    Start,
    UsageUpdate,
)
from llm_gateway.formats._incoming import broken, cut
from llm_gateway.formats.bedrock_converse import _events, _finish, _reading, _usage
from llm_gateway.formats.bedrock_converse._reading import SEALED_BY, SHAPE

_SERVER = "server_tool_use"


class _Block:
    """`sealed`: of a redacted thought, which is told whole when it ends."""

    __slots__ = ("index", "kind", "sealed")

    def __init__(self, index: int, kind: PartKind) -> None:
        self.index = index
        self.kind = kind
        self.sealed: list[bytes] = []


class ConverseReader:
    __slots__ = ("_blocks", "_finished", "_frames", "_next", "_over", "_started")

    def __init__(self) -> None:
        self._frames = eventstream.Frames()
        self._blocks: dict[int, _Block] = {}  # the open ones, by the upstream's number
        self._next = 0
        self._started = False
        self._finished = False
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        try:
            for frame in self._frames.feed(data):
                if not self._over:
                    self._read(frame, events)
        except Fault as fault:
            self._fail(fault, events)
        if self._frames.damage is not None and not self._over:
            self._fail(self._frames.damage, events)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        if self._finished and not self._frames.size:
            self._over = True
            events.append(End())
        else:
            self._fail(cut(), events)
        return events

    def _fail(self, fault: Fault, events: list[Event]) -> None:
        self._over = True
        events.append(Failed(fault))

    def _read(self, frame: bytes, events: list[Event]) -> None:
        name, payload = _events.read(frame)
        if name not in _events.HEADERS:
            return  # what is yet to be invented
        try:
            event = _events.decode(payload)
            if not self._started:
                self._started = True
                events.append(Start("", ""))
            if name == "contentBlockDelta":
                self._read_delta(event, events)
            else:
                self._tell(name, event, events)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error, ValueError):
            self._fail(broken(), events)

    def _tell(self, name: str, event: _events.Event, events: list[Event]) -> None:
        match name:
            case "contentBlockStart":
                self._read_start(event, events)
            case "contentBlockStop":
                self._close(event.content_block_index, events)
            case "messageStop":
                self._read_stop(event, events)
            case "metadata":
                if event.usage:
                    events.append(UsageUpdate(_usage.read(event.usage, event.service_tier)))
                if self._finished:
                    self._over = True
                    events.append(End())
            case _:
                pass  # messageStart

    def _read_stop(self, event: _events.Event, events: list[Event]) -> None:
        for number in list(self._blocks):
            self._close(number, events)
        if not self._finished:
            self._finished = True
            reason, native = _finish.read(event.stop_reason)
            stopped = _finish.stop_sequence(event.additional_model_response_fields)
            events.append(Finish(reason, 0, stopped, native))

    def _read_start(self, event: _events.Event, events: list[Event]) -> None:
        number = event.content_block_index
        self._close(number, events)
        opened = _events.decode_start(event.start).tool_use
        block = self._blocks[number] = _Block(self._next, "opaque" if opened is None else "tool")
        self._next += 1
        if opened is None or opened.type == _SERVER:
            block.kind = "opaque"
            raw = event.start.copy()
            events.append(PartStart(block.index, "opaque", name=_name(raw), format=SHAPE, raw=raw))
        else:
            call = opened.tool_use_id or f"tooluse_{number}"
            events.append(PartStart(block.index, "tool", id=call, name=opened.name))

    def _read_delta(self, event: _events.Event, events: list[Event]) -> None:
        number = event.content_block_index
        block = self._blocks.get(number)
        if block is not None and block.kind == "opaque":
            events.append(OpaqueDelta(block.index, SHAPE, event.delta.copy()))
            return
        delta = _events.decode_delta(event.delta)
        if delta.text is not None:
            if block is None or block.kind != "text":
                block = self._open(number, "text", events)
            if delta.text:
                events.append(Delta(block.index, delta.text))
        elif delta.tool_use is not None:
            if block is None or block.kind != "tool":
                self._fail(broken(), events)
            else:
                _say(block.index, delta.tool_use.input, events)
        elif delta.reasoning_content is not None:
            self._read_thought(number, delta.reasoning_content, events)
        elif bytes(delta.citation):
            cited = _reading.citation(delta.citation)
            events.append(CitationDelta(self._open(number, "text", events).index, cited))
        else:
            events.append(OpaqueDelta(self._open(number, "opaque", events).index, SHAPE, event.delta.copy()))

    def _read_thought(self, number: int, thought: _events.Thought, events: list[Event]) -> None:
        if thought.redacted_content is not None:
            block = self._blocks.get(number)
            if block is None or not block.sealed:
                self._close(number, events)
                block = self._blocks[number] = _Block(-1, "reasoning")
            block.sealed.append(base64.b64decode(thought.redacted_content, validate=True))
            return
        block = self._open(number, "reasoning", events)
        _say(block.index, thought.text, events)
        if thought.signature:
            events.append(SignatureDelta(block.index, thought.signature, format=SEALED_BY))

    def _open(self, number: int, kind: PartKind, events: list[Event]) -> _Block:
        """The block of that number, if it is of that kind; else a new one."""
        block = self._blocks.get(number)
        if block is not None and block.kind == kind and not block.sealed:
            return block
        self._close(number, events)
        block = self._blocks[number] = _Block(self._next, kind)
        self._next += 1
        events.append(PartStart(block.index, kind, format=SHAPE if kind == "opaque" else ""))
        return block

    def _close(self, number: int, events: list[Event]) -> None:
        block = self._blocks.pop(number, None)
        if block is None:
            return
        if block.sealed:
            block.index = self._next
            self._next += 1
            part = _reading.sealed(b"".join(block.sealed))
            events.append(PartStart(block.index, "reasoning", redacted=part.redacted, format=part.format))
        events.append(PartEnd(block.index))


def _say(index: int, text: str | None, events: list[Event]) -> None:
    if text:
        events.append(Delta(index, text))


def _name(start: Raw) -> str:
    """The member that says what starts."""
    return next(iter(msgspec.json.decode(start, type=dict[str, Raw])), "")
