"""What a streamed generateContent tells as it goes by.

Law: reads, never changes. The end mark is a `finishReason`; chunks may follow it (the other candidates', the usage), so
everything from the first one on is held until the upstream's own end. The usage gets no cost: this shape has no place.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._splice import Verdict
from llm_gateway.formats.gemini import _facts, _finish, _usage, _wire, errors

_NONE = Raw(b"")
_BLANK = (b"\n\n", b"\n\r\n")
_ENVELOPE = ("modelVersion", "responseId")


class _Called(Struct, rename="camel", gc=False):
    name: str | None = None
    args: Raw = _NONE
    partial_args: list[dict[str, Any]] | None = None


class _Part(Struct, rename="camel", gc=False):
    text: str | None = None
    function_call: _Called | None = None


class _Content(Struct, gc=False):
    parts: tuple[_Part, ...] | None = None


class _Candidate(Struct, rename="camel", gc=False):
    content: _Content | None = None
    finish_reason: str | int | None = None
    index: int | None = 0
    grounding_metadata: dict[str, Any] | None = None


class _Chunk(Struct, rename="camel", gc=False):
    candidates: tuple[_Candidate, ...] | None = None
    usage_metadata: dict[str, Any] | None = None
    prompt_feedback: _wire.Feedback | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class ContentWatch:
    __slots__ = ("_candidates", "_counts", "_searches", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self) -> None:
        self._candidates = 1
        self._counts: dict[str, Any] = {}
        self._searches = 0
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        """One chunk with neither an end nor an error in it."""
        if not data.startswith(b"data: ") or data.find(b"\n", 6) < len(data) - 3 or not data.endswith(_BLANK):
            return False
        if data.find(b'"finishReason"') >= 0 or data.find(b'"error"') >= 0 or data.find(b'"promptFeedback"') >= 0:
            return False
        try:
            chunk = _decode(data[6:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._see(chunk)
        return True

    def look(self, event: bytes) -> Verdict:
        data = sse.payload(event)
        if not data:
            return Verdict.SEND
        try:
            chunk = _decode(data)
        except msgspec.ValidationError:
            self.meaningful = True  # well-formed, but of a kind we do not know: the client may
            return Verdict.SEND
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event that is not JSON.")
            return Verdict.DROP
        if chunk.error:
            self.failed = errors.read(200, data)
            return Verdict.DROP
        self._see(chunk)
        if not chunk.candidates and chunk.prompt_feedback is not None and chunk.prompt_feedback.block_reason:
            self.failed = errors.blocked(chunk.prompt_feedback, event, errors.SSE, self.usage)
            return Verdict.DROP
        return Verdict.HOLD if self.finish is not None else Verdict.SEND

    def complete(self) -> bool:
        return self.finish is not None

    def tail(self, held: list[bytes], cost: float | None) -> bytes:
        return b"".join(held)

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b""

    def follow(self) -> None:
        """The first chunk's envelope is all it takes."""

    def curtail(self, first: bytes, usage: Usage) -> list[bytes]:
        try:
            envelope = _decode_members(sse.payload(first))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        self.finish = _finish.write("length", None)
        nothing = {"parts": [{"text": ""}], "role": "model"}
        ends = [{"content": nothing, "finishReason": self.finish, "index": index} for index in range(self._candidates)]
        told = {"candidates": ends, "usageMetadata": _usage.write(usage), **{name: envelope[name] for name in _ENVELOPE if name in envelope}}
        return [b"data: " + msgspec.json.encode(told) + b"\r\n\r\n"]

    def _see(self, chunk: _Chunk) -> None:
        for candidate in chunk.candidates or ():
            if candidate.index and candidate.index >= self._candidates:
                self._candidates = candidate.index + 1
            if candidate.content is not None:
                for part in candidate.content.parts or ():
                    self._count(part)
            if candidate.grounding_metadata is not None:
                self._searches = max(self._searches, _facts.searches(candidate.grounding_metadata))
            said = _finish.word(candidate.finish_reason)
            if said is not None:
                self.meaningful = True
                self.finish = self.finish or said
        if chunk.usage_metadata:
            self._counts = _usage.merged(self._counts, chunk.usage_metadata)
            self.usage = _usage.read(self._counts, self._searches)

    def _count(self, part: _Part) -> None:
        if part.text:
            self.meaningful = True
            self.characters += len(part.text)
        elif part.function_call is not None:
            self.meaningful = True
            self.characters += _length(part.function_call)
        elif part.text is None:
            self.meaningful = True


def _length(call: _Called) -> int:
    pieces = (one.get("stringValue") for one in call.partial_args or ())
    told = sum(len(piece) for piece in pieces if isinstance(piece, str))
    return told + len(call.name or "") + len(bytes(call.args))
