"""Events -> a streamed response.

Law: every event is numbered; an item is told as it opens, in deltas, and whole when it is done; the last event, which waits
for `tail`, holds the whole response. Words in a row are parts of one message. Only the first choice is told; this API has
one. What a delta repeats is written once, when its part opens.
"""

from __future__ import annotations

from typing import Any, assert_never

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
    OpaqueDelta,
    PartEnd,
    PartStart,
    SignatureDelta,
    Start,
    TranscriptDelta,
    UsageUpdate,
)
from llm_gateway.core.types import Citation, Conversation, Logprob, Reasoning, ToolCall, Usage
from llm_gateway.formats.openai_responses import _envelope, _items, _thoughts, _usage, errors, replies

SHAPE = _items.SHAPE
Fields = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_TEXT, _REFUSAL = "response.output_text", "response.refusal"
_SUMMARY, _THOUGHT = "response.reasoning_summary_text", "response.reasoning_text"
_ARGUMENTS, _INPUT = "response.function_call_arguments", "response.custom_tool_call_input"
_END_OF_TEXT = b',"logprobs":[],"sequence_number":%d}\n\n'
_END = b',"sequence_number":%d}\n\n'


class _Item:
    """One output item. `contents`: a message's; `number`: its place in the output."""

    __slots__ = ("contents", "name", "number", "whole")

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.contents: list[_Part] = []
        self.whole: Fields | Raw = {}

    def message(self, status: str) -> Fields:
        return _items.message(self.name, [part.content() for part in self.contents], status)


class _Part:
    """One part of an item. word: of its deltas' type; head: a delta's event up to the text; place: members that say where."""

    __slots__ = ("begun", "cited", "foot", "head", "item", "place", "said", "signature", "start", "tokens", "word")

    def __init__(self, start: PartStart, item: _Item, word: str, place: Fields) -> None:
        self.start = start
        self.item = item
        self.word = word
        self.place: Fields = {"item_id": item.name, "output_index": item.number, **place}
        kind = f"{word}.delta"
        self.head = b"event: %b\ndata: %b" % (kind.encode(), _encode({"type": kind, **self.place})[:-1] + b',"delta":')
        self.foot = _END_OF_TEXT if word == _TEXT else _END
        self.begun = False
        self.said: list[str] = []
        self.cited: list[Citation] = []
        self.tokens: list[Logprob] = []
        self.signature: tuple[str, str] | None = None  # the shape that sealed it, and its seal

    def text(self) -> str:
        return "".join(self.said)

    def content(self) -> Fields:
        if self.word == _REFUSAL:
            return _items.refusal(self.text())
        return _items.output_text(self.text(), self.cited, self.tokens)

    def thought(self) -> Fields:
        shape, seal = self.signature or (self.start.format, None)
        text = self.text()
        part = Reasoning(text, signature=seal, format=shape)
        if shape == SHAPE:
            part = Reasoning(summary=(text,) if text else (), redacted=seal, format=SHAPE)
        return _thoughts.item(self.item.name, (part,))

    def call(self, status: str) -> Fields:
        said = ToolCall(self.start.id or "", self.start.name or "", self.text(), self.start.tool_kind)
        return _items.call(self.item.name, said, status)


