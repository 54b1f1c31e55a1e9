"""Parts -> output items, of whole replies and of streams.

Law: ids are made of the reply's id and the item's place, so that a repeated reply has the same ones. Words in a row are one
message. An item that only another shape knows is left out, and reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, assert_never

from msgspec import Raw

from llm_gateway.core.types import (
    Audio,
    Citation,
    Document,
    Image,
    Logprob,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats.openai_responses import _thoughts

SHAPE = _thoughts.SHAPE
Fields = dict[str, Any]
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


class Names:
    """The ids of one reply's items."""

    __slots__ = ("_next", "_reply")

    def __init__(self, reply: str) -> None:
        self._reply = _FOREIGN.sub("_", reply).removeprefix("resp_") or "0"
        self._next = 0

    @property
    def reply(self) -> str:
        return f"resp_{self._reply}"

    def thought(self, own: str | None) -> str:
        """A sealed thought keeps its id, to which its seal may be bound."""
        return own or self.item("reasoning")

    def item(self, kind: str) -> str:
        made = f"{_PREFIXES[kind]}_{self._reply}_{self._next}"
        self._next += 1
        return made


def message(name: str, content: list[Fields], status: str = "completed") -> Fields:
    return {"type": "message", "id": name, "status": status, "role": "assistant", "content": content}


def output_text(text: str, cited: Sequence[Citation] = (), tokens: Sequence[Logprob] = ()) -> Fields:
    notes = [note for one in cited if (note := annotation(one, len(text))) is not None]
    return {"type": "output_text", "text": text, "annotations": notes, "logprobs": logprobs(tokens)}


def refusal(text: str) -> Fields:
    return {"type": "refusal", "refusal": text}


def call(name: str, part: ToolCall, status: str = "completed") -> Fields:
    written: Fields = {"type": "function_call", "id": name, "call_id": part.id, "name": part.name}
    if part.kind == "custom":
        return written | {"type": "custom_tool_call", "input": part.arguments}
    return written | {"arguments": part.arguments, "status": status}


def annotation(cited: Citation, length: int) -> Fields | Raw | None:
    """OpenAI's own as it was; another shape's web source in OpenAI's words. length: of the text it stands behind."""
    if cited.format == SHAPE and cited.raw is not None:
        return cited.raw
    if cited.url is None:
        return None
    start, end = cited.start or 0, length if cited.end is None else cited.end
    return {
        "type": "url_citation",
        "url": cited.url,
        "title": cited.title or "",
        "start_index": start,
        "end_index": end,
    }


def logprobs(tokens: Sequence[Logprob]) -> list[Fields]:
    return [{**_logprob(one), "top_logprobs": [_logprob(top) for top in one.top]} for one in tokens]


def _logprob(one: Logprob) -> Fields:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes or []}


class Output:
    """One whole reply's items, in the making. `_words`: the content of a message that may go on."""

    def __init__(self, names: Names, tokens: Sequence[Logprob]) -> None:
        self._names = names
        self._tokens = tokens  # all of them stand with the first text: parts do not say which are whose
        self._words: list[Fields] = []
        self._thoughts: list[Reasoning] = []
        self.items: list[Fields | Raw] = []
        self.dropped: list[str] = []

    def add(self, part: Part) -> None:
        if isinstance(part, Text | Refusal | Audio):
            self._end_thoughts()
            self._say(part)
        elif isinstance(part, Reasoning):
            self._end_words()
            self._thoughts.append(part)
        else:
            self.end()
            self._add_item(part)

    def end(self) -> None:
        self._end_thoughts()
        self._end_words()

    def _say(self, part: Text | Refusal | Audio) -> None:
        match part:
            case Text(text=text, citations=cited):
                self._words.append(output_text(text, cited, self._tokens))
                self._tokens = ()
                if part.signature is not None:
                    self._seal_with(part.signature)
            case Refusal(text=text):
                self._words.append(refusal(text))
            case Audio(transcript=str() as transcript) if transcript:
                self._words.append(output_text(transcript))
            case Audio():
                self.dropped.append("content.audio")

    def _add_item(self, part: Image | Video | Document | ToolCall | ToolResult | Opaque) -> None:
        match part:
            case ToolCall():
                kind = "custom_tool_call" if part.kind == "custom" else "function_call"
                self.items.append(call(self._names.item(kind), part))
                if part.signature is not None:
                    self._seal_with(part.signature)
            case Opaque(format="openai_responses", raw=raw):
                self.items.append(raw)
            case Opaque() | Image() | Video() | Document() | ToolResult():
                self.dropped.append(f"content.{type(part).__name__.lower()}")
            case _:
                assert_never(part)

    def _seal_with(self, signature: str) -> None:
        """Only Gemini seals calls and texts."""
        self._end_words()
        self.items.append(_thoughts.seal_item(self._names.item("reasoning"), "gemini", signature))

    def _end_words(self) -> None:
        if self._words:
            self.items.append(message(self._names.item("message"), self._words))
            self._words = []

    def _end_thoughts(self) -> None:
        for group in _thoughts.grouped(tuple(self._thoughts)):
            self.items.append(_thoughts.item(self._names.thought(group[-1].id), group))
        self._thoughts = []
