"""Parts -> content blocks.

Law: text of white space only, which Bedrock refuses, is left out. What Converse cannot say is reported by the client's path
of its message, or refused where the user would be misread. A part's cache mark becomes the `cachePoint` behind it, for models that have a cache.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, assert_never

from msgspec import Raw

from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Audio,
    CacheMark,
    Citation,
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
from llm_gateway.formats import _arguments, crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats.bedrock_converse import _media
from llm_gateway.formats.bedrock_converse._families import Family
from llm_gateway.formats.bedrock_converse._reading import SEALED_BY, SHAPE

Fields = dict[str, Any]
Blocks = list[Fields | Raw]
_FOREIGN = re.compile(r"[^a-zA-Z0-9_.:-]")  # ids of tool calls hold nothing else,
_LONGEST_ID = 64  # and are not longer
_KEPT_OF_ID = 31
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9()\[\] -]+")  # names of documents: no more than this, no two spaces in a row
_SPACES = re.compile(r" {2,}")
_LONGEST_NAME = 190  # 200, with room for a number


class PartWriter:
    """One request's parts. own: it was written in this shape. `_names`: of the documents so far; no two may be alike."""

    def __init__(self, dropped: list[str], family: Family, *, own: bool) -> None:
        self._dropped = dropped
        self._family = family
        self._own = own
        self._names: set[str] = set()

    def write(self, part: Part, message: Message) -> Blocks:
        """The part's block and the cache point behind it; nothing for one that says nothing here."""
        block = self._block(part, message)
        if block is None:
            return []
        cache = _mark(part)
        return [block, cache_point(cache, self._family)] if cache is not None and self._family.caches else [block]

    def _block(self, part: Part, message: Message) -> Fields | Raw | None:
        match part:
            case Text():
                return text(part) if part.text.strip() or (self._own and (part.text or part.citations)) else None
            case Refusal(text=said):
                return {"text": said} if said.strip() else None
            case Image() | Video() | Audio() | Document():
                return self._attached(part, message)
            case ToolCall():
                arguments = _arguments.sent(part, message.at)
                return {"toolUse": {"toolUseId": call_id(part.id), "name": part.name, "input": arguments}}
            case ToolResult():
                return self._result(part, message)
            case Reasoning():
                return self._reasoning(part, message)
            case Opaque(format="bedrock_converse", raw=raw):
                return raw
            case Opaque(kind=kind):
                if message.role != "assistant":
                    raise impossible(message.at, f"'{kind}' parts")
                self._dropped.append(f"{message.at}.content.{kind}")
                return None
            case _:
                assert_never(part)

    def _attached(self, part: Image | Video | Audio | Document, message: Message) -> Fields | None:
        match part:
            case Image(media=media, detail=detail):
                if detail not in {None, "auto"}:
                    self._dropped.append(f"{message.at}.content.image_url.detail")
                return {"image": source(media, _media.IMAGES, message.at)}
            case Video(media=media):
                return {"video": source(media, _media.VIDEOS, message.at)}
            case Document():
                return self._document(part, message)
            case Audio(media=media):
                if message.role != "assistant":
                    return {"audio": source(media, _media.SOUNDS, message.at)}
                self._dropped.append(f"{message.at}.audio")
                return {"text": part.transcript} if part.transcript else None
            case _:
                assert_never(part)

    def _document(self, part: Document, message: Message) -> Fields:
        if part.text is None:
            written = source(part.media or Media(), _media.DOCUMENTS, message.at)
        elif part.citations:
            written = {"format": "txt", "source": {"text": part.text}}  # so that a citation can say where in it
        else:
            if not part.text:
                raise impossible(message.at, "empty documents")
            written = {"format": "txt", "source": {"bytes": _base64(part.text.encode())}}
        written["name"] = self._name(part.name or "document")
        if part.context:
            written["context"] = part.context
        if part.citations is not None:
            written["citations"] = {"enabled": part.citations}
        return {"document": written}

    def _name(self, given: str) -> str:
        plain = _SPACES.sub(" ", _NOT_IN_NAMES.sub("-", given)).strip()[:_LONGEST_NAME] or "document"
        name, number = plain, 1
        while name in self._names:
            number += 1
            name = f"{plain} ({number})"
        self._names.add(name)
        return name

    def _result(self, part: ToolResult, message: Message) -> Fields:
        inner = Message("user", part.content, at=message.at)
        content = [block for each in part.content if (block := self._block(each, inner)) is not None]
        result: Fields = {"toolUseId": call_id(part.call_id), "content": content}
        if part.is_error:
            result["status"] = "error"
        return {"toolResult": result}

    def _reasoning(self, part: Reasoning, message: Message) -> Fields | None:
        mine = part.format == SHAPE or (part.format == SEALED_BY and self._family.seals)
        if mine and part.redacted is not None:
            return {"reasoningContent": {"redactedContent": redacted(part)}}
        if mine and part.signature is not None:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        if self._own and part.redacted is None and part.signature is None:
            return {"reasoningContent": {"reasoningText": {"text": part.text}}}
        self._dropped.append(f"{message.at}.reasoning")
        return None


