"""What a shape takes as bytes only: parts that somebody has to fetch before it can be written.

Law: data, and what it says of a conversation. Nothing is fetched here. A shape that is not in the table takes addresses
itself, or takes nothing of the kind, which its writer says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.core.types import Audio, Conversation, Document, Image, Media, Message, Part, ToolResult, Video

Kind = type[Image | Audio | Video | Document]


class Named(NamedTuple):
    """What is named by its address, and as what."""

    kind: Kind
    url: str


class ByValue(Struct, frozen=True):
    """own: how the addresses begin that the shape's service reads all the same. followed: kinds that the shape names by address,
    which not every service that speaks it follows."""

    kinds: frozenset[Kind]
    own: tuple[str, ...] = ()
    followed: frozenset[Kind] = frozenset()


_EVERY: frozenset[Kind] = frozenset({Image, Audio, Video, Document})
_GOOGLES = ByValue(
    _EVERY,
    ("gs://", "https://generativelanguage.googleapis.com/", "https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/"),
)
TABLE: dict[str, ByValue] = {
    "openai_chat": ByValue(frozenset({Audio, Document}), followed=frozenset({Image, Video})),
    "anthropic_messages": ByValue(frozenset(), followed=frozenset({Image, Document})),
    "anthropic_count": ByValue(frozenset(), followed=frozenset({Image, Document})),
    "gemini": _GOOGLES,
    "gemini_count": _GOOGLES,
    "bedrock_converse": ByValue(_EVERY, ("s3://",)),
    "ollama_chat": ByValue(frozenset({Image, Document})),
    "ollama_generate": ByValue(frozenset({Image, Document})),
}
_SOUNDS = {"mpeg": "mp3", "mpga": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "x-m4a": "m4a", "x-flac": "flac", "l16": "pcm16"}


def named(call: object, shape: str, *, follows: bool = True) -> dict[Named, str]:
    """What `shape` cannot take of `call` as it is, each once, with the field that names it first. follows: whether the service
    reads what the shape can name by address."""
    rule = TABLE.get(shape)
    found: dict[Named, str] = {}
    if rule is not None and isinstance(call, Conversation):
        kinds = rule.kinds if follows else rule.kinds | rule.followed
        worth = {*kinds, ToolResult}  # most parts are text: those cost no call
        for message in call.messages if kinds else ():
            for part in message.parts:
                if type(part) in worth:
                    _look(part, message, (kinds, rule.own), found)
    return found


def filled(call: Conversation, values: Mapping[Named, Media | str]) -> Conversation:
    """`call` with the media themselves; text for a document that is text."""
    messages = (replace(message, parts=tuple(_filled(part, values) for part in message.parts)) for message in call.messages)
    return replace(call, messages=tuple(messages))


def _look(part: Part, message: Message, wanted: tuple[frozenset[Kind], tuple[str, ...]], found: dict[Named, str]) -> None:
    if isinstance(part, ToolResult):
        for inner in part.content:
            _look(inner, message, wanted, found)
        return
    kinds, own = wanted
    name = _name(part)
    # What a model spoke goes back as its transcript, whatever the target.
    if name is None or name.kind not in kinds or (name.kind is Audio and message.role == "assistant"):
        return
    if not name.url.startswith(own):
        found.setdefault(name, f"{message.at}.content")


def _name(part: Part) -> Named | None:
    match part:
        case Image(media=Media(url=str() as url)) | Audio(media=Media(url=str() as url)):
            return Named(type(part), url)
        case Video(media=Media(url=str() as url)) | Document(media=Media(url=str() as url)):
            return Named(type(part), url)
        case _:
            return None


def _filled(part: Part, values: Mapping[Named, Media | str]) -> Part:
    if isinstance(part, ToolResult):
        return replace(part, content=tuple(_filled(inner, values) for inner in part.content))
    name = _name(part)
    value = values.get(name) if name is not None else None
    if value is None:
        return part
    if isinstance(value, str):
        return replace(part, media=None, text=value)
    if isinstance(part, Audio):
        return replace(part, media=value, format=part.format or _sound(value.mime or ""))
    return replace(part, media=value)


def _sound(mime: str) -> str:
    """OpenAI's short name."""
    name = mime.removeprefix("audio/")
    return _SOUNDS.get(name, name)
