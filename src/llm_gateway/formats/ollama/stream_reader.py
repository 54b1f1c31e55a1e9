"""A streamed reply of Ollama's -> events.

Law: consecutive texts of one kind are one part, a call is a part by itself and whole. The line that says `"done": true` is
the end mark, and may say something, too.
"""

from __future__ import annotations

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsDelta,
    PartEnd,
    PartKind,
    PartStart,
    Start,
    UsageUpdate,
)
from llm_gateway.formats._incoming import broken, cut
from llm_gateway.formats._lines import Lines
from llm_gateway.formats.ollama import _facts, _wire, errors, replies

_decode = msgspec.json.Decoder(_wire.Reply).decode


class LineReader:
    """`_open`: the kind of the part that texts are being added to, the last that began."""

    __slots__ = ("_calls", "_lines", "_next", "_open", "_over", "_started")

    def __init__(self) -> None:
        self._lines = Lines()
        self._next = 0
        self._open: PartKind | None = None
        self._calls = 0
        self._started = False
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._over:
            return events
        try:
            for line in self._lines.feed(data).split(b"\n"):
                if line and not self._over:
                    self._read(line, events)
        except Fault as fault:
            self._fail(fault, events)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if not self._over and (rest := self._lines.take().strip()):
            self._read(rest, events)
        if not self._over:
            self._fail(cut(), events)
        return events

    def _fail(self, fault: Fault, events: list[Event]) -> None:
        self._over = True
        events.append(Failed(fault))

    def _read(self, line: bytes, events: list[Event]) -> None:
        try:
            told = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if line.strip():
                self._fail(broken(), events)
            return
        if told.error:
            self._fail(errors.read(200, line), events)
            return
        if not self._started:
            self._started = True
            when = told.created_at
            events.append(Start(_facts.reply_id(when), told.model or "", _facts.moment(when)))
        said = told.said()
        if said is not None:
            self._say("reasoning", said.thinking, events)
            self._say("text", said.content, events)
            for call in said.tool_calls or ():
                self._call(call, told.created_at, events)
        if logprobs := _facts.logprobs(told.logprobs):
            events.append(LogprobsDelta(logprobs))
        if told.done:
            self._end(told, events)

    def _say(self, kind: PartKind, text: str | None, events: list[Event]) -> None:
        if not text:
            return
        if self._open != kind:
            self._close(events)
            events.append(PartStart(self._next, kind))
            self._open = kind
            self._next += 1
        events.append(Delta(self._next - 1, text))

    def _call(self, call: _wire.SaidCall, when: str | None, events: list[Event]) -> None:
        self._close(events)
        said = replies.tool_call(call, when, self._calls)
        events.append(PartStart(self._next, "tool", id=said.id, name=said.name))
        events.append(Delta(self._next, said.arguments))
        events.append(PartEnd(self._next))
        self._next += 1
        self._calls += 1

    def _close(self, events: list[Event]) -> None:
        if self._open is not None:
            events.append(PartEnd(self._next - 1))
            self._open = None

    def _end(self, told: _wire.Reply, events: list[Event]) -> None:
        self._over = True
        self._close(events)
        reason, native = _facts.finish(told.done_reason, called=self._calls > 0)
        events.append(Finish(reason, native_finish=native))
        if (usage := _facts.usage(told)) is not None:
            events.append(UsageUpdate(usage))
        events.append(End())
