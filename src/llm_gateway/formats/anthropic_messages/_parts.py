"""Parts -> content blocks.

Law: what a block cannot say is reported by the client's path of its message, or refused where the user would be misread.
"""

from __future__ import annotations

import re
from typing import Any, assert_never

import msgspec
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
from llm_gateway.formats import crossings
from llm_gateway.formats._members import invalid
from llm_gateway.formats.anthropic_messages._blocks import SHAPE

Block = dict[str, Any]
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")  # Anthropic's ids of tool calls hold nothing else
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def write(message: Message, dropped: list[str]) -> list[Block | Raw]:
    blocks = (block(part, message, dropped) for part in message.parts)
    return [written for written in blocks if written is not None]


def block(part: Part, message: Message, dropped: list[str]) -> Block | Raw | None:
    match part:
        case Text(cache=cache):
            return _marked(_text(part), cache) if _says(part.text, message) else None
        case Refusal(text=text):
            return {"type": "text", "text": text} if text else None
        case Image(media=media, detail=detail, cache=cache):
            if detail not in {None, "auto"}:
                dropped.append(f"{message.at}.content.image_url.detail")
            return _marked({"type": "image", "source": _source(media, message)}, cache)
        case Document():
            return _document(part, message)
        case ToolCall(cache=cache):
            called = {"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": _input(part, message)}
            return _marked(called, cache)
        case ToolResult():
            return _result(part, message, dropped)
        case Reasoning():
            return _reasoning(part, message, dropped)
        case Audio() | Video():
            if message.role == "assistant":
                dropped.append(f"{message.at}.audio")
                return (
                    {"type": "text", "text": part.transcript} if isinstance(part, Audio) and part.transcript else None
                )
            raise _impossible(message, "audio and video")
        case Opaque(format=shape, kind=kind, raw=raw):
            if shape == SHAPE:
                return raw
            if message.role != "assistant":
                raise _impossible(message, f"'{kind}' parts")
            dropped.append(f"{message.at}.content.{kind}")
            return None
        case _:
            assert_never(part)


def _says(text: str, message: Message) -> bool:
    """Anthropic refuses empty text and white space. A user's own is left for it to judge: without it, another would be asked."""
    return bool(text) and (message.role == "user" or not text.isspace())


def call_id(name: str) -> str:
    return _FOREIGN.sub("_", name)


def mark(cache: CacheMark) -> Block:
    return {"type": "ephemeral"} if cache.ttl is None else {"type": "ephemeral", "ttl": cache.ttl}


def citation(cited: Citation) -> Raw | Block | None:
    """Anthropic's own as it was; a web citation of another shape in Anthropic's words."""
    if cited.format == SHAPE and cited.raw is not None:
        return cited.raw
    if cited.url is None:
        return None
    return {
        "type": "web_search_result_location",
        "url": cited.url,
        "title": cited.title,
        "cited_text": cited.cited_text or "",
        "encrypted_index": "",
    }


def _impossible(message: Message, what: str) -> Fault:
    path = crossings.inside(message.at)
    return invalid(f"'{path}': {what} cannot be given to this model.", path)


def _marked(block: Block, cache: CacheMark | None) -> Block:
    if cache is not None:
        block["cache_control"] = mark(cache)
    return block


def _text(part: Text) -> Block:
    block: Block = {"type": "text", "text": part.text}
    if own := [cited.raw for cited in part.citations if cited.format == SHAPE]:
        block["citations"] = own
    return block


def _source(media: Media, message: Message) -> Block:
    if media.data is not None:
        if media.mime is None:
            raise _impossible(message, "media without a type")
        return {"type": "base64", "media_type": media.mime, "data": media.data}
    if media.url is not None:
        return {"type": "url", "url": media.url}
    return {"type": "file", "file_id": media.file_id}


def _document(part: Document, message: Message) -> Block:
    if part.text is not None:
        source: Block = {"type": "text", "media_type": "text/plain", "data": part.text}
    elif part.media is not None and _is_document(part.media):
        source = _source(part.media, message)
        if part.media.data is not None:
            source["media_type"] = "application/pdf"
    else:
        raise _impossible(message, "documents other than PDF and text")
    block = {"type": "document", "source": source}
    if part.name is not None:
        block["title"] = part.name
    if part.context is not None:
        block["context"] = part.context
    if part.citations is not None:
        block["citations"] = {"enabled": part.citations}
    return _marked(block, part.cache)


def _is_document(media: Media) -> bool:
    """By value a PDF; by URL anything, Anthropic looks; by id only what is its own, which `file_` marks."""
    if media.data is not None:
        return media.mime == "application/pdf" or (media.mime is None and media.data.startswith("JVBERi"))
    return media.url is not None or (media.file_id or "").startswith("file_")


def _input(call: ToolCall, message: Message) -> Raw:
    """Anthropic takes an object only. Arguments that never were one cannot be repaired into what the model meant."""
    written = call.arguments.strip() or "{}"
    try:
        _decode_object(written.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        path = f"{message.at}.tool_calls"
        raise invalid(f"'{path}': the arguments of '{call.id}' must be a JSON object.", path) from None
    return Raw(written)


def _result(part: ToolResult, message: Message, dropped: list[str]) -> Block:
    inner = Message("user", part.content, at=message.at)
    content = write(inner, dropped)
    block: Block = {"type": "tool_result", "tool_use_id": call_id(part.call_id)}
    if part.cache is not None and content and isinstance(content[-1], dict):
        content[-1].pop("cache_control", None)  # the mark of a tool message's last part is the result's own
    only = content[0] if len(content) == 1 else None
    if isinstance(only, dict) and only.keys() == {"type", "text"}:
        block["content"] = only["text"]
    elif content:
        block["content"] = content
    if part.is_error:
        block["is_error"] = True
    return _marked(block, part.cache)


def _reasoning(part: Reasoning, message: Message, dropped: list[str]) -> Block | None:
    if part.format == SHAPE and part.redacted is not None:
        return {"type": "redacted_thinking", "data": part.redacted}
    if part.format == SHAPE and part.signature is not None:
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    dropped.append(f"{message.at}.reasoning")
    return None
