"""Content blocks -> parts.

Law: a block of a kind that only this shape has becomes Opaque, whole. Other members that no part can say are reported to
`extras` by their path. Thinking without a signature was not sealed by Anthropic and carries no format.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.types import (
    CacheMark,
    Citation,
    Document,
    Image,
    Media,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from llm_gateway.formats import _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats.anthropic_messages import _wire

SHAPE = "anthropic_messages"
W = TypeVar("W", bound=Struct)
Extras = dict[str, Raw]

_kind = msgspec.json.Decoder(_wire.Kind).decode
_citation = msgspec.json.Decoder(dict[str, object]).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
# Where a citation says its source, in order of preference, and where in the document it points.
_TITLES = ("title", "document_title")
_URLS = ("url", "source")


def read(content: str | list[Raw] | None, path: str, extras: Extras) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(content),) if content else ()
    return tuple(block(raw, f"{path}[{at}]", extras) for at, raw in enumerate(content))


def block(raw: Raw, path: str, extras: Extras) -> Part:
    kind = _typed.decode(_kind, raw, path).type
    if not kind:
        raise _typed.missing(f"{path}.type")
    reader = _READERS.get(kind)
    if reader is None:
        return Opaque(SHAPE, kind, raw.copy())
    return reader(raw, path, extras)


def _reader(kind: type[W], convert: Callable[[W, str, Extras], Part]) -> Callable[[Raw, str, Extras], Part]:
    decode = msgspec.json.Decoder(kind).decode
    known = _typed.names(kind)

    def read_block(raw: Raw, path: str, extras: Extras) -> Part:
        for name, value in _members(raw).items():
            if name not in known and bytes(value) != b"null":
                extras[f"{path}.{name}"] = value.copy()
        return convert(_typed.decode(decode, raw, path), path, extras)

    return read_block


def mark(cache: _wire.Cache | None) -> CacheMark | None:
    return None if cache is None else CacheMark(cache.ttl)


def citation(raw: Raw) -> Citation:
    fields = _typed.decode(_citation, raw)

    def text(*names: str) -> str | None:
        return next((value for name in names if isinstance(value := fields.get(name), str)), None)

    return Citation(text(*_URLS), text(*_TITLES), text("cited_text"), format=SHAPE, raw=raw.copy())


def _text(block: _wire.TextBlock, _path: str, _extras: Extras) -> Part:
    return Text(block.text, mark(block.cache_control), tuple(citation(raw) for raw in block.citations or ()))


def _media(source: _wire.Source, path: str) -> Media:
    value = {"base64": source.data, "url": source.url, "file": source.file_id}.get(source.type)
    field = {"base64": "data", "url": "url", "file": "file_id"}.get(source.type)
    if field is None:
        raise invalid(f"'{path}.source.type' cannot be '{source.type}' here.", f"{path}.source.type")
    if not value:
        raise _typed.missing(f"{path}.source.{field}")
    match source.type:
        case "base64":
            return Media(mime=source.media_type, data=value)
        case "url":
            return Media(url=value)
        case _:
            return Media(file_id=value)


def _image(block: _wire.ImageBlock, path: str, _extras: Extras) -> Part:
    return Image(_media(block.source, path), cache=mark(block.cache_control))


def _document(block: _wire.DocumentBlock, path: str, extras: Extras) -> Part:
    source = block.source
    cited = block.citations.enabled if block.citations is not None else None
    media = text = None
    if source.type == "text":
        text = source.data or ""
    elif source.type == "content":
        parts = read(source.content, f"{path}.source.content", extras)
        if not all(isinstance(part, Text) for part in parts):
            return Opaque(SHAPE, "document", Raw(msgspec.json.encode(block)))
        text = "\n".join(part.text for part in parts if isinstance(part, Text))
    else:
        media = _media(source, path)
    return Document(media, text, block.title, block.context, cited, mark(block.cache_control))


def _tool_use(block: _wire.ToolUseBlock, _path: str, _extras: Extras) -> Part:
    return ToolCall(block.id, block.name, bytes(block.input).decode(), cache=mark(block.cache_control))


def _tool_result(block: _wire.ToolResultBlock, path: str, extras: Extras) -> Part:
    content = read(block.content, f"{path}.content", extras)
    return ToolResult(block.tool_use_id, content, None, bool(block.is_error), mark(block.cache_control))


def _thinking(block: _wire.ThinkingBlock, _path: str, _extras: Extras) -> Part:
    return Reasoning(block.thinking, signature=block.signature or None, format=SHAPE if block.signature else "")


def _redacted(block: _wire.RedactedBlock, _path: str, _extras: Extras) -> Part:
    return Reasoning(redacted=block.data, format=SHAPE)


_READERS: dict[str, Callable[[Raw, str, Extras], Part]] = {
    "text": _reader(_wire.TextBlock, _text),
    "image": _reader(_wire.ImageBlock, _image),
    "document": _reader(_wire.DocumentBlock, _document),
    "tool_use": _reader(_wire.ToolUseBlock, _tool_use),
    "tool_result": _reader(_wire.ToolResultBlock, _tool_result),
    "thinking": _reader(_wire.ThinkingBlock, _thinking),
    "redacted_thinking": _reader(_wire.RedactedBlock, _redacted),
}