class ResponseWriter:
    __slots__ = (
        "_call",
        "_finish",
        "_head",
        "_items",
        "_message",
        "_names",
        "_now",
        "_number",
        "_parts",
        "_text",
        "_usage",
    )

    def __init__(self, call: Conversation, now: int) -> None:
        """now: Unix seconds, for `created_at` where the upstream has none."""
        self._call = call
        self._now = now
        self._names = _items.Names("")
        self._head: Fields = replies.head(self._names.reply, call.model, now, call)
        self._number = 0  # of the next event
        self._items: list[_Item] = []
        self._parts: dict[int, _Part] = {}
        self._message: _Item | None = None  # the one that more words would join
        self._text: _Part | None = None  # the last text, which token probabilities are of
        self._finish = Finish("stop")
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                part = self._parts.get(event.index) if event.choice == 0 else None
                return b"" if part is None or part.start.kind == "audio" else self._say(part, event.text)
            case Start():
                return self._write_start(event)
            case UsageUpdate():
                self._usage = event.usage
                return b""
            case End():
                return self._end_message()
            case Failed():
                return b""
            case (
                PartStart()
                | PartEnd()
                | SignatureDelta()
                | CitationDelta()
                | TranscriptDelta()
                | LogprobsDelta()
                | OpaqueDelta()
                | Finish()
            ):
                return self._write_rest(event) if event.choice == 0 else b""
            case _:
                assert_never(event)

    def tail(self, cost: float | None) -> bytes:
        told = self._response(_envelope.ending(self._finish.finish))
        told["usage"] = _usage.write(self._usage, cost) if self._usage is not None else None
        return self._event(f"response.{told['status']}", {"response": told})

    def fail(self, fault: Fault) -> bytes:
        told = self._response({"status": "failed", "error": errors.failure(fault)})
        event = errors.event(fault, self._number)
        self._number += 1
        return event + self._event("response.failed", {"response": told})

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def _event(self, kind: str, fields: Fields) -> bytes:
        number, self._number = self._number, self._number + 1
        body = _encode({"type": kind, **fields, "sequence_number": number})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)

    def _response(self, changes: Fields) -> Fields:
        return self._head | changes | {"output": [item.whole for item in self._items if item.whole]}

    def _write_start(self, start: Start) -> bytes:
        self._names = _items.Names(start.id)
        self._head = replies.head(self._names.reply, start.model, start.created or self._now, self._call)
        if (told := _envelope.tier(start.service_tier)) is not None:
            self._head["service_tier"] = told
        opened = {"response": {**self._head, "output": [], "usage": None}}
        return self._event("response.created", opened) + self._event("response.in_progress", opened)

    def _write_rest(
        self,
        event: PartStart
        | PartEnd
        | SignatureDelta
        | CitationDelta
        | TranscriptDelta
        | LogprobsDelta
        | OpaqueDelta
        | Finish,
    ) -> bytes:
        if isinstance(event, PartStart):
            return self._open(event)
        if isinstance(event, Finish):
            self._finish = event
            return b""
        if isinstance(event, LogprobsDelta):
            if self._text is not None:
                self._text.tokens += event.logprobs
            return b""
        part = self._parts.get(event.index)
        if part is None:
            return b""
        match event:
            case PartEnd():
                return self._close(part)
            case SignatureDelta(signature=signature, format=shape):
                part.signature = (shape, signature)
                return b""
            case CitationDelta(citation=citation):
                return self._cite(part, citation)
            case TranscriptDelta(text=text):
                return self._say(part, text) if text else b""
            case OpaqueDelta():
                return b""
            case _:
                assert_never(event)

    def _open(self, start: PartStart) -> bytes:
        match start.kind:
            case "text" | "refusal" | "audio":
                return self._open_words(start)
            case "reasoning" if start.redacted is not None:
                sealed = (Reasoning(redacted=start.redacted, format=start.format),)
                return self._end_message() + self._whole(_thoughts.item(self._names.thought(start.id), sealed))
            case "reasoning":
                return self._end_message() + self._open_thought(start)
            case "tool":
                return self._end_message() + self._open_call(start)
            case "opaque":
                known = start.format == SHAPE and start.raw is not None
                return self._end_message() + self._whole(start.raw) if known and start.raw is not None else b""
            case _:
                assert_never(start.kind)

    def _add(self, name: str) -> _Item:
        item = _Item(len(self._items), name)
        self._items.append(item)
        return item

    def _added(self, item: _Item, told: Fields | Raw) -> bytes:
        return self._event("response.output_item.added", {"output_index": item.number, "item": told})

    def _done(self, item: _Item, told: Fields | Raw) -> bytes:
        item.whole = told
        return self._event("response.output_item.done", {"output_index": item.number, "item": told})

    def _whole(self, told: Fields | Raw) -> bytes:
        """An item that comes in one piece."""
        item = self._add("")
        return self._added(item, told) + self._done(item, told)

    def _open_words(self, start: PartStart) -> bytes:
        told = b""
        if self._message is None:
            self._message = self._add(self._names.item("message"))
            told = self._added(self._message, self._message.message("in_progress"))
        item = self._message
        word = _REFUSAL if start.kind == "refusal" else _TEXT
        part = self._parts[start.index] = _Part(start, item, word, {"content_index": len(item.contents)})
        item.contents.append(part)
        self._text = part if word == _TEXT else self._text
        return told + self._event("response.content_part.added", {**part.place, "part": part.content()})

    def _open_thought(self, start: PartStart) -> bytes:
        item = self._add(self._names.item("reasoning"))
        shown = bool(start.format)
        word, place = (_SUMMARY, "summary_index") if shown else (_THOUGHT, "content_index")
        self._parts[start.index] = _Part(start, item, word, {place: 0})
        return self._added(item, {"type": "reasoning", "id": item.name, "summary": []})

    def _open_call(self, start: PartStart) -> bytes:
        custom = start.tool_kind == "custom"
        item = self._add(self._names.item("custom_tool_call" if custom else "function_call"))
        part = self._parts[start.index] = _Part(start, item, _INPUT if custom else _ARGUMENTS, {})
        return self._added(item, part.call("in_progress"))

    def _say(self, part: _Part, text: str) -> bytes:
        opening = b""
        if not part.begun:
            part.begun = True
            opening = self._begin_thought(part)
        number, self._number = self._number, self._number + 1
        part.said.append(text)
        return opening + part.head + _encode(text) + part.foot % number

    def _begin_thought(self, part: _Part) -> bytes:
        """A summary's or a thought's own part opens with its first words: many items have none."""
        if part.word == _SUMMARY:
            empty = {"type": "summary_text", "text": ""}
            return self._event("response.reasoning_summary_part.added", {**part.place, "part": empty})
        if part.word == _THOUGHT:
            empty = {"type": "reasoning_text", "text": ""}
            return self._event("response.content_part.added", {**part.place, "part": empty})
        return b""

    def _cite(self, part: _Part, citation: Citation) -> bytes:
        note = _items.annotation(citation, sum(map(len, part.said)))
        if note is None or part.word != _TEXT:
            return b""
        part.cited.append(citation)
        fields = {**part.place, "annotation_index": len(part.cited) - 1, "annotation": note}
        return self._event("response.output_text.annotation.added", fields)

    def _close(self, part: _Part) -> bytes:
        match part.word:
            case "response.output_text" | "response.refusal":
                return self._close_words(part)
            case "response.reasoning_summary_text" | "response.reasoning_text":
                return self._close_thought(part) + self._done(part.item, part.thought())
            case _:
                return self._close_call(part)

    def _close_words(self, part: _Part) -> bytes:
        told = part.content()
        names = ("text", "logprobs") if part.word == _TEXT else ("refusal",)
        fields = part.place | {name: told[name] for name in names}
        return self._event(f"{part.word}.done", fields) + self._event(
            "response.content_part.done", {**part.place, "part": told}
        )

    def _close_thought(self, part: _Part) -> bytes:
        if not part.begun:
            return b""
        text = part.text()
        done = self._event(f"{part.word}.done", {**part.place, "text": text})
        if part.word == _SUMMARY:
            whole = {"type": "summary_text", "text": text}
            return done + self._event("response.reasoning_summary_part.done", {**part.place, "part": whole})
        whole = {"type": "reasoning_text", "text": text}
        return done + self._event("response.content_part.done", {**part.place, "part": whole})

    def _close_call(self, part: _Part) -> bytes:
        told = b""
        if not part.begun and part.word == _ARGUMENTS:
            told = self._say(part, "{}")
        name = "input" if part.word == _INPUT else "arguments"
        told += self._event(f"{part.word}.done", {**part.place, name: part.text()})
        told += self._done(part.item, part.call("completed"))
        return told + self._seal(part)

    def _seal(self, part: _Part) -> bytes:
        """Behind a call or a text that its API sealed."""
        if part.signature is None:
            return b""
        shape, signature = part.signature
        return self._whole(_thoughts.seal_item(self._names.item("reasoning"), shape, signature))

    def _end_message(self) -> bytes:
        item, self._message = self._message, None
        if item is None:
            return b""
        told = self._done(item, item.message("completed"))
        return told + b"".join(self._seal(part) for part in item.contents)
