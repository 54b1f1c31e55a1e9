"""Events -> a streamed message.

Law: blocks are numbered by us, in order of appearance, without those that only another shape knows. Only the first choice
is told; this API has one. The stop reason and the usage wait for `tail`.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

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
from llm_gateway.core.types import Usage
from llm_gateway.formats.anthropic_messages import _parts, _usage, errors, replies
from llm_gateway.formats.anthropic_messages._blocks import SHAPE

Fields = dict[str, Any]
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_NO_USAGE: Fields = {"input_tokens": 0, "output_tokens": 0}
_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n'
_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
# The opening of a delta that holds nothing but a string, by kind of part.
_DELTAS = {
    "text": b'{"type":"text_delta","text":',
    "refusal": b'{"type":"text_delta","text":',
    "audio": b'{"type":"text_delta","text":',
    "reasoning": b'{"type":"thinking_delta","thinking":',
    "tool": b'{"type":"input_json_delta","partial_json":',
}
_encode = msgspec.json.Encoder().encode


class _Block:
    """`said`: of a custom tool's input, which must go out as one JSON object at its end."""

    __slots__ = ("kind", "number", "opening", "said")

    def __init__(self, number: int, kind: str, opening: bytes) -> None:
        self.number = number
        self.kind = kind
        self.opening = opening
        self.said: list[str] = []


class MessageWriter:
    __slots__ = ("_blocks", "_finish", "_next", "_usage")

    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._next = 0
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._write_delta(event)
            case Start():
                return _start(event)
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
        usage = _usage.write(self._usage, cost) if self._usage is not None else _NO_USAGE
        stop = self._finish.stop_sequence
        delta = {"stop_reason": replies.stop_reason(self._finish.finish, stop), "stop_sequence": stop}
        body = _encode({"type": "message_delta", "delta": delta, "usage": usage})
        return b"event: message_delta\ndata: " + body + b"\n\n" + _STOP

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b'event: ping\ndata: {"type": "ping"}\n\n'

    def _write_delta(self, event: Delta) -> bytes:
        block = self._blocks.get(event.index) if event.choice == 0 else None
        if block is None:
            return b""
        if block.opening:
            return _DELTA % (block.number, block.opening + _encode(event.text) + b"}")
        block.said.append(event.text)
        return b""

    def _write_rest(
        self,
        event: PartStart | PartEnd | SignatureDelta | CitationDelta | TranscriptDelta | OpaqueDelta | Finish,
    ) -> bytes:
        if isinstance(event, PartStart):
            return self._write_start(event)
        if isinstance(event, Finish):
            if event.finish == "error":
                raise replies.unfinished()
            self._finish = event
            return b""
        block = self._blocks.get(event.index)
        if block is None:
            return b""
        match event:
            case PartEnd():
                return self._write_end(block)
            case SignatureDelta(signature=signature, format=shape):
                sealed = {"type": "signature_delta", "signature": signature}
                return _DELTA % (block.number, _encode(sealed)) if shape == SHAPE else b""
            case CitationDelta(citation=citation):
                cited = _parts.citation(citation)
                return (
                    _DELTA % (block.number, _encode({"type": "citations_delta", "citation": cited}))
                    if cited is not None
                    else b""
                )
            case TranscriptDelta(text=text):
                return _DELTA % (block.number, _DELTAS["text"] + _encode(text) + b"}")
            case OpaqueDelta(raw=raw):
                return _DELTA % (block.number, bytes(raw))
            case _:
                assert_never(event)

    def _write_start(self, start: PartStart) -> bytes:
        content = _content(start)
        if content is None:
            return b""
        kind = "custom" if start.tool_kind == "custom" else start.kind
        opening = b"" if kind in {"custom", "audio"} else _DELTAS.get(kind, b"")
        block = self._blocks[start.index] = _Block(self._next, kind, opening)
        self._next += 1
        return _START % (block.number, _encode(content))

    def _write_end(self, block: _Block) -> bytes:
        end = _END % block.number
        if block.kind != "custom":
            return end
        told = _encode({"input": "".join(block.said)}).decode()
        return _DELTA % (block.number, _DELTAS["tool"] + _encode(told) + b"}") + end


def _start(start: Start) -> bytes:
    message: Fields = {
        "id": start.id,
        "type": "message",
        "role": "assistant",
        "model": start.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _NO_USAGE,
    }
    return b"event: message_start\ndata: " + _encode({"type": "message_start", "message": message}) + b"\n\n"


def _content(start: PartStart) -> object:
    """The block as it opens; None where this API has no such block. Audio becomes its transcript."""
    match start.kind:
        case "text" | "refusal" | "audio":
            return {"type": "text", "text": ""}
        case "reasoning" if start.redacted is not None:
            return {"type": "redacted_thinking", "data": start.redacted} if start.format == SHAPE else None
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "tool":
            return {"type": "tool_use", "id": _parts.call_id(start.id or ""), "name": start.name or "", "input": {}}
        case "opaque":
            return start.raw if start.format == SHAPE else None
        case _:
            assert_never(start.kind)
