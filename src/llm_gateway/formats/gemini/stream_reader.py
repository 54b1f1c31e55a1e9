"""A streamed generateContent reply -> events.

Law: consecutive texts of one kind are one part, a call or anything else is a part by itself. A `finishReason` is the end
mark; since more may follow it, `End` comes when the upstream says that it is done.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

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
    UsageUpdate,
)
from llm_gateway.core.types import ToolCall
from llm_gateway.formats._incoming import Incoming, broken, cut
from llm_gateway.formats.gemini import _facts, _finish, _ids, _reading, _usage, _wire, errors, replies
from llm_gateway.formats.gemini._partial import PartialCall
from llm_gateway.formats.gemini._reading import SHAPE

_decode = msgspec.json.Decoder(_wire.Reply).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class _Candidate:
    """`open`: the kind of the part that texts are being added to. `text`: the last text part, for citations. `partial`: the
    call that is being told piece by piece."""

    __slots__ = ("called", "filled", "finished", "next", "open", "partial", "text")

    def __init__(self) -> None:
        self.next = 0
        self.open: PartKind | None = None
        self.text: int | None = None
        self.partial: PartialCall | None = None
        self.called = False
        self.filled = False
        self.finished = False


class ContentReader:
    __slots__ = ("_candidates", "_counts", "_id", "_incoming", "_over", "_searches", "_started")

    def __init__(self) -> None:
        self._incoming = Incoming()
        self._counts: _usage.Fields = {}
        self._candidates: dict[int, _Candidate] = {}
        self._id = ""
        self._searches = 0
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
        if events and isinstance(events[-1], Failed):
            return events
        if any(one.finished for one in self._candidates.values()):
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
            chunk = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._fail(broken(), events)
            return
        if chunk.error:
            self._fail(errors.read(200, payload), events)
            return
        if not self._started:
            self._started = True
            self._id = chunk.response_id or ""
            events.append(Start(self._id, chunk.model_version or "", replies.moment(chunk.create_time)))
        feedback = chunk.prompt_feedback
        if not chunk.candidates and feedback is not None and feedback.block_reason:
            used = _usage.read(_usage.merged(self._counts, chunk.usage_metadata or {}))
            self._fail(errors.blocked(feedback, b"data: " + payload + b"\r\n\r\n", errors.SSE, used), events)
            return
        try:
            for at, candidate in enumerate(chunk.candidates or ()):
                self._read_candidate(candidate, at if candidate.index is None else candidate.index, events)
        except Fault:
            self._fail(broken(), events)
            return
        if not chunk.usage_metadata:
            return
        counts = chunk.usage_metadata
        usual = counts.keys() == self._counts.keys() and None not in counts.values()
        self._counts = counts if usual else _usage.merged(self._counts, counts)
        if (usage := _usage.read(self._counts, self._searches)) is not None:
            events.append(UsageUpdate(usage))

    def _read_candidate(self, candidate: _wire.Candidate, choice: int, events: list[Event]) -> None:
        state = self._candidates.get(choice)
        if state is None:
            state = self._candidates[choice] = _Candidate()
        if candidate.content is not None:
            state.filled = True
            for raw in candidate.content.parts or ():
                self._read_part(raw, choice, state, events)
        if candidate.grounding_metadata is not None:
            self._searches = max(self._searches, _facts.searches(candidate.grounding_metadata))
            if state.text is not None:
                events += [CitationDelta(state.text, one, choice) for one in _facts.citations(candidate.grounding_metadata)]
        if candidate.logprobs_result is not None and (logprobs := _facts.logprobs(candidate.logprobs_result)):
            events.append(LogprobsDelta(logprobs, choice))
        said = None if candidate.finish_reason is None else _finish.word(candidate.finish_reason)
        if said is not None and not state.finished:
            state.finished = True
            self._end_partial(choice, state, events)
            _close(choice, state, events)
            reason, native = _finish.read(said, called=state.called, empty=not state.filled)
            events.append(Finish(reason, choice, None, native))

    def _read_part(self, raw: Raw, choice: int, state: _Candidate, events: list[Event]) -> None:
        try:
            part = _reading.decode_part(raw)
        except msgspec.DecodeError:
            raise broken() from None
        if part.function_call is not None:
            _close(choice, state, events)
            self._read_call(part, choice, state, events)
        elif part.inline_data is not None and (part.inline_data.mime_type or "").startswith("audio/"):
            _open("audio", choice, state, events)
            events.append(Delta(state.next - 1, part.inline_data.data, choice))
        elif part.text is None and (kind := _reading.kind(_decode_members(raw))) != "part":
            _close(choice, state, events)
            events.append(PartStart(state.next, "opaque", choice, name=kind, format=SHAPE, raw=raw.copy()))
            events.append(PartEnd(state.next, choice))
            state.next += 1
        elif part.text or part.thought_signature:
            kind_said: PartKind = "reasoning" if part.thought else "text"
            if state.open != kind_said:
                _open(kind_said, choice, state, events)
            if part.text:
                events.append(Delta(state.next - 1, part.text, choice))
            if part.thought_signature:
                events.append(SignatureDelta(state.next - 1, part.thought_signature, choice, SHAPE))
                _close(choice, state, events)

    def _read_call(self, part: _wire.Part, choice: int, state: _Candidate, events: list[Event]) -> None:
        call, signature = part.function_call or _wire.Call(), part.thought_signature
        if state.partial is not None:
            state.partial.add(call)
            if not call.will_continue:
                self._end_partial(choice, state, events)
        elif not call.name:
            raise broken()
        elif call.will_continue:
            state.partial = PartialCall(call, signature)
        else:
            said = _reading.call(call, signature, _ids.made(self._id, state.next))
            _tell(said, choice, state, events)

    def _end_partial(self, choice: int, state: _Candidate, events: list[Event]) -> None:
        partial, state.partial = state.partial, None
        if partial is not None:
            opening = partial.opening
            name = opening.id or _ids.made(self._id, state.next)
            said = ToolCall(name, opening.name, partial.arguments(), signature=partial.signature)
            _tell(said, choice, state, events)


def _tell(call: ToolCall, choice: int, state: _Candidate, events: list[Event]) -> None:
    index = state.next
    state.next += 1
    state.called = True
    events.append(PartStart(index, "tool", choice, id=call.id, name=call.name))
    if call.signature:
        events.append(SignatureDelta(index, call.signature, choice, SHAPE))
    events.append(Delta(index, call.arguments, choice))
    events.append(PartEnd(index, choice))


def _open(kind: PartKind, choice: int, state: _Candidate, events: list[Event]) -> None:
    if state.open == kind:
        return
    _close(choice, state, events)
    events.append(PartStart(state.next, kind, choice, format=SHAPE if kind == "reasoning" else ""))
    state.open = kind
    if kind == "text":
        state.text = state.next
    state.next += 1


def _close(choice: int, state: _Candidate, events: list[Event]) -> None:
    if state.open is not None:
        events.append(PartEnd(state.next - 1, choice))
        state.open = None
