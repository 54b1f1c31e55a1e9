"""Media by URL in a request that stays in its own shape, for a service that speaks the shape and follows no URLs.

Law: only the part that names an address is written anew; all else of the request passes as it came. What is not as it should
be is left alone: the service says so in its own words. Tool inputs and results' texts are a model's and are never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import msgspec
from msgspec import Raw

from llm_gateway.core.types import Document, Image, Media, Video
from llm_gateway.formats.by_value import Kind, Named

MOST = 256  # addresses that are looked at, a few milliseconds' worth; a request of more is the service's to refuse
_SOMETHING = re.compile(rb'"(?:url|image_url|video_url)"\s*:\s*"(?!data:)')  # without it, nothing is decoded
_WEB = ("http://", "https://")
_OPENAI: dict[str, Kind] = {"image_url": Image, "video_url": Video}
_ANTHROPIC: dict[str, Kind] = {"image": Image, "document": Document}
_NOTHING = Raw(b"[]")
_decode_messages = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_parts = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode

Part = dict[str, Any]
Change = Callable[[Part, str], Part]  # the part and where it stands -> what it becomes; the same object to leave it as written


def named(members: Mapping[str, Raw], shape: str) -> dict[Named, str]:
    """What the request names by URL, each once, with the part that does so first."""
    found: dict[Named, str] = {}

    def note(part: Part, path: str) -> Part:
        if (name := _name(part, shape)) is not None:
            found.setdefault(name, path)
        return part

    _messages(members, note)
    return found


def filled(members: Mapping[str, Raw], shape: str, values: Mapping[Named, Media | str]) -> dict[str, Raw]:
    """The request with the bytes in place of their URLs."""
    write = _openai if shape == "openai_chat" else _anthropic

    def fill(part: Part, _: str) -> Part:
        name = _name(part, shape)
        value = values.get(name) if name is not None else None
        return part if value is None else write(part, value)

    return {**members, "messages": _messages(members, fill)}


def _messages(members: Mapping[str, Raw], change: Change) -> Raw:
    raw = members.get("messages", _NOTHING)
    if not 0 < sum(1 for _ in islice(_SOMETHING.finditer(raw), MOST + 1)) <= MOST:
        return raw
    try:
        messages = _decode_messages(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return raw
    for at, message in enumerate(messages):
        if "content" in message:
            message["content"] = _content(message["content"], change, f"messages[{at}].content")
    return Raw(_encode(messages))


def _content(raw: Raw, change: Change, path: str) -> Raw:
    """A message's or a tool result's content; text, and what the shape does not know, as it is."""
    if _SOMETHING.search(raw) is None:
        return raw
    try:
        parts = _decode_parts(raw)
        return Raw(_encode([_part(each, change, f"{path}[{at}]") for at, each in enumerate(parts)]))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return raw


def _part(raw: Raw, change: Change, path: str) -> Raw:
    if _SOMETHING.search(raw) is None:
        return raw
    members = _decode_members(raw)
    if bytes(members.get("type", _NOTHING)) == b'"tool_result"' and "content" in members:
        return Raw(_encode({**members, "content": _content(members["content"], change, f"{path}.content")}))
    part: Part = msgspec.json.decode(raw)
    changed = change(part, path)
    return raw if changed is part else Raw(_encode(changed))


def _name(part: Part, shape: str) -> Named | None:
    word = part.get("type")
    if not isinstance(word, str):
        return None
    if shape == "openai_chat":
        kind, holder = _OPENAI.get(word), part.get(word)
        url = holder.get("url") if isinstance(holder, dict) else holder
    else:
        kind, holder = _ANTHROPIC.get(word), part.get("source")
        url = holder.get("url") if isinstance(holder, dict) and holder.get("type") == "url" else None
    return Named(kind, url) if kind is not None and isinstance(url, str) and url.lower().startswith(_WEB) else None


def _openai(part: Part, value: Media | str) -> Part:
    word = part["type"]
    if isinstance(value, str):
        return part
    url = f"data:{value.mime};base64,{value.data}"
    holder = part[word]
    return {**part, word: {**holder, "url": url} if isinstance(holder, dict) else url}


def _anthropic(part: Part, value: Media | str) -> Part:
    if isinstance(value, str):
        return {**part, "source": {"type": "text", "media_type": "text/plain", "data": value}}
    return {**part, "source": {"type": "base64", "media_type": value.mime, "data": value.data}}
