"""Parts of a content -> parts.

Law: a part of a kind that only this shape has becomes Opaque, whole. Other members that no part can say are reported to
`extras` by their path. A thought is sealed by its signature only.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from llm_gateway.core.types import (
    Audio,
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
from llm_gateway.formats.gemini import _wire

SHAPE = "gemini"
Extras = dict[str, Raw]
_KNOWN = _typed.names(_wire.Part)
_NULL = frozenset({b"", b"null"})
_decode_words = msgspec.json.Decoder(_wire.Words).decode  # most parts, in a third of the time that `_part` takes
decode_part = msgspec.json.Decoder(_wire.Part).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_VIDEO_SITES = ("https://www.youtube.com/", "https://youtu.be/", "https://youtube.com/")


def part(raw: Raw, path: str, name: str, extras: Extras) -> Part | None:
    """name: the id for a function call that has none. None for a part that says nothing."""
    try:
        return Text(_decode_words(raw).text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _part(raw, path, name, extras)


def _part(raw: Raw, path: str, name: str, extras: Extras) -> Part | None:
    one = _typed.decode(decode_part, raw, path)
    found = _known(one, path, name, extras)
    others = {
        key: value for key, value in _decode_members(raw).items() if key not in _KNOWN and bytes(value) != b"null"
    }
    if found is not None:
        extras.update({f"{path}.{key}": value.copy() for key, value in others.items()})
        return found
    if others:
        return Opaque(SHAPE, kind(others), raw.copy())
    return Text("", signature=one.thought_signature) if one.thought_signature else None


def kind(members: dict[str, Raw]) -> str:
    """What Gemini calls a part that no type of ours can say."""
    return next((key for key in members if not key.startswith(("thought", "part"))), "part")


def _known(one: _wire.Part, path: str, name: str, extras: Extras) -> Part | None:
    if one.function_call is not None:
        return call(one.function_call, one.thought_signature, name)
    if one.function_response is not None:
        return _result(one.function_response, path, extras)
    if one.inline_data is not None:
        blob = one.inline_data
        media = Media(mime=blob.mime_type, data=standard(blob.data, path))
        return attachment(media, blob.display_name)
    if one.file_data is not None:
        file = one.file_data
        return attachment(Media(mime=file.mime_type, url=file.file_uri), file.display_name)
    if one.text is None:
        return None
    if one.thought:
        return Reasoning(one.text, one.thought_signature, format=SHAPE)
    return Text(one.text, signature=one.thought_signature)


def call(said: _wire.Call, signature: str | None, name: str) -> ToolCall:
    written = bytes(said.args)
    arguments = "{}" if written in _NULL else written.decode()
    return ToolCall(said.id or name, said.name, arguments, signature=signature)


def standard(data: str, path: str) -> str:
    """Base64 in the standard alphabet; google-genai writes the URL-safe one."""
    if not data:
        raise invalid(f"'{path}.inlineData.data' must not be empty.", f"{path}.inlineData.data")
    return data.replace("-", "+").replace("_", "/") if "-" in data or "_" in data else data


def attachment(media: Media, name: str | None) -> Part:
    """By its type; one without is a document, except where it is a video site's."""
    mime = media.mime or ""
    if mime.startswith("image/"):
        return Image(media)
    if mime.startswith("audio/"):
        return Audio(media, format=_audio_format(mime))
    if mime.startswith("video/") or (media.url or "").startswith(_VIDEO_SITES):
        return Video(media)
    return Document(media, name=name)


def _audio_format(mime: str) -> str:
    name = mime.removeprefix("audio/").partition(";")[0].lower().removeprefix("x-")
    return {"mpeg": "mp3", "l16": "pcm16", "wave": "wav"}.get(name, name)


def _result(said: _wire.Response, path: str, extras: Extras) -> ToolResult:
    words, failed = _outcome(said.response)
    content: list[Part] = [Text(words)] if words else []
    for at, raw in enumerate(said.parts or ()):
        inner = part(raw, f"{path}.functionResponse.parts[{at}]", "", extras)
        if inner is not None:
            content.append(inner)
    return ToolResult(said.id or "", tuple(content), name=said.name or None, is_error=failed)


def _outcome(raw: Raw) -> tuple[str, bool]:
    """What a function said: the text under `output`, `result` or `error` where that is all there is, else its JSON."""
    written = bytes(raw)
    if written in _NULL:
        return "", False
    try:
        members = _decode_members(raw)
    except msgspec.DecodeError:
        return written.decode(), False
    if len(members) == 1:
        name, value = next(iter(members.items()))
        if name in {"output", "result", "error"}:
            return _plain(value), name == "error"
    return written.decode(), False


def _plain(value: Raw) -> str:
    try:
        return _decode_text(value)
    except msgspec.DecodeError:
        return bytes(value).decode()
