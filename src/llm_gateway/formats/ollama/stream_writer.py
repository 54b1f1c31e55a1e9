"""Events -> a stream of Ollama's: a line for each piece of text, one for each whole call, a last one with counts.

Law: a line's envelope is written once, at Start. There is one answer: those of other choices are left out, as is what only
another shape knows. The reason and the counts wait for `tail`. Durations, which clients take for optional, are not ours to
tell: this folder has no clock.
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
from llm_gateway.core.types import ToolCall, Usage
from llm_gateway.formats.ollama import _facts, errors, replies

_TEXTS = {"text": "content", "refusal": "content", "reasoning": "thinking"}
_encode = msgspec.json.Encoder().encode


class LineWriter:
    """`_calls`: what was told so far of the calls that are open, by part."""

    __slots__ = ("_calls", "_finish", "_generate", "_head", "_kinds", "_now", "_usage")

    def __init__(self, *, generate: bool, now: int) -> None:
        self._generate = generate
        self._now = now
        self._head = b""
        self._kinds: dict[int, PartStart] = {}
        self._calls: dict[int, list[str]] = {}
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Start():
                about = {"model": event.model, "created_at": _facts.time(event.created or self._now)}
                self._head = _encode(about)[:-1] + b","
            case UsageUpdate():
                self._usage = event.usage
            case End() | Failed() | CitationDelta() | SignatureDelta() | OpaqueDelta():
                pass
            case _ if event.choice:
                pass
            case Delta():
                return self._delta(event)
            case PartStart():
                self._kinds[event.index] = event
                if event.kind == "tool":
                    self._calls[event.index] = []
            case PartEnd():
                return self._end_part(event.index)
            case TranscriptDelta():
                return self._line({"content": event.text})
            case LogprobsDelta():
                return self._line({}, logprobs=_facts.written_logprobs(event.logprobs))
            case Finish():
                self._finish = event
            case _:
                assert_never(event)
        return b""

    def tail(self, cost: float | None) -> bytes:
        """The last line. What a call cost has no place in this shape."""
        counts = {} if self._usage is None else _facts.written_usage(self._usage)
        return self._line({}, done=True, done_reason=_facts.done_reason(self._finish.finish), **counts)

    def fail(self, fault: Fault) -> bytes:
        return errors.line(fault)

    def heartbeat(self) -> bytes:
        return b""

    def _delta(self, event: Delta) -> bytes:
        start = self._kinds[event.index]
        name = _TEXTS.get(start.kind)
        if name == "content" and event.text:  # as `_line` has it, without the way there
            said = {"response": event.text} if self._generate else {"message": {"role": "assistant", "content": event.text}}
            return (self._head or b"{") + _encode({**said, "done": False})[1:] + b"\n"
        if name is not None:
            return self._line({name: event.text}) if event.text else b""
        if start.kind == "tool":
            self._calls[event.index].append(event.text)
        return b""

    def _end_part(self, index: int) -> bytes:
        said = self._calls.pop(index, None)
        if said is None:
            return b""
        start = self._kinds[index]
        call = ToolCall(start.id or "", start.name or "", "".join(said), start.tool_kind)
        return self._line({"tool_calls": [replies.written_call(call, index)]})

    def _line(self, said: dict[str, Any], *, done: bool = False, **more: Any) -> bytes:
        """`model` and `created_at` first, as Ollama has them."""
        body = {**replies.placed(said, generate=self._generate), "done": done, **more}
        return (self._head or b"{") + _encode(body)[1:] + b"\n"
