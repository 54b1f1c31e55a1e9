"""Events -> a streamed generateContent reply.

Law: a chunk's envelope is written once, at Start; texts go out as they come, a call when it is whole, since this shape has
no half calls. The finish reasons and the usage wait for `tail`. A part that only another shape knows is left out.
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
from llm_gateway.core.types import Citation, Logprob, ToolCall, Usage
from llm_gateway.formats.gemini import _facts, _finish, _usage, _writing, errors, replies
from llm_gateway.formats.gemini._reading import SHAPE

_CHUNK = b'data: {"candidates":[{"content":{"parts":[%b],"role":"model"},"index":%d}],%b}\r\n\r\n'
_TEXTS = {"text": b'{"text":%b}', "refusal": b'{"text":%b}', "reasoning": b'{"text":%b,"thought":true}'}
_encode = msgspec.json.Encoder().encode


class _Part:
    """`said`: of a call's arguments, or of a sound, which goes out whole."""

    __slots__ = ("said", "signature", "start")

    def __init__(self, start: PartStart) -> None:
        self.start = start
        self.said: list[str] = []
        self.signature: str | None = None


class ContentWriter:
    __slots__ = ("_about", "_cited", "_finishes", "_logprobs", "_parts", "_usage")

    def __init__(self) -> None:
        self._about = b""
        self._parts: dict[tuple[int, int], _Part] = {}
        self._cited: dict[int, tuple[Citation, ...]] = {}
        self._logprobs: dict[int, tuple[Logprob, ...]] = {}
        self._finishes: dict[int, Finish] = {}
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._write_delta(event)
            case Start():
                self._about = _encode({"modelVersion": event.model, "responseId": event.id})[1:-1]
            case PartStart():
                return self._write_start(event)
            case PartEnd():
                return self._write_end(event)
            case SignatureDelta():
                return self._write_signature(event)
            case UsageUpdate():
                self._usage = event.usage
            case Finish():
                self._finishes[event.choice] = event
            case CitationDelta():
                self._cited[event.choice] = (*self._cited.get(event.choice, ()), event.citation)
            case LogprobsDelta():
                self._logprobs[event.choice] = (*self._logprobs.get(event.choice, ()), *event.logprobs)
            case TranscriptDelta() | OpaqueDelta() | End() | Failed():
                pass  # a transcript is beside its sound, which went out or will
            case _:
                assert_never(event)
        return b""

    def tail(self, cost: float | None) -> bytes:
        """The last chunk, with every candidate's end. What a call cost has no place in this shape."""
        finishes = self._finishes or {0: Finish("stop")}
        body: dict[str, Any] = {"candidates": [self._ending(one) for one in finishes.values()]}
        if self._usage is not None:
            body["usageMetadata"] = _usage.write(self._usage)
        return b"data: " + _encode(body)[:-1] + (b"," + self._about if self._about else b"") + b"}\r\n\r\n"

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b""

    def _ending(self, finish: Finish) -> dict[str, Any]:
        ending: dict[str, Any] = {
            "content": {"parts": [{"text": ""}], "role": "model"},
            "finishReason": _finish.write(finish.finish, finish.native_finish),
            "index": finish.choice,
        }
        if (grounding := _facts.grounding(self._cited.get(finish.choice, ()))) is not None:
            ending["groundingMetadata"] = grounding
        if (logprobs := self._logprobs.get(finish.choice)) is not None:
            ending["logprobsResult"] = _facts.written_logprobs(logprobs)
        return ending

    def _chunk(self, choice: int, part: bytes) -> bytes:
        return _CHUNK % (part, choice, self._about)

    def _write_start(self, start: PartStart) -> bytes:
        self._parts[start.choice, start.index] = _Part(start)
        if start.kind == "opaque" and start.format == SHAPE and start.raw is not None:
            return self._chunk(start.choice, bytes(start.raw))
        return b""

    def _write_delta(self, event: Delta) -> bytes:
        part = self._parts[event.choice, event.index]
        written = _TEXTS.get(part.start.kind)
        if written is not None:
            return self._chunk(event.choice, written % _encode(event.text))
        part.said.append(event.text)
        return b""

    def _write_signature(self, event: SignatureDelta) -> bytes:
        if event.format != SHAPE:
            return b""
        part = self._parts[event.choice, event.index]
        if part.start.kind == "tool":
            part.signature = event.signature
            return b""
        sealed: dict[str, Any] = {"text": "", "thoughtSignature": event.signature}
        if part.start.kind == "reasoning":
            sealed["thought"] = True
        return self._chunk(event.choice, _encode(sealed))

    def _write_end(self, event: PartEnd) -> bytes:
        part = self._parts[event.choice, event.index]
        start, said = part.start, "".join(part.said)
        if start.kind == "tool":
            call = ToolCall(start.id or "", start.name or "", said, start.tool_kind, part.signature)
            return self._chunk(event.choice, _encode(_writing.function_call(call, replies.arguments(call))))
        if start.kind == "audio" and said:
            return self._chunk(event.choice, _encode({"inlineData": {"mimeType": "audio/wav", "data": said}}))
        return b""
