"""A streamed response -> events.

Law: a content part, a reasoning item's summary, a call is one part, numbered in order of appearance. What a `done` event
tells is read only where no delta told it. An item that only this shape has is one opaque part, whole, when it is done.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

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
from llm_gateway.formats.openai_responses import _output, _seals, errors, replies
from llm_gateway.formats.openai_responses._output import Content, Item

SHAPE = _output.SHAPE
# The places of an item that are no content: its summary, and a call's arguments.
_SUMMARY, _ARGUMENTS = -1, -2
_TEXT_DELTA = "response.output_text.delta"
# Deltas, and what tells the same in one piece: the kind of their part, the member that holds it.
_DELTAS: dict[str, PartKind] = {
    "response.refusal.delta": "refusal",
    _TEXT_DELTA: "text",
    "response.reasoning_text.delta": "reasoning",
}
_CALLED = frozenset({"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"})
_KINDS: dict[str, PartKind] = {
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "reasoning_text": "reasoning",
}
_NONE = Raw(b"")


class _Event(Struct, gc=False):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    logprobs: Any = None
    annotation: Any = None
    item: Raw = _NONE
    part: Raw = _NONE
    response: Raw = _NONE
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_content = msgspec.json.Decoder(Content).decode


class _Part:
    """told: whether anything of it was. summary: the index of the summary that its last words are of."""

    __slots__ = ("index", "notes", "summary", "told")

    def __init__(self, index: int) -> None:
        self.index = index
        self.told = False
        self.notes = 0
        self.summary = 0


class ResponseReading:
    """`_parts`: the open ones, by item and place in it. `_seen`: whether any item went by."""

    __slots__ = ("_called", "_last", "_next", "_parts", "_seen", "_started", "over")

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], _Part] = {}
        self._next = 0
        self._last = -1  # the last part that another API's seal could stand behind
        self._called = False
        self._seen = False
        self._started = False
        self.over = False

    def read(self, payload: bytes, events: list[Event]) -> None:
        if payload == b"[DONE]":  # OpenRouter's; what ends a response is response.completed
            return
        event = _decode(payload)
        if event.type == _TEXT_DELTA:
            part = self._parts.get((event.output_index, event.content_index))
            if part is not None and type(event.delta) is str and event.delta:
                part.told = True
                events.append(Delta(part.index, event.delta))
                if event.logprobs and (tokens := _output.logprobs(event.logprobs)):
                    events.append(LogprobsDelta(tuple(tokens)))
                return
        self._read_rest(event, payload, events)

    def _read_rest(self, event: _Event, payload: bytes, events: list[Event]) -> None:
        kind = event.type
        if kind in _DELTAS:
            self._tell((event.output_index, event.content_index), _DELTAS[kind], event.delta, events)
        elif kind == "response.reasoning_summary_text.delta":
            self._summarise(event.output_index, event.summary_index, event.delta, events)
        elif kind in _CALLED:
            part = self._parts.get((event.output_index, _ARGUMENTS))
            if part is not None:
                _say(part, event.delta, events)
        else:
            self._read_turn(event, payload, events)

    def _read_turn(self, event: _Event, payload: bytes, events: list[Event]) -> None:
        at = event.output_index
        match event.type:
            case "response.created" | "response.queued" | "response.in_progress":
                self._start(replies.decode(event.response), events)
            case "response.output_item.added" if bytes(event.item) not in {b"", b"null"}:
                self._add(at, _output.item(event.item), events)
            case "response.content_part.added":
                place = (at, event.content_index)
                if (opened := _KINDS.get(_decode_content(event.part).type)) is not None and place not in self._parts:
                    self._open(place, PartStart(self._next, opened), events)
            case "response.output_text.annotation.added":
                part = self._parts.get((at, event.content_index))
                if part is not None and isinstance(event.annotation, dict):
                    part.notes += 1
                    events.append(CitationDelta(part.index, _output.citation(event.annotation)))
            case "response.output_item.done":
                self._finish_item(at, event.item, events)
            case "response.completed" | "response.incomplete" | "response.cancelled":
                self._end(replies.decode(event.response), events)
            case "response.failed":
                self._fail(bytes(event.response), events)
            case "error":
                self._fail(payload, events)
            case _:
                if event.error:
                    self._fail(payload, events)

    def _fail(self, body: bytes, events: list[Event]) -> None:
        self.over = True
        events.append(Failed(errors.read(200, body)))

    def _start(self, reply: replies.Reply, events: list[Event]) -> None:
        if not self._started:
            self._started = True
            tier = reply.service_tier or None
            events.append(Start(reply.id or "", reply.model or "", int(reply.created_at or 0), tier))

    def _open(self, place: tuple[int, int], start: PartStart, events: list[Event]) -> _Part:
        """A new part; what was open of the same item ends with it."""
        self._seen = True
        self._start(replies.Reply(), events)
        self._shut(place[0], events)
        part = self._parts[place] = _Part(start.index)
        self._next += 1
        self._last = start.index if start.kind in {"text", "tool"} else self._last
        events.append(start)
        return part

    def _shut(self, item: int | None, events: list[Event]) -> None:
        """The open parts of one item, or of all."""
        places = [place for place in self._parts if item is None or place[0] == item]
        events += [PartEnd(self._parts.pop(place).index) for place in places]

    def _tell(self, place: tuple[int, int], kind: PartKind, text: object, events: list[Event]) -> None:
        if text:
            part = self._parts.get(place) or self._open(place, PartStart(self._next, kind), events)
            _say(part, text, events)

    def _summarise(self, at: int, number: int, text: object, events: list[Event]) -> None:
        """A summary has sections; their order shows, their bounds are blank lines."""
        if not text:
            return
        place = (at, _SUMMARY)
        part = self._parts.get(place) or self._open(place, PartStart(self._next, "reasoning", format=SHAPE), events)
        if number != part.summary and part.told:
            events.append(Delta(part.index, "\n\n"))
        part.summary = number
        _say(part, text, events)

    def _add(self, at: int, item: Item, events: list[Event]) -> None:
        self._seen = True
        if item.type in {"function_call", "custom_tool_call"}:
            self._called = True
            custom = item.type == "custom_tool_call"
            start = PartStart(
                self._next,
                "tool",
                id=_output.call_name(item),
                name=item.name or "",
                tool_kind="custom" if custom else "function",
            )
            _say(self._open((at, _ARGUMENTS), start, events), item.input if custom else item.arguments, events)

    def _finish_item(self, at: int, raw: Raw, events: list[Event]) -> None:
        item = _output.item(raw)
        match item.type:
            case "message":
                self._finish_message(at, item, events)
            case "reasoning":
                self._finish_thought(at, item, events)
            case "function_call" | "custom_tool_call":
                if (at, _ARGUMENTS) not in self._parts:
                    self._add(at, item, events)
                part = self._parts[at, _ARGUMENTS]
                if not part.told:
                    _say(part, item.input if item.type == "custom_tool_call" else item.arguments, events)
            case kind:
                name = kind.removeprefix("odd_")
                self._open((at, 0), PartStart(self._next, "opaque", name=name, format=SHAPE, raw=raw.copy()), events)
        self._shut(at, events)

    def _finish_message(self, at: int, item: Item, events: list[Event]) -> None:
        """What no delta told of its last content; of earlier ones, only where nothing at all was told."""
        contents = item.content or []
        open_ = [place for item_, place in self._parts if item_ == at]
        for place, content in enumerate(contents):
            if open_ and place < open_[-1]:
                continue
            part = self._parts.get((at, place))
            if part is None or not part.told:
                self._tell(
                    (at, place), "refusal" if content.refusal else "text", content.refusal or content.text, events
                )
                if tokens := _output.logprobs(content.logprobs):
                    events.append(LogprobsDelta(tuple(tokens)))
            if (part := self._parts.get((at, place))) is not None:
                events += [
                    CitationDelta(part.index, _output.citation(note))
                    for note in (content.annotations or ())[part.notes :]
                ]

    def _finish_thought(self, at: int, item: Item, events: list[Event]) -> None:
        seal = _seals.read(item.encrypted_content)
        if not any(item_ == at for item_, _ in self._parts):
            for number, piece in enumerate(item.content or ()):
                self._tell((at, number), "reasoning", piece.text, events)
            for number, said in enumerate(item.summary or ()):
                self._summarise(at, number, said.text, events)
        if seal is None:
            self._shut(at, events)
            if item.encrypted_content:
                self._seal(item.encrypted_content, SHAPE, item.id, events)
        elif seal.use == "redacted":
            self._shut(at, events)
            self._seal(seal.value, seal.shape, None, events)
        elif seal.use == "part":
            if self._last >= 0:
                events.append(SignatureDelta(self._last, seal.value, format=seal.shape))
        else:
            opened = [part for (item_, _), part in self._parts.items() if item_ == at]
            part = (
                opened[-1]
                if opened
                else self._open((at, _SUMMARY), PartStart(self._next, "reasoning", format=seal.shape), events)
            )
            events.append(SignatureDelta(part.index, seal.value, format=seal.shape))

    def _seal(self, value: str, shape: str, name: str | None, events: list[Event]) -> None:
        index = self._next
        self._next += 1
        self._start(replies.Reply(), events)
        events += (PartStart(index, "reasoning", id=name, redacted=value, format=shape), PartEnd(index))

    def _end(self, reply: replies.Reply, events: list[Event]) -> None:
        self._start(reply, events)
        if reply.error:
            self._fail(msgspec.json.encode({"error": reply.error}), events)
            return
        if not self._seen:  # nothing was streamed but the end, which holds it all
            for at, raw in enumerate(reply.output or ()):
                self._finish_item(at, raw, events)
        self._shut(None, events)
        if (usage := replies.counted(reply)) is not None:
            events.append(UsageUpdate(usage))
        reason, native = replies.ended(reply, called=self._called)
        events += (Finish(reason, native_finish=native), End())
        self.over = True


def _say(part: _Part, text: object, events: list[Event]) -> None:
    if isinstance(text, str) and text:
        part.told = True
        events.append(Delta(part.index, text))
