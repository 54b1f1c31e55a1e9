"""Content of messages and of calls' outputs <-> parts.

Law: what only this shape can say in what a model said is reported by its path; in what a user said it is refused, since
an answer without it would be to another question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, assert_never

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Audio,
    CacheMark,
    Document,
    Image,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats import _typed, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats.openai_chat import _media
from llm_gateway.formats.openai_responses import _wire

Fields = dict[str, Any]
Extras = dict[str, Raw]
W = TypeVar("W", bound=Struct)
_kind = msgspec.json.Decoder(_wire.Kind).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


def read(content: str | list[Raw], path: str, extras: Extras, *, said: bool = False) -> tuple[Part, ...]:
    """said: by a model."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    parts = (_part(raw, f"{path}[{at}]", extras, said=said) for at, raw in enumerate(content))
    return tuple(part for part in parts if part is not None)


def _part(raw: Raw, path: str, extras: Extras, *, said: bool) -> Part | None:
    kind = _typed.decode(_kind, raw, path).type
    if not kind:
        raise _typed.missing(f"{path}.type")
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(raw, path, extras)
    if not said:
        raise invalid(f"'{path}.type': '{kind}' content cannot be given to this model.", f"{path}.type")
    extras[path] = raw.copy()
    return None


def reader(kind: type[W], convert: Callable[[W, str], Part]) -> Callable[[Raw, str, Extras], Part]:
    """What reads one kind of object and reports the members that its struct does not have."""
    decode = msgspec.json.Decoder(kind).decode
    known = _typed.names(kind)

    def read_one(raw: Raw, path: str, extras: Extras) -> Part:
        told = _typed.decode(decode, raw, path)
        unread(raw, known, path, extras)
        return convert(told, path)

    return read_one


def unread(raw: Raw, known: frozenset[str], path: str, extras: Extras) -> None:
    for name, value in _members(raw).items():
        if name not in known and bytes(value) != b"null":
            extras[f"{path}.{name}"] = value.copy()


def _text(content: _wire.TextContent, _path: str) -> Part:
    return Text(content.text, CacheMark() if content.prompt_cache_breakpoint else None)


def _refusal(content: _wire.RefusalContent, _path: str) -> Part:
    return Refusal(content.refusal)


def _image(content: _wire.ImageContent, path: str) -> Part:
    if content.image_url is not None:
        return Image(_media.from_url(content.image_url, f"{path}.image_url"), content.detail)
    if not content.file_id:
        raise _typed.missing(f"{path}.image_url")
    return Image(Media(file_id=content.file_id), content.detail)


def _file(content: _wire.FileContent, path: str) -> Part:
    if content.file_data:
        data = content.file_data
        media = _media.from_url(data, f"{path}.file_data") if data.startswith("data:") else Media(data=data)
    elif content.file_url:
        media = Media(url=content.file_url)
    elif content.file_id:
        media = Media(file_id=content.file_id)
    else:
        raise _typed.missing(f"{path}.file_data")
    return Document(media, name=content.filename)


def _audio(content: _wire.AudioContent, _path: str) -> Part:
    audio = content.input_audio
    return Audio(Media(mime=_media.audio_mime(audio.format), data=audio.data), format=audio.format)


_READERS = {
    "input_text": reader(_wire.TextContent, _text),
    "output_text": reader(_wire.TextContent, _text),
    "text": reader(_wire.TextContent, _text),
    "refusal": reader(_wire.RefusalContent, _refusal),
    "input_image": reader(_wire.ImageContent, _image),
    "input_file": reader(_wire.FileContent, _file),
    "input_audio": reader(_wire.AudioContent, _audio),
}


def write(parts: tuple[Part, ...], at: str, dropped: list[str]) -> str | list[Fields]:
    """What is put in, by a user, a system or a tool: one string where it is one text."""
    written = [told for part in parts if (told := _write_part(part, at, dropped)) is not None]
    if len(written) == 1 and written[0]["type"] == "input_text":
        return str(written[0]["text"])
    return written or ""


def _write_part(part: Part, at: str, dropped: list[str]) -> Fields | None:
    if isinstance(part, Text | Image | Document | Video) and part.cache is not None:
        dropped.append(f"{at}.cache_control")
    match part:
        case Text(text=text) | Refusal(text=text):
            return {"type": "input_text", "text": text} if text else None
        case Image(media=media, detail=detail):
            return {"type": "input_image", **_image_source(media, at), "detail": detail or "auto"}
        case Document():
            return _document(part, at)
        case Audio() | Video():
            raise _impossible(at, "audio and video")
        case Opaque(kind=kind):
            raise _impossible(at, f"'{kind}' parts")
        case ToolCall() | ToolResult() | Reasoning():
            raise _impossible(at, "tool calls and thoughts from a user")
        case _:
            assert_never(part)


def _image_source(media: Media, at: str) -> Fields:
    if media.file_id is None:
        return {"image_url": _media.to_url(media)}
    if not media.file_id.startswith("file-"):
        raise _impossible(at, "an image by another API's id")
    return {"file_id": media.file_id}


def _document(part: Document, at: str) -> Fields:
    if part.text is not None:
        about = "\n".join(line for line in (part.name, part.context) if line)
        return {"type": "input_text", "text": f"{about}\n\n{part.text}" if about else part.text}
    media = part.media or Media()
    if media.data is not None:
        name = part.name or _media.file_name(media.mime)
        return {"type": "input_file", "filename": name, "file_data": _media.to_url(media)}
    if media.url is not None:
        return {"type": "input_file", "file_url": media.url}
    if media.file_id is None or not media.file_id.startswith("file-"):
        raise _impossible(at, "a document by another API's id")
    return {"type": "input_file", "file_id": media.file_id}


def _impossible(at: str, what: str) -> Fault:
    path = crossings.inside(at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)
