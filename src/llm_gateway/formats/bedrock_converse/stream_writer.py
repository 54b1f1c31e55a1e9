"""Events -> a streamed Converse reply.

Law: blocks are numbered by us, in order of appearance, without those that only another shape knows. Only the first choice
is told; this API has one. `messageStop` and `metadata` wait for `tail`.
"""

from __future__ import annotations

import base64
from typing import Any, assert_never

import msgspec

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    CitationDelta,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsDelta,
    OpaqueDelta,
    PartEnd,
    PartStart,
    SignatureDelta,
    Start,
    TranscriptDelta,
    UsageUpdate,
)
from llm_gateway.core.types import Conversation, Usage
from llm_gateway.formats.bedrock_converse import _events, _finish, _usage, _writing, errors, replies
from llm_gateway.formats.bedrock_converse._reading import SEALED_BY, SHAPE

Fields = dict[str, Any]
# The payload of a delta that holds nothing but a string, by kind of part.
_TEXT = b'{"contentBlockIndex":%d,"delta":{"text":%b}}'
_DELTAS = {
    "text": _TEXT,
    "refusal": _TEXT,
    "reasoning": b'{"contentBlockIndex":%d,"delta":{"reasoningContent":{"text":%b}}}',
    "tool": b'{"contentBlockIndex":%d,"delta":{"toolUse":{"input":%b}}}',
}
_DELTA = _events.HEADERS["contentBlockDelta"]
_encode = msgspec.json.Encoder().encode


class _Block:
    """`said`: of a custom tool's input, which must go out as one JSON object at its end."""

    __slots__ = ("custom", "number", "payload", "said")

    def __init__(self, number: int, start: PartStart) -> None:
        self.number = number
        self.custom = start.tool_kind == "custom"
        self.payload = _DELTAS.get(start.kind, b"") if not self.custom else b""
        self.said: list[str] = []


class ConverseWriter:
    __slots__ = ("_blocks", "_call", "_finish", "_next", "_usage")

    def __init__(self, call: Conversation) -> None:
        self._call = call
        self._blocks: dict[int, _Block] = {}
        self._next = 0
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._write_delta(event)
            case Start():
                return _events.write("messageStart", {"role": "assistant"})
            case UsageUpdate():
                self._usage = event.usage
                return b""
            case LogprobsDelta() | End() | Failed():
                return b""
            case (
                PartStart()
                | PartEnd()
                | SignatureDelta()
                | CitationDelta()
                | TranscriptDelta()
                | OpaqueDelta()
                | Finish()
            ):
                return self._write_rest(event) if event.choice == 0 else b""
            case _:
                assert_never(event)

    def tail(self, cost: float | None) -> bytes:
        """The end and the usage. What a call cost has no place in this shape."""
        end, stopped = self._finish, self._finish.stop_sequence
        stop: Fields = {"stopReason": _finish.write(end.finish, end.native_finish, stopped)}
        if (more := replies.asked_for(self._call, stopped)) is not None:
            stop["additionalModelResponseFields"] = more
        metadata = {"usage": _usage.write(self._usage), "metrics": replies.METRICS}
        return _events.write("messageStop", stop) + _events.write("metadata", metadata)

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b""

    def _write_delta(self, event: Delta) -> bytes:
        block = self._blocks.get(event.index) if event.choice == 0 else None
        if block is None:
            return b""
        if block.payload:
            return eventstream.framed(_DELTA, block.payload % (block.number, _encode(event.text)))
        block.said.append(event.text)
        return b""

    def _write_rest(
        self,
        event: PartStart | PartEnd | SignatureDelta | CitationDelta | TranscriptDelta | OpaqueDelta | Finish,
    ) -> bytes:
        if isinstance(event, PartStart):
            return self._write_start(event)
        if isinstance(event, Finish):
            self._finish = event
            return b""
        block = self._blocks.get(event.index)
        if block is None:
            return b""
        match event:
            case PartEnd():
                return self._write_end(block)
            case SignatureDelta(signature=signature, format=shape):
                sealed = {"reasoningContent": {"signature": signature}}
                return _delta(block, sealed) if shape == SEALED_BY else b""
            case CitationDelta(citation=citation):
                cited = _writing.citation(citation)
                return _delta(block, {"citation": cited}) if cited is not None else b""
            case TranscriptDelta(text=text):
                return _delta(block, {"text": text})
            case OpaqueDelta(raw=raw, format=shape):
                return _delta(block, raw) if shape == SHAPE else b""
            case _:
                assert_never(event)

    def _write_start(self, start: PartStart) -> bytes:
        """Only tools say that they start; a thought that is sealed is one delta."""
        match start.kind:
            case "text" | "refusal" | "audio":
                opening: object = None
            case "reasoning":
                opening = None
                if start.redacted is not None and start.format not in {SHAPE, SEALED_BY}:
                    return b""
            case "tool":
                opening = {"toolUse": {"toolUseId": _writing.call_id(start.id or ""), "name": start.name or ""}}
            case "opaque":
                if start.format != SHAPE:
                    return b""
                opening = start.raw
            case _:
                assert_never(start.kind)
        block = self._blocks[start.index] = _Block(self._next, start)
        self._next += 1
        told = b""
        if opening is not None:
            told = _events.write("contentBlockStart", {"contentBlockIndex": block.number, "start": opening})
        if start.kind == "reasoning" and start.redacted is not None:
            told = _delta(block, {"reasoningContent": {"redactedContent": _redacted(start)}})
        return told

    def _write_end(self, block: _Block) -> bytes:
        end = _events.write("contentBlockStop", {"contentBlockIndex": block.number})
        if not block.custom:
            return end
        told = _encode({"input": "".join(block.said)}).decode()
        return _delta(block, {"toolUse": {"input": told}}) + end


def _delta(block: _Block, delta: object) -> bytes:
    return _events.write("contentBlockDelta", {"contentBlockIndex": block.number, "delta": delta})


def _redacted(start: PartStart) -> str:
    sealed = start.redacted or ""
    return sealed if start.format == SHAPE else str(base64.b64encode(sealed.encode()), "ascii")
