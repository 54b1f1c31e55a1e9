"""A streamed message -> events.

Law: one block is one part, numbered as Anthropic numbers it; blocks only Anthropic knows pass whole, as opaque parts.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

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
    PartStart,
    SignatureDelta,
    Start,
    UsageUpdate,
)
from llm_gateway.formats._incoming import Incoming, broken, cut, unsaid
from llm_gateway.formats.anthropic_messages import _blocks, _usage, errors, replies

SHAPE = _blocks.SHAPE
NONE = Raw(b"")


class _Delta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    citation: Raw = NONE
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(Struct, gc=False):
    id: str = ""
    model: str = ""
    usage: dict[str, Any] | None = None


class _Event(Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: Raw = NONE
    content_block: Raw = NONE
    message: _Message | None = None
    usage: dict[str, Any] | None = None


class _Block(Struct, gc=False):
    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    input: Raw = NONE


_decode = msgspec.json.Decoder(_Event).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_NO_INPUT = frozenset({b"", b"{}", b"null"})


class MessageReader:
    __slots__ = ("_counts", "_finished", "_incoming", "_kinds", "_over", "_started")

    def __init__(self) -> None:
        self._incoming = Incoming()
        self._counts: dict[str, Any] = {}
        self._kinds: dict[int, str] = {}  # of the open blocks
        self._started = False
        self._finished = False
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        try:
            for payload in self._incoming.feed(data):
                if not self._over:
                    self._read(payload, events)
        except Fault as fault:
            self._fail(fault, events)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        for payload in self._incoming.close():
            self._read(payload, events)
        if not self._over:
            if self._finished:
                self._over = True
                events.append(End())
            else:
                self._fail(cut(), events)
        return events

    def _fail(self, fault: Fault, events: list[Event]) -> None:
        self._over = True
        events.append(Failed(fault))

    def _read(self, payload: bytes, events: list[Event]) -> None:
        try:
            event = _decode(payload)
            match event.type:
                case "content_block_delta":
                    self._read_delta(event, events)
                case "content_block_start":
                    self._read_start(event, events)
                case "content_block_stop":
                    if self._kinds.pop(event.index, None) is not None:
                        events.append(PartEnd(event.index))
                case "message_start":
                    message = event.message or _Message()
                    self._start(message, events)
                    self._count(message.usage, events)
                case "message_delta":
                    self._count(event.usage, events)
                    self._read_finish(event, events)
                case "message_stop" if not self._started:
                    self._fail(unsaid(), events)
                case "message_stop":
                    self._over = True
                    events.append(End())
                case "error":
                    self._fail(errors.read(200, payload), events)
                case _:
                    pass  # ping, and what is yet to be invented
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, Fault):
            self._fail(broken(), events)

    def _start(self, message: _Message, events: list[Event]) -> None:
        """Once: also where what is said does not wait for message_start."""
        if not self._started:
            self._started = True
            events.append(Start(message.id, message.model))

    def _count(self, counts: dict[str, Any] | None, events: list[Event]) -> None:
        if counts:
            self._counts = _usage.merged(self._counts, counts)
            events.append(UsageUpdate(_usage.read(self._counts)))

    def _read_finish(self, event: _Event, events: list[Event]) -> None:
        delta = _decode_delta(event.delta)
        if delta.stop_reason and not self._finished:
            self._start(_Message(), events)
            events += map(PartEnd, self._kinds)  # of a service that does not say that its blocks stop
            self._kinds = {}
            self._finished = True
            reason, native = replies.finish(delta.stop_reason)
            events.append(Finish(reason, 0, delta.stop_sequence, native))

    def _read_start(self, event: _Event, events: list[Event]) -> None:
        index = event.index
        block = _decode_block(event.content_block)
        self._start(_Message(), events)
        self._kinds[index] = block.type
        match block.type:
            case "text":
                events.append(PartStart(index, "text"))
                _delta(index, block.text, events)
            case "thinking":
                events.append(PartStart(index, "reasoning", format=SHAPE))
                _delta(index, block.thinking, events)
                if block.signature:
                    events.append(SignatureDelta(index, block.signature, format=SHAPE))
            case "redacted_thinking":
                events.append(PartStart(index, "reasoning", redacted=block.data or "", format=SHAPE))
            case "tool_use":
                events.append(PartStart(index, "tool", id=block.id or f"toolu_{index}", name=block.name or ""))
                if bytes(block.input) not in _NO_INPUT:
                    _delta(index, bytes(block.input).decode(), events)
            case _:
                self._kinds[index] = "opaque"
                events.append(PartStart(index, "opaque", name=block.type, format=SHAPE, raw=event.content_block.copy()))

    def _read_delta(self, event: _Event, events: list[Event]) -> None:
        index = event.index
        kind = self._kinds.get(index)
        if kind is None:
            self._fail(broken(), events)
            return
        if kind == "opaque":
            events.append(OpaqueDelta(index, SHAPE, event.delta.copy()))
            return
        delta = _decode_delta(event.delta)
        match delta.type:
            case "text_delta":
                _delta(index, delta.text, events)
            case "input_json_delta":
                _delta(index, delta.partial_json, events)
            case "thinking_delta":
                _delta(index, delta.thinking, events)
            case "signature_delta":
                events.append(SignatureDelta(index, delta.signature or "", format=SHAPE))
            case "citations_delta" if bytes(delta.citation):
                events.append(CitationDelta(index, _blocks.citation(delta.citation)))
            case _:
                events.append(OpaqueDelta(index, SHAPE, event.delta.copy()))


def _delta(index: int, text: str | None, events: list[Event]) -> None:
    if text:
        events.append(Delta(index, text))
