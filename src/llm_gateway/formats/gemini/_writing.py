"""Parts -> parts of a content.

Law: what Gemini cannot say is reported by the client's path of its message, or refused where the user would be misread.
"""

from __future__ import annotations

import re
from typing import Any, assert_never

import msgspec
from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Audio,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats import crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats.gemini import _ids
from llm_gateway.formats.gemini._reading import SHAPE

Fields = dict[str, Any]
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_EXTENSION = re.compile(r"\.([A-Za-z0-9]{2,5})(?:[?#]|$)")
_MIMES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "pdf": "application/pdf",
    "txt": "text/plain",
    "mp4": "video/mp4",
}
# Gemini 3 refuses a call without the seal that it put on it. This word stands for one where another model made the call.
# https://ai.google.dev/gemini-api/docs/thought-signatures#faqs
_FOREIGN_SEAL = "skip_thought_signature_validator"


class PartWriter:
    """One request's parts. sealed: the model wants every step's first call sealed. `_names`: call id -> function."""

    def __init__(self, dropped: list[str], *, sealed: bool) -> None:
        self._dropped = dropped
        self._sealed = sealed
        self._names: dict[str, str] = {}

    def write(self, message: Message) -> list[Fields | Raw]:
        parts: list[Fields | Raw] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                parts += self._result(part, message)
            elif (written := self._part(part, message)) is not None:
                parts.append(written)
        if self._sealed and message.role == "assistant":
            _seal(parts)
        return parts

    def _part(self, part: Part, message: Message) -> Fields | Raw | None:
        match part:
            case Text(text=text):
                return _signed({"text": text}, part.signature) if text or part.signature else None
            case Refusal(text=text):
                return {"text": text} if text else None
            case Image() | Video() | Audio() | Document():
                return self._attached(part, message)
            case ToolCall():
                return self._call(part, message)
            case Reasoning():
                return self._reasoning(part, message)
            case Opaque(format="gemini", raw=raw):
                return raw
            case Opaque(kind=kind):
                if message.role != "assistant":
                    raise _impossible(message.at, f"'{kind}' parts")
                self._dropped.append(f"{message.at}.content.{kind}")
                return None
            case ToolResult():
                return None  # several parts: see `write`
            case _:
                assert_never(part)

    def _attached(self, part: Image | Video | Audio | Document, message: Message) -> Fields | None:
        match part:
            case Image(media=media, detail=detail):
                if detail not in {None, "auto"}:
                    self._dropped.append(f"{message.at}.content.image_url.detail")
                return source(media, "image/jpeg", message.at)
            case Video(media=media):
                return source(media, "video/mp4", message.at)
            case Document(text=str() as text):
                return {"text": text}
            case Document(media=document):
                return source(document or Media(), "application/pdf", message.at)
            case Audio():
                return self._audio(part, message)
            case _:
                assert_never(part)

    def _audio(self, part: Audio, message: Message) -> Fields | None:
        if message.role != "assistant":
            return source(part.media, "audio/wav", message.at)
        self._dropped.append(f"{message.at}.audio")
        return {"text": part.transcript} if part.transcript else None

    def _call(self, part: ToolCall, message: Message) -> Fields:
        self._names[part.id] = part.name
        return function_call(part, _arguments(part, message))

    def _reasoning(self, part: Reasoning, message: Message) -> Fields | None:
        if part.format != SHAPE:
            self._dropped.append(f"{message.at}.reasoning")
            return None
        if part.redacted is not None or not part.text:
            return _signed({"text": ""}, part.redacted or part.signature)
        return _signed({"text": part.text, "thought": True}, part.signature)

    def _result(self, part: ToolResult, message: Message) -> list[Fields | Raw]:
        """The function's answer, then what its words cannot hold: images, sounds, files."""
        name = part.name or self._names.get(part.call_id)
        if name is None:
            path = crossings.inside(message.at)
            raise invalid(f"'{path}': no earlier message calls a tool with the id '{part.call_id}'.", path)
        inner = Message("user", part.content, at=message.at)
        media = [one for one in part.content if not isinstance(one, Text)]
        words = "\n".join(one.text for one in part.content if isinstance(one, Text))
        said: Fields = {"name": name, "response": _response(words, failed=part.is_error)}
        if (own := _ids.theirs(part.call_id)) is not None and own:
            said["id"] = own
        written = [one for each in media if (one := self._part(each, inner)) is not None]
        if self._sealed and written:  # only these models take media as part of the answer
            return [{"functionResponse": {**said, "parts": written}}]
        return [{"functionResponse": said}, *written]


def function_call(part: ToolCall, arguments: Raw | Fields) -> Fields:
    said: Fields = {"name": part.name, "args": arguments}
    if (own := _ids.theirs(part.id)) is not None and own:
        said["id"] = own
    return _signed({"functionCall": said}, part.signature)


def source(media: Media, mime: str, at: str) -> Fields:
    """mime: where neither the client nor the URL says."""
    if media.data is not None:
        return {"inlineData": {"mimeType": media.mime or mime, "data": media.data}}
    if media.url is not None:
        found = _EXTENSION.search(media.url)
        guess = _MIMES.get(found[1].lower()) if found else None
        kind = media.mime or guess or (None if mime == "video/mp4" else mime)
        return {"fileData": {"fileUri": media.url} | ({"mimeType": kind} if kind else {})}
    raise _impossible(at, "files by id")


def _signed(part: Fields, signature: str | None) -> Fields:
    if signature is not None:
        part["thoughtSignature"] = signature
    return part


def _seal(parts: list[Fields | Raw]) -> None:
    calls = [part for part in parts if isinstance(part, dict) and "functionCall" in part]
    if calls and not any("thoughtSignature" in part for part in calls):
        calls[0]["thoughtSignature"] = _FOREIGN_SEAL


def _impossible(at: str, what: str) -> Fault:
    path = crossings.inside(at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)


def _arguments(call: ToolCall, message: Message) -> Raw:
    """Gemini takes an object only. Arguments that never were one cannot be repaired into what the model meant."""
    written = call.arguments.strip() or "{}"
    try:
        _decode_object(written.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        path = f"{message.at}.tool_calls"
        raise invalid(f"'{path}': the arguments of '{call.id}' must be a JSON object.", path) from None
    return Raw(written)


def _response(words: str, *, failed: bool) -> Raw | Fields:
    """An object as it is; any other answer under the names that Gemini knows."""
    if failed:
        return {"error": words}
    if words.lstrip().startswith("{"):
        try:
            _decode_object(words.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {"output": words}
        return Raw(words)
    return {"output": words}
