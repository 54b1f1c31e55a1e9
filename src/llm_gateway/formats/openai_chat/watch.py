"""What a streamed chat completion tells as it goes by, whoever of OpenAI's many followers sends it.

Law: reads, never changes, but for what `tail` adds. A usage-only chunk is dropped where only we asked for it; it, or the
usage chunk after a finish reason, is held where the client asked, to carry `usage.cost`; so is `[DONE]`, which is added
where a complete stream lacks it (Cerebras, GPUStack, Perplexity).

A chunk is decoded, but only these fields of it: 0.6 us, no more than the six byte searches it replaces, and nested objects,
spacing or key order cannot mislead it. Field types are loose on purpose; providers vary them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._splice import Verdict
from llm_gateway.formats.openai_chat import _usage, errors

_DONE = b"data: [DONE]\n\n"
_NULL = Raw(b"null")
_ENVELOPE = frozenset({"id", "object", "created", "model", "provider", "service_tier", "system_fingerprint"})
_LEGACY = b'"text_completion"'


class _Delta(Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    images: Any = None
    reasoning_details: Any = None


class _Choice(Struct, gc=False):
    delta: _Delta | None = None
    text: Any = None  # of a legacy completion
    finish_reason: str | None = None
    index: int | None = 0


class _Chunk(Struct, gc=False):
    choices: tuple[_Choice, ...] | None = ()
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    service_tier: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_decode_with_care = tolerant(_decode)
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class ChatWatch:
    __slots__ = ("_asked", "_choices", "_finished", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self, *, asked: bool) -> None:
        """asked: the client itself wants usage in its stream."""
        self._asked = asked
        self._choices = 0
        self._finished: set[int] = set()
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        if not data.startswith(b"data: {") or data.find(b"\n\n") != len(data) - 2:
            return False
        try:
            chunk = _decode(data[6:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        choices = chunk.choices
        if not choices or chunk.usage or chunk.error or chunk.x_groq:
            return False
        for choice in choices:
            delta = choice.delta
            if delta is None or choice.finish_reason or choice.index:
                self._see(choice)
            elif type(delta.content) is str and delta.content and not delta.tool_calls:
                self._choices = self._choices or 1
                self.meaningful = True
                self.characters += len(delta.content)
            else:
                self._see(choice)
        return True

    def look(self, event: bytes) -> Verdict:
        data = sse.payload(event)
        if not data:
            return Verdict.SEND
        if data == b"[DONE]":
            self.ended = True
            return Verdict.HOLD
        try:
            chunk = _decode_with_care(data)
        except msgspec.ValidationError:
            self.meaningful = True  # well-formed, but of a kind we do not know: the client may
            return Verdict.SEND
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event that is not JSON.")
            return Verdict.DROP
        for choice in chunk.choices or ():
            self._see(choice)
        if chunk.usage or chunk.error or chunk.x_groq:
            return self._look_rare(chunk, data)
        return Verdict.SEND

    def complete(self) -> bool:
        return 0 < self._choices <= len(self._finished)

    def tail(self, held: list[bytes], cost: float | None) -> bytes:
        if cost is not None and self._asked:
            _add_cost(held, cost)
        return b"".join(held) if self.ended else b"".join(held) + _DONE

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def follow(self) -> None:
        """The first chunk's envelope is all it takes."""

    def curtail(self, first: bytes, usage: Usage) -> list[bytes]:
        try:
            envelope = _decode_members(sse.payload(first))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        envelope = {name: value for name, value in envelope.items() if name in _ENVELOPE}
        if self._asked:
            envelope["usage"] = _NULL
        self.finish = "length"
        legacy = bytes(envelope.get("object", _NULL)) == _LEGACY
        open_ = [index for index in range(self._choices or 1) if index not in self._finished]
        ends = [_chunk(envelope, [_ending(index, legacy=legacy)]) for index in open_]
        if self._asked:
            ends.append(_chunk({**envelope, "usage": Raw(msgspec.json.encode(_usage.write(usage)))}, []))
        return [*ends, _DONE]

    def _see(self, choice: _Choice) -> None:
        index = choice.index or 0
        if index >= self._choices:
            self._choices = index + 1
        if choice.text and choice.delta is None:  # Together tells a chat chunk's words in both
            self.meaningful = True
            self.characters += _characters(choice.text)
        if choice.delta is not None and _says(choice.delta):
            self.meaningful = True
            self.characters += _length(choice.delta)
        if choice.finish_reason:
            self.meaningful = True
            self.finish = choice.finish_reason
            self._finished.add(index)

    def _look_rare(self, chunk: _Chunk, data: bytes) -> Verdict:
        usage = chunk.usage
        if not usage and isinstance(chunk.x_groq, dict):
            usage = chunk.x_groq.get("usage")
        if isinstance(usage, dict):
            self.usage = _usage.read(usage, chunk.service_tier)
        if chunk.error:
            self.failed = errors.read(200, data)
            return Verdict.DROP
        if not chunk.usage:
            return Verdict.SEND
        if self._asked:
            return Verdict.HOLD if self._finished or not chunk.choices else Verdict.SEND
        return Verdict.SEND if chunk.choices else Verdict.DROP


def _ending(index: int, *, legacy: bool) -> dict[str, Any]:
    """A choice that became as long as it may."""
    said: dict[str, Any] = {"text": ""} if legacy else {"delta": {}}
    return {"index": index, **said, "logprobs": None, "finish_reason": "length"}


def _chunk(envelope: dict[str, Raw], choices: list[dict[str, Any]]) -> bytes:
    return b"data: " + msgspec.json.encode({**envelope, "choices": choices}) + b"\n\n"


def _says(delta: _Delta) -> bool:
    """Whether a client would notice what the delta holds."""
    return bool(
        delta.content
        or delta.reasoning
        or delta.reasoning_content
        or delta.tool_calls
        or delta.refusal
        or delta.function_call
        or delta.audio
        or delta.images
        or delta.reasoning_details
    )


def _length(delta: _Delta) -> int:
    """Characters of generated text; reasoning given twice, under two names, counts once."""
    total = _characters(delta.content) + _characters(
        delta.reasoning_content or delta.reasoning or delta.reasoning_details
    )
    total += _characters(delta.refusal) + _characters(delta.function_call) + _characters(delta.tool_calls)
    return total + _characters(delta.audio)


def _characters(value: object) -> int:
    """Of every generated string in a content list, a list of tool calls, of reasoning details, or in spoken audio."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    if isinstance(value, dict):
        names = ("text", "thinking", "summary", "function", "name", "arguments", "custom", "input", "transcript")
        return sum(_characters(value.get(name)) for name in names)
    return 0


def _add_cost(held: list[bytes], cost: float) -> None:
    """Write `usage.cost` into the last held event that has a usage object."""
    for position in range(len(held) - 1, -1, -1):
        try:
            members = _decode_members(sse.payload(held[position]))
            usage = _decode_members(members.get("usage", _NULL))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # [DONE], a comment, or a chunk without usage
        usage["cost"] = Raw(msgspec.json.encode(cost))
        members["usage"] = Raw(msgspec.json.encode(usage))
        held[position] = b"data: " + msgspec.json.encode(members) + b"\n\n"
        return
