"""A streamed chat completion -> events.

Law: makes explicit what the shape implies: a part begins with its first delta and ends when another begins, or with the
finish reason. A call that begins before the one ahead of it is whole waits for that: other shapes cannot go on with a part
that has ended. A choice that never said why it ended ended by stopping, if [DONE] came (Snowflake).
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    CitationDelta,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsDelta,
    PartEnd,
    PartKind,
    PartStart,
    SignatureDelta,
    Start,
    TranscriptDelta,
    UsageUpdate,
)
from llm_gateway.core.types import Reasoning
from llm_gateway.formats._incoming import Incoming, broken, cut, unsaid
from llm_gateway.formats.openai_chat import _logprobs, _reasoning, _reply_wire, _usage, errors

_decode = msgspec.json.Decoder(_reply_wire.Reply).decode
_decode_any = msgspec.json.Decoder().decode

# Arguments in a hundred thousand pieces are not read a hundred thousand times: the call is then told at the end.
MOST_LOOKS, SMALL = 16, 64 << 10


class _Call:
    """One tool call. `part`: its part, -1 while it waits for one. `at`: the provider's index of it. `said`: its arguments, in
    pieces. `seal`: Google's, while it waits. `size`: characters of `said`; `looked`: how many of them were looked at, over and over."""

    __slots__ = ("at", "custom", "id", "looked", "name", "part", "said", "seal", "size")

    def __init__(self, at: int, name: str, *, called: str, custom: bool) -> None:
        self.at = at
        self.id = called
        self.name = name
        self.custom = custom
        self.part = -1
        self.said: list[str] = []
        self.seal: str | None = None
        self.size = self.looked = 0

    def say(self, text: str) -> None:
        self.said.append(text)
        self.size += len(text)

    def whole(self) -> bool:
        """Whether nothing can be missing from its arguments. What a custom tool is given may end anywhere."""
        if self.custom:
            return True
        last = next((piece.rstrip() for piece in reversed(self.said) if piece.strip()), "")
        if not last.endswith(("}", "]", '"')) or self.looked > MOST_LOOKS * self.size + SMALL:
            return False
        self.looked += self.size
        try:
            _decode_any("".join(self.said))
        except (msgspec.DecodeError, RecursionError):
            return False
        return True


class _Parts:
    """Which part of one choice is open. `tools`: the provider's index of a tool call -> the last call of that index.
    `calls`: all of them. `waiting`: those that may not be told yet, in order."""

    __slots__ = ("calls", "finished", "held", "index", "kind", "last_tool", "next", "tools", "waiting")

    def __init__(self) -> None:
        self.kind: PartKind | None = None
        self.index = -1
        self.next = 0
        self.tools: dict[int, _Call] = {}
        self.calls: list[_Call] = []
        self.waiting: list[_Call] = []
        self.last_tool = -1
        self.finished = False
        self.held: _reply_wire.Choice | None = None