def text(part: Text) -> Fields:
    """Plain, or with the places it comes from."""
    cited = [written for one in part.citations if (written := citation(one)) is not None]
    if not cited:
        return {"text": part.text}
    content = {"content": [{"text": part.text}]} if part.text else {}
    return {"citationsContent": {**content, "citations": cited}}


def citation(cited: Citation) -> Raw | Fields | None:
    """Converse's own as it was; a web citation of another shape in Converse's words."""
    if cited.format == SHAPE and cited.raw is not None:
        return cited.raw
    if cited.url is None:
        return None
    written: Fields = {"location": {"web": {"url": cited.url}}}
    if cited.title is not None:
        written["title"] = cited.title
    if cited.cited_text:
        written["sourceContent"] = [{"text": cited.cited_text}]
    return written


def redacted(part: Reasoning) -> str:
    sealed = part.redacted or ""
    return sealed if part.format == SHAPE else _base64(sealed.encode())


def source(media: Media, names: dict[str, str], at: str) -> Fields:
    name = _media.word(media, names)
    if media.data is not None:
        if name is None:
            raise impossible(at, f"files of the type '{media.mime or 'unknown'}'")
        return {"format": name, "source": {"bytes": media.data}}
    if media.url is not None and media.url.startswith(_media.S3):
        kind = name or _suffix(media.url, names)
        if kind is None:
            raise impossible(at, "S3 objects of an unknown type")
        return {"format": kind, "source": {"s3Location": {"uri": media.url}}}
    raise impossible(at, "files by URL or by id, other than from S3,")


def call_id(name: str) -> str:
    """An id within Bedrock's rules; the same for a call and its result, and two ids stay two."""
    plain = _FOREIGN.sub("_", name)
    if plain == name and 0 < len(name) <= _LONGEST_ID:
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return f"{plain[:_KEPT_OF_ID]}_{digest}"


def cache_point(cache: CacheMark, family: Family) -> Fields:
    return {"cachePoint": {"type": "default"} if cache.ttl is None or not family.anywhere else {"type": "default", "ttl": cache.ttl}}


def impossible(at: str, what: str) -> Fault:
    path = crossings.inside(at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)


def _mark(part: Part) -> CacheMark | None:
    """A result's own mark, or the last that is set within it: its content has no place for one."""
    if isinstance(part, ToolResult) and part.cache is None:
        return next((found for inner in reversed(part.content) if (found := _mark(inner)) is not None), None)
    mark: CacheMark | None = getattr(part, "cache", None)
    return mark


def _suffix(url: str, names: dict[str, str]) -> str | None:
    ending = url.rpartition(".")[2].lower()
    ending = {"jpg": "jpeg", "3gp": "three_gp"}.get(ending, ending)
    return ending if ending in names else None


def _base64(data: bytes) -> str:
    return str(base64.b64encode(data), "ascii")
