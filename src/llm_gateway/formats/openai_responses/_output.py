"""Output items -> parts, of whole replies and of streams.

Law: never raises. What does not fit its own type's struct is kept whole, as Opaque: a reply is not lost over one odd item.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from llm_gateway.core.types import Citation, Logprob, Opaque, Part, Refusal, Text, ToolCall
from llm_gateway.formats._numbers import likelihood
from llm_gateway.formats.openai_responses import _seals, _thoughts, _wire

SHAPE = _thoughts.SHAPE


class Content(Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Item(Struct, gc=False):
    """Every kind's members, loose."""

    type: str = ""
    id: str | None = None
    content: list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    summary: list[_wire.Said] | None = None
    encrypted_content: str | None = None
    status: str | None = None

    def thought(self) -> _wire.Reasoning:
        content = [_wire.Said(piece.text or "") for piece in self.content or ()]
        return _wire.Reasoning("reasoning", self.id, self.summary, content, self.encrypted_content)


decode = msgspec.json.Decoder(Item).decode
_decode_kind = msgspec.json.Decoder(_wire.Kind).decode


def item(raw: Raw) -> Item:
    try:
        return decode(raw)
    except msgspec.ValidationError:
        return Item(_odd_kind(raw))


def _odd_kind(raw: Raw) -> str:
    """The item's type where the rest of it fits no struct; the word keeps it from being read as a message or a call."""
    try:
        return f"odd_{_decode_kind(raw).type}"
    except msgspec.ValidationError:
        return "odd_item"


def call_name(found: Item) -> str:
    return found.call_id or found.id or "call_0"


def parts(output: list[Raw]) -> tuple[list[Part], tuple[Logprob, ...] | None]:
    read: list[Part] = []
    tokens: list[Logprob] = []
    for raw in output:
        found = item(raw)
        match found.type:
            case "message":
                for content in found.content or ():
                    read += _said(content)
                    tokens += logprobs(content.logprobs)
            case "reasoning":
                _seal_last(read, found.encrypted_content)
                read += _thoughts.read(found.thought())
            case "function_call":
                read.append(ToolCall(call_name(found), found.name or "", found.arguments or ""))
            case "custom_tool_call":
                read.append(ToolCall(call_name(found), found.name or "", found.input or "", "custom"))
            case kind:
                read.append(Opaque(SHAPE, kind.removeprefix("odd_"), raw.copy()))
    return read, tuple(tokens) or None


def _said(content: Content) -> list[Part]:
    if content.refusal:
        return [Refusal(content.refusal)]
    if not content.text:
        return []
    return [Text(content.text, citations=tuple(citation(one) for one in content.annotations or ()))]


def _seal_last(read: list[Part], encrypted: str | None) -> None:
    seal = _seals.read(encrypted)
    if seal is not None and seal.use == "part" and read and isinstance(last := read[-1], ToolCall | Text):
        read[-1] = structs.replace(last, signature=seal.value)


def citation(note: object) -> Citation:
    fields: dict[str, Any] = note if isinstance(note, dict) else {}
    title, start, end = (
        fields.get("title") or fields.get("filename"),
        fields.get("start_index"),
        fields.get("end_index"),
    )
    return Citation(
        fields.get("url") if isinstance(fields.get("url"), str) else None,
        title if isinstance(title, str) else None,
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
        format=SHAPE,
        raw=Raw(msgspec.json.encode(note)) if fields else None,
    )


def logprobs(given: object) -> list[Logprob]:
    """Of the items of `logprobs`; [] where it is no list."""
    return [_logprob(one) for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _logprob(one: dict[str, Any]) -> Logprob:
    token, value, spelled = one.get("token"), one.get("logprob"), one.get("bytes")
    text = token if isinstance(token, str) else ""
    known = isinstance(spelled, list) and all(isinstance(byte, int) for byte in spelled)
    return Logprob(
        text,
        likelihood(value),
        spelled if known else list(text.encode("utf-8", "replace")),
        tuple(logprobs(one.get("top_logprobs"))),
    )