class ChatReader:
    __slots__ = ("_choices", "_incoming", "_over", "_started")

    def __init__(self) -> None:
        self._incoming = Incoming()
        self._choices: dict[int, _Parts] = {}
        self._started = False
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
            if self._choices and all(parts.finished or parts.held for parts in self._choices.values()):
                self._end(events)
            else:
                self._fail(cut(), events)
        return events

    def _fail(self, fault: Fault, events: list[Event]) -> None:
        self._over = True
        events.append(Failed(fault))

    def _end(self, events: list[Event]) -> None:
        if not self._choices:
            self._fail(unsaid(), events)
            return
        self._over = True
        for number, parts in self._choices.items():
            if not parts.finished:
                self._finish(number, parts, parts.held or _reply_wire.Choice(finish_reason="stop"), events)
        events.append(End())

    def _read(self, payload: bytes, events: list[Event]) -> None:
        if payload == b"[DONE]":
            self._end(events)
            return
        try:
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._fail(broken(), events)
            return
        if chunk.choices:
            if not self._started:
                self._started = True
                events.append(_start(chunk))
            for choice in chunk.choices:
                self._read_choice(choice, events)
        if chunk.usage:
            events.append(UsageUpdate(_usage.read(chunk.usage, chunk.service_tier)))
        elif isinstance(chunk.x_groq, dict) and isinstance(chunk.x_groq.get("usage"), dict):
            events.append(UsageUpdate(_usage.read(chunk.x_groq["usage"], chunk.service_tier)))
        if chunk.error:
            self._fail(errors.read(200, payload), events)

    def _read_choice(self, choice: _reply_wire.Choice, events: list[Event]) -> None:
        number = choice.index or 0
        parts = self._choices.get(number)
        if parts is None:
            parts = self._choices[number] = _Parts()
        delta = choice.delta
        if delta is not None and not parts.finished:
            content = delta.content
            if type(content) is str and content and parts.kind == "text" and not _has_more(delta):
                events.append(Delta(parts.index, content, number))
            else:
                self._read_delta(delta, parts, number, events)
        elif choice.text and not parts.finished:
            _say("text", choice.text, parts, number, events)
        if choice.logprobs is not None and (tokens := _logprobs.read(choice.logprobs)):
            events.append(LogprobsDelta(tokens, number))
        if choice.finish_reason and not parts.finished:
            if delta is not None and delta.tool_calls:  # Z.ai ends every chunk of calls in this way, and more may follow
                parts.held = choice
            else:
                self._finish(number, parts, choice, events)

    def _read_delta(self, delta: _reply_wire.Message, parts: _Parts, number: int, events: list[Event]) -> None:
        if delta.reasoning_details or delta.reasoning_content or delta.reasoning:
            for thought in _reasoning.read(delta.reasoning_details, delta.reasoning_content, delta.reasoning):
                _think(thought, parts, number, events)
        if isinstance(delta.content, str):
            _say("text", delta.content, parts, number, events)
        elif delta.content:
            for thinks, text in _reply_wire.pieces(delta.content):
                _say("reasoning" if thinks else "text", text, parts, number, events)
        if delta.refusal:
            _say("refusal", delta.refusal, parts, number, events)
        if delta.audio is not None:
            _speak(delta.audio, parts, number, events)
        for note in delta.annotations or ():
            _cite(note, parts, number, events)
        for call in delta.tool_calls or ():
            _call(call, parts, number, events)
        if delta.function_call is not None:
            _call(_reply_wire.Call(index=0, function=delta.function_call), parts, number, events)

    def _finish(self, number: int, parts: _Parts, choice: _reply_wire.Choice, events: list[Event]) -> None:
        _shut(parts, number, events)
        _tell_waiting(parts, number, events)
        parts.finished = True
        reason, native = _reply_wire.finish(choice.finish_reason, called=bool(parts.calls))
        stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
        events.append(Finish(reason, number, stop, choice.native_finish_reason or native))


def _start(chunk: _reply_wire.Reply) -> Start:
    tier, fingerprint = chunk.service_tier or None, chunk.system_fingerprint or None
    return Start(chunk.id or "", chunk.model or "", int(chunk.created or 0), tier, fingerprint)


def _has_more(delta: _reply_wire.Message) -> bool:
    """Beside plain text."""
    more = delta.tool_calls or delta.reasoning_content or delta.reasoning or delta.reasoning_details
    return bool(more or delta.refusal or delta.audio or delta.annotations or delta.function_call)


def _shut(parts: _Parts, number: int, events: list[Event]) -> None:
    if parts.kind is not None:
        events.append(PartEnd(parts.index, number))
        parts.kind = None


def _open(start: PartStart, parts: _Parts, events: list[Event]) -> None:
    _shut(parts, start.choice, events)
    if parts.waiting and start.kind != "tool":
        _tell_waiting(parts, start.choice, events)
        start = replace(start, index=parts.next)
    parts.kind = start.kind
    parts.index = start.index
    parts.next += 1
    events.append(start)


def _say(kind: PartKind, text: str, parts: _Parts, number: int, events: list[Event]) -> None:
    if not text:
        return
    if parts.kind != kind:
        _open(PartStart(parts.next, kind, number), parts, events)
    events.append(Delta(parts.index, text, number))


