"""What of a streamed response must be known to end it early: the response as it opened, its items, and what is said of the open ones.

Law: only of streams that we may end, since it remembers all that was said: the last event of this shape repeats it. Reads, never raises; an
event that it does not know is none of its business. https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.types import Usage
from llm_gateway.formats.openai_responses import _envelope, _usage

Fields = dict[str, Any]
_NULL = Raw(b"null")
# What is added to, by the beginning of the delta's type: (kind of part, its member, where parts stand in the item, the word of the part's end).
_TEXTS = {
    "response.output_text.delta": ("output_text", "text", "content", "response.output_text.done"),
    "response.refusal.delta": ("refusal", "refusal", "content", "response.refusal.done"),
    "response.reasoning_text.delta": ("reasoning_text", "text", "content", "response.reasoning_text.done"),
    "response.reasoning_summary_text.delta": ("summary_text", "text", "summary", "response.reasoning_summary_text.done"),
}
_ARGUMENTS = {"response.function_call_arguments.delta": "arguments", "response.custom_tool_call_input.delta": "input"}
_PARTS = {"content": "response.content_part.done", "summary": "response.reasoning_summary_part.done"}


class _Event(Struct, gc=False):
    type: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item: Raw = _NULL
    part: Raw = _NULL
    response: Raw = _NULL
    delta: Any = None


class _Part(Struct):
    """`word`: of the event that ends its text; `said`: in pieces."""

    kind: str
    member: str
    word: str
    said: list[str]
    whole: Raw | None = None

    def told(self) -> Fields | Raw:
        if self.whole is not None:
            return self.whole
        more: Fields = {"annotations": [], "logprobs": []} if self.kind == "output_text" else {}
        return {"type": self.kind, self.member: "".join(self.said), **more}


class _Item(Struct):
    """`parts`: by where they stand in it and which they are."""

    opened: Fields
    parts: dict[tuple[str, int], _Part]
    member: str = ""
    said: list[str] = []

    def told(self) -> Fields:
        whole = {**self.opened, "status": "incomplete"}
        for at in ("content", "summary"):
            parts = [part.told() for (place, _), part in sorted(self.parts.items(), key=lambda pair: pair[0]) if place == at]
            if parts:
                whole[at] = parts
        return whole | {self.member: "".join(self.said)} if self.member else whole


_decode = msgspec.json.Decoder(_Event).decode
_decode_fields = msgspec.json.Decoder(Fields).decode


class Trace:
    __slots__ = ("_done", "_open", "_response")

    def __init__(self) -> None:
        self._response: Raw | None = None
        self._open: dict[int, _Item] = {}
        self._done: dict[int, Raw] = {}

    def see(self, data: bytes) -> None:
        """data: of one event."""
        try:
            event = _decode(data)
            self._learn(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return

    def ends(self, usage: Usage, number: int) -> list[bytes]:
        """The events that close what is open, and the last one; nothing where the response has not begun. number: of the first of them."""
        if self._response is None:
            return []
        told: list[bytes] = []

        def tell(kind: str, fields: Fields) -> None:
            body = msgspec.json.encode({"type": kind, **fields, "sequence_number": number + len(told)})
            told.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))

        output: dict[int, Any] = dict(self._done)
        for index, item in self._open.items():
            place = {"item_id": item.opened.get("id", ""), "output_index": index}
            for (at, which), part in item.parts.items():
                if part.whole is None:
                    here = {**place, "content_index" if at == "content" else "summary_index": which}
                    said: Fields = {part.member: "".join(part.said)} | ({"logprobs": []} if part.kind == "output_text" else {})
                    tell(part.word, here | said)
                    tell(_PARTS[at], {**here, "part": part.told()})
            output[index] = item.told()
            tell("response.output_item.done", {"output_index": index, "item": output[index]})
        response = _decode_fields(self._response) | _envelope.ending("length")
        response |= {"output": [output[index] for index in sorted(output)], "usage": _usage.write(usage)}
        tell("response.incomplete", {"response": response})
        return told

    def _learn(self, event: _Event) -> None:
        kind = event.type
        item = self._open.get(event.output_index)
        if kind in _TEXTS and item is not None and isinstance(event.delta, str):
            made, member, at, word = _TEXTS[kind]
            index = event.content_index if at == "content" else event.summary_index
            part = item.parts.get((at, index))
            if part is None:
                part = item.parts[at, index] = _Part(made, member, word, [])
            part.said.append(event.delta)
        elif kind in _ARGUMENTS and item is not None and isinstance(event.delta, str):
            item.member = _ARGUMENTS[kind]
            item.said.append(event.delta)
        elif kind in _PARTS.values() and item is not None:
            at = "content" if kind == _PARTS["content"] else "summary"
            index = event.content_index if at == "content" else event.summary_index
            item.parts[at, index] = _Part("", "", "", [], Raw(bytes(event.part)))
        elif kind == "response.output_item.added":
            self._open[event.output_index] = _Item(_decode_fields(event.item), {}, said=[])
        elif kind == "response.output_item.done":
            self._open.pop(event.output_index, None)
            self._done[event.output_index] = Raw(bytes(event.item))
        elif kind in {"response.created", "response.in_progress"}:
            self._response = Raw(bytes(event.response))
