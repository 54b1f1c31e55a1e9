"""OpenAI's reply and its stream's chunks as typed JSON, loose where its followers differ.

Law: shapes only. https://platform.openai.com/docs/api-reference/chat/object and .../chat-streaming
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from llm_gateway.core.types import Citation, FinishReason
from llm_gateway.formats.openai_chat._logprobs import Logprobs

_FINISHES: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
    "abort": "error",  # vLLM, SGLang
    "insufficient_system_resource": "error",  # DeepSeek
}


class Function(Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class Custom(Struct, gc=False):
    name: str | None = None
    input: str | None = None


class Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: dict[str, Any] | None = None


class Audio(Struct, gc=False):
    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: int | None = None


class Message(Struct, gc=False):
    """Of a whole reply, or a chunk's delta."""

    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    audio: Audio | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[dict[str, Any]] | None = None


class Choice(Struct, gc=False):
    index: int | None = None
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None  # of a legacy completion
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    stop_reason: Any = None
    logprobs: Logprobs | None = None


class Reply(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    created: int | float | None = None
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    error: Any = None
    x_groq: Any = None


def finish(word: str | None, *, called: bool) -> tuple[FinishReason, str | None]:
    """The reason, and the provider's own word where ours says less. A reply that calls tools stopped for that, whatever
    the word: OpenAI itself says "stop" where the call was forced."""
    known = _FINISHES.get(word or "stop", "stop")
    if called and known == "stop":
        return "tool_calls", None
    return known, word if word and word not in _FINISHES else None


def arguments(value: object) -> str:
    """Arguments as JSON text; some services send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def citation(annotation: object) -> Citation | None:
    if not isinstance(annotation, dict):
        return None
    fields = annotation.get("url_citation")
    if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
        return None
    title, start, end = (fields.get(name) for name in ("title", "start_index", "end_index"))
    return Citation(
        fields["url"],
        title if isinstance(title, str) else None,
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
        format="openai_chat",
    )


def pieces(content: list[Any]) -> list[tuple[bool, str]]:
    """Mistral's content list: (whether it is thinking, its text) in order."""
    found: list[tuple[bool, str]] = []
    for piece in content:
        if isinstance(piece, dict):
            inner = piece.get("thinking")
            if isinstance(inner, list):
                found += [(True, text) for _, text in pieces(inner)]
            elif isinstance(inner, str):
                found.append((True, inner))
            elif isinstance(piece.get("text"), str):
                found.append((False, piece["text"]))
    return found