def _think(thought: Reasoning, parts: _Parts, number: int, events: list[Event]) -> None:
    if thought.redacted is not None:
        _open(
            PartStart(parts.next, "reasoning", number, thought.id, redacted=thought.redacted, format=thought.format),
            parts,
            events,
        )
        _shut(parts, number, events)
        return
    text = thought.text or "".join(thought.summary)
    if parts.kind != "reasoning":
        _open(PartStart(parts.next, "reasoning", number, thought.id, format=thought.format), parts, events)
    if text:
        events.append(Delta(parts.index, text, number))
    if thought.signature is not None:
        events.append(SignatureDelta(parts.index, thought.signature, number, thought.format))


def _speak(audio: _reply_wire.Audio, parts: _Parts, number: int, events: list[Event]) -> None:
    if parts.kind != "audio":
        _open(PartStart(parts.next, "audio", number, audio.id), parts, events)
    if audio.data:
        events.append(Delta(parts.index, audio.data, number))
    if audio.transcript or audio.expires_at:
        events.append(TranscriptDelta(parts.index, audio.transcript or "", number, audio.id, audio.expires_at))


def _cite(note: object, parts: _Parts, number: int, events: list[Event]) -> None:
    cited = _reply_wire.citation(note)
    if cited is not None and parts.kind == "text":
        events.append(CitationDelta(parts.index, cited, number))


def _call(call: _reply_wire.Call, parts: _Parts, number: int, events: list[Event]) -> None:
    """Some services number all calls 0, or none of them: a new id is a new call; what names no id goes on with the last."""
    function = call.function or _reply_wire.Function()
    custom = call.custom if call.type == "custom" or call.function is None else None
    known = _known(call, parts)
    if known is None:
        at = call.index if call.index is not None else len(parts.calls)
        name = function.name if custom is None else custom.name
        called = call.id or f"call_{len(parts.calls)}"
        known = parts.tools[at] = _Call(at, name or "", called=called, custom=custom is not None)
        open_ = next((one for one in parts.calls if one.part == parts.index), None) if parts.kind == "tool" else None
        parts.calls.append(known)
        if open_ is None or open_.whole():
            _begin_call(known, parts, number, events)
        else:
            parts.waiting.append(known)
    parts.last_tool = known.at
    google = (call.extra_content or {}).get("google")
    if isinstance(google, dict) and isinstance(seal := google.get("thought_signature"), str):
        _seal(known, seal, number, events)
    text = _reply_wire.arguments(function.arguments) if custom is None else custom.input
    if text:
        known.say(text)
        if known.part >= 0:
            events.append(Delta(known.part, text, number))
            if parts.waiting and known.part == parts.index and known.whole():
                _tell_waiting(parts, number, events, whole_only=True)


def _known(call: _reply_wire.Call, parts: _Parts) -> _Call | None:
    """The call that a delta goes on with."""
    at = call.index if call.index is not None else parts.last_tool
    known = parts.tools.get(at)
    if known is None or not call.id or call.id == known.id:
        return known
    return next((one for one in parts.calls if one.at == at and one.id == call.id), None)


def _begin_call(call: _Call, parts: _Parts, number: int, events: list[Event]) -> None:
    """Its part, and what was said of it while it waited."""
    kind: Literal["function", "custom"] = "custom" if call.custom else "function"
    call.part = parts.next
    _open(PartStart(call.part, "tool", number, call.id, call.name, kind), parts, events)
    if call.seal is not None:
        _seal(call, call.seal, number, events)
    if call.said:
        events.append(Delta(call.part, "".join(call.said), number))


def _seal(call: _Call, seal: str, number: int, events: list[Event]) -> None:
    if call.part < 0:
        call.seal = seal
    else:
        events.append(SignatureDelta(call.part, seal, number, "gemini"))


def _tell_waiting(parts: _Parts, number: int, events: list[Event], *, whole_only: bool = False) -> None:
    """The calls that wait, in order. whole_only: up to one of which more may come, if others wait for it."""
    while parts.waiting:
        call = parts.waiting.pop(0)
        _begin_call(call, parts, number, events)
        if whole_only and not call.whole():
            return
    if not whole_only:
        _shut(parts, number, events)
