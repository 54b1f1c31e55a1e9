"""What a request asks of a model beyond text, read off its bytes without taking it apart.

Law: a table of marks by shape. A mark is a JSON member and its value as only structure can hold it (inside a string its quotes would be
escaped), so what a user merely writes about is not taken for it. Only asked where some target cannot do all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Raw

ABILITIES = ("image", "audio", "document", "video", "tools", "schema")
_EMPTY = re.compile(rb"\s*(?:\[\s*\]|\{\s*\}|null)\s*")


def _typed(*words: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'(?<!\\)"type"\s*:\s*"(?:' + b"|".join(words) + rb')"')


def _member(*names: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'(?<!\\)"(?:' + b"|".join(names) + rb')"\s*:\s*[\[{]')


def _mime(kind: bytes) -> re.Pattern[bytes]:
    return re.compile(rb'(?<!\\)"mime_?[tT]ype"\s*:\s*"' + kind)


_OPENAI = {
    "image": _typed(b"image_url", b"input_image"),
    "audio": _typed(b"input_audio"),
    "document": _typed(b"file", b"input_file"),
    "schema": _typed(b"json_schema"),
}
_ANTHROPIC = {
    "image": _typed(b"image"),
    "document": _typed(b"document"),
    "schema": _typed(b"json_schema"),
}
_GEMINI = {
    "image": _mime(b"image/"),
    "audio": _mime(b"audio/"),
    "video": _mime(b"video/"),
    "document": _mime(b"application/pdf"),
    "schema": _member(b"responseSchema", b"response_schema", b"responseJsonSchema"),
}
_BEDROCK = {"image": _member(b"image"), "document": _member(b"document"), "video": _member(b"video"), "audio": _member(b"audio")}
_OLLAMA = {"image": _member(b"images"), "schema": _member(b"format")}

_MARKS: dict[str, dict[str, re.Pattern[bytes]]] = {
    "openai_chat": _OPENAI, "openai_responses": _OPENAI, "anthropic_messages": _ANTHROPIC, "gemini": _GEMINI, "gemini_array": _GEMINI,
    "bedrock_converse": _BEDROCK, "ollama_chat": _OLLAMA, "ollama_generate": _OLLAMA,
}  # fmt: skip
_TOOLS = ("tools", "functions", "toolConfig")


def needs(shape: str, members: Mapping[str, Raw], body: bytes, asked: frozenset[str]) -> frozenset[str]:
    """Of the abilities `asked` about, those that the request cannot do without."""
    marks = _MARKS.get(shape, {})
    found = {name for name in asked if name in marks and marks[name].search(body)}
    if "tools" in asked and any(name in members and not _EMPTY.fullmatch(members[name]) for name in _TOOLS):
        found.add("tools")
    return frozenset(found)
