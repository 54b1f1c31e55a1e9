"""Content blocks -> parts.

Law: a block of a kind that only this shape has becomes Opaque, whole; other members that no part can say are reported to
`extras` by their path. A `cachePoint` is a mark on the part before it. Thoughts with a signature, and sealed ones, are
Claude's: their seals hold in Anthropic's own API too, so they carry its name.
https://platform.claude.com/docs/en/build-with-claude/extended-thinking (signatures are compatible across platforms)
"""

from __future__ import annotations

import base64
import binascii
import string
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from llm_gateway.core.types import (
    Audio,
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
    Video,
)
from llm_gateway.formats import _typed
from llm_gateway.formats._members import invalid
from llm_gateway.formats._numbers import section
from llm_gateway.formats.bedrock_converse import _media, _wire

SHAPE = "bedrock_converse"
SEALED_BY = "anthropic_messages"
Extras = dict[str, Raw]

_decode_text = msgspec.json.Decoder(str).decode
_decode_point = msgspec.json.Decoder(_wire.CachePoint).decode
_decode_citation = msgspec.json.Decoder(dict[str, Any]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_BASE64 = (string.ascii_letters + string.digits + "+/").encode()
_TEXTS = frozenset({"txt", "md", "csv", "html"})
_SERVER = "server_tool_use"


def parts(blocks: list[_wire.Block], path: str, extras: Extras) -> tuple[Part, ...]:
    read: list[Part] = []
    for at, block in enumerate(blocks):
        where = f"{path}[{at}]"
        name, raw = named(block, where)
        if name == "cachePoint":
            mark(read, raw, where, extras)
        elif (part := _part(name, raw, where, extras)) is not None:
            read.append(part)
    return tuple(read)


def named(block: _wire.Block, path: str) -> tuple[str, Raw]:
    """The one member that a union holds."""
    held = [(name, raw) for name, raw in block.items() if not null(raw)]
    if len(held) != 1:
        raise invalid(f"'{path}' must have exactly one member, which says what it is.", path)
    return held[0]


def null(raw: Raw) -> bool:
    """Without a copy of what may be megabytes."""
    return bytes(memoryview(raw)[:5]) == b"null"


def mark(read: list[Any], raw: Raw, path: str, extras: Extras) -> None:
    """Marks the last of `read`, parts or tools, if it can hold a mark and has none."""
    point = _typed.decode(_decode_point, raw, f"{path}.cachePoint")
    last = read[-1] if read else None
    if last is not None and getattr(last, "cache", raw) is None:
        read[-1] = structs.replace(last, cache=CacheMark(point.ttl))
    else:
        extras[f"{path}.cachePoint"] = raw.copy()


def _part(name: str, raw: Raw, path: str, extras: Extras) -> Part | None:
    where = f"{path}.{name}"
    if name == "text":
        text = _typed.decode(_decode_text, raw, where)
        return Text(text) if text else None
    reader = _READERS.get(name)
    read = reader(raw, where, extras) if reader is not None else None
    return Opaque(SHAPE, name, Raw(msgspec.json.encode({name: raw}))) if read is None else read


Reader = Callable[[Raw, str, Extras], Part | None]


def _reader(kind: type[Struct], convert: Callable[[Any, str, Extras], Part | None]) -> Reader:
    decode = msgspec.json.Decoder(kind).decode
    known = _typed.names(kind)

    def read(raw: Raw, path: str, extras: Extras) -> Part | None:
        part = convert(_typed.decode(decode, raw, path), path, extras)
        if part is not None:
            for name, value in _decode_members(raw).items():
                if name not in known and not null(value):
                    extras[f"{path}.{name}"] = value.copy()
        return part

    return read


def _source(media: _wire.Media, names: dict[str, str], path: str, extras: Extras) -> Media:
    source, at = media.source, f"{path}.source"
    mime = names.get(media.format)
    if mime is None:
        raise invalid(f"'{path}.format' must be one of {', '.join(names)}.", f"{path}.format")
    if source.data:
        return Media(mime, base64_of(source.data, f"{at}.bytes"))
    if source.s3_location is not None:
        return Media(mime, url=_s3(source.s3_location, at, extras))
    raise _typed.missing(f"{at}.bytes")


def base64_of(data: str, path: str) -> str:
    """Standard base64 as it is. Its letters are looked at, not its meaning: an image may be megabytes."""
    if len(data) % 4 or not data.isascii() or data.rstrip("=").encode().translate(None, _BASE64):
        raise invalid(f"'{path}' must be base64.", path)
    return data


def _s3(location: _wire.Location, path: str, extras: Extras) -> str:
    if not location.uri.startswith(_media.S3):
        raise invalid(f"'{path}.s3Location.uri' must begin with s3://.", f"{path}.s3Location.uri")
    if location.bucket_owner is not None:
        extras[f"{path}.s3Location.bucketOwner"] = Raw(msgspec.json.encode(location.bucket_owner))
    return location.uri


def _image(block: _wire.Media, path: str, extras: Extras) -> Part:
    return Image(_source(block, _media.IMAGES, path, extras))


def _video(block: _wire.Media, path: str, extras: Extras) -> Part:
    return Video(_source(block, _media.VIDEOS, path, extras))


def _audio(block: _wire.Media, path: str, extras: Extras) -> Part:
    return Audio(_source(block, _media.SOUNDS, path, extras), format=block.format)


def _document(block: _wire.Document, path: str, extras: Extras) -> Part | None:
    source = block.source
    if source.content is not None:
        return None  # pieces that a citation names by number: only this shape has them
    media = text = None
    if source.text is not None:
        text = source.text
    elif block.format in _TEXTS and source.data:
        text = _decoded(source.data, f"{path}.source.bytes")
    else:
        media = _source(_wire.Media(block.format or "pdf", source), _media.DOCUMENTS, path, extras)
    cited = block.citations.enabled if block.citations is not None else None
    return Document(media, text, block.name, block.context, cited)


def _decoded(data: str, path: str) -> str:
    try:
        return str(base64.b64decode(data, validate=True), "utf-8", "replace")
    except (binascii.Error, ValueError):
        raise invalid(f"'{path}' must be base64.", path) from None


def _tool_use(block: _wire.ToolUse, _path: str, _extras: Extras) -> Part | None:
    if block.type == _SERVER:
        return None
    return ToolCall(block.tool_use_id, block.name, bytes(block.input).decode())


def _tool_result(block: _wire.ToolResult, path: str, extras: Extras) -> Part | None:
    if block.type is not None:
        return None  # of a tool that Bedrock itself ran
    content: list[Part] = []
    for at, inner in enumerate(block.content):
        where = f"{path}.content[{at}]"
        name, raw = named(inner, where)
        if name == "json":
            content.append(Text(bytes(raw).decode()))
        elif (part := _part(name, raw, where, extras)) is not None:
            content.append(part)
    return ToolResult(block.tool_use_id, tuple(content), is_error=block.status == "error")


def _reasoning(block: _wire.Reasoning, path: str, _extras: Extras) -> Part | None:
    if block.redacted_content is not None:
        try:
            return sealed(base64.b64decode(block.redacted_content, validate=True))
        except (binascii.Error, ValueError):
            raise invalid(f"'{path}.redactedContent' must be base64.", f"{path}.redactedContent") from None
    said = block.reasoning_text
    if said is None:
        return None
    return Reasoning(said.text, said.signature or None, format=SEALED_BY if said.signature else "")


def sealed(data: bytes) -> Reasoning:
    """Claude's seals are text, which Bedrock wraps in base64; what is none stays as Bedrock has it."""
    if data and data.isascii() and str(data, "ascii").isprintable():
        return Reasoning(redacted=str(data, "ascii"), format=SEALED_BY)
    return Reasoning(redacted=str(base64.b64encode(data), "ascii"), format=SHAPE)


def _citations(block: _wire.Citations, _path: str, _extras: Extras) -> Part:
    said = "".join(one.text for one in block.content or ())
    return Text(said, citations=tuple(citation(raw) for raw in block.citations or ()))


def citation(raw: Raw) -> Citation:
    fields = _typed.decode(_decode_citation, raw)
    location = section(fields, "location")
    url, title, source = section(location, "web").get("url"), fields.get("title"), fields.get("source")
    if url is None and isinstance(source, str) and source.startswith(("https://", "http://")):
        url = source
    quoted = fields.get("sourceContent")
    words = [one.get("text") for one in quoted if isinstance(one, dict)] if isinstance(quoted, list) else []
    return Citation(
        url=url if isinstance(url, str) else None,
        title=title if isinstance(title, str) else None,
        cited_text="".join(word for word in words if isinstance(word, str)) or None,
        format=SHAPE,
        raw=raw.copy(),
    )


_READERS: dict[str, Reader] = {
    "image": _reader(_wire.Media, _image),
    "video": _reader(_wire.Media, _video),
    "audio": _reader(_wire.Media, _audio),
    "document": _reader(_wire.Document, _document),
    "toolUse": _reader(_wire.ToolUse, _tool_use),
    "toolResult": _reader(_wire.ToolResult, _tool_result),
    "reasoningContent": _reader(_wire.Reasoning, _reasoning),
    "citationsContent": _reader(_wire.Citations, _citations),
}
