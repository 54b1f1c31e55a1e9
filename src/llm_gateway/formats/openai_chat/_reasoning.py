"""Reasoning in OpenAI's shape: `reasoning_content` (DeepSeek, vLLM), `reasoning` (Groq, Together, Ollama) and OpenRouter's
`reasoning_details`, the only one that can carry another API's signature.

Law: a signature or sealed thought goes out exactly as it came in, with the name of who sealed it.
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Reasoning

_SEALED_BY = {
    "anthropic-claude-v1": "anthropic_messages",
    "openai-responses-v1": "openai_responses",
    "google-gemini-v1": "gemini",
}
_WRITTEN = {shape: name for name, shape in _SEALED_BY.items()}


def sealed_by(name: object) -> str:
    return _SEALED_BY.get(name, name) if isinstance(name, str) and name != "unknown" else ""


def read(details: list[dict[str, Any]] | None, *texts: str | None) -> tuple[Reasoning, ...]:
    """Details where given, else the first of the plain texts."""
    found = tuple(part for detail in details or () if (part := _detail(detail)) is not None)
    if found:
        return found
    text = next((text for text in texts if text), None)
    return (Reasoning(text),) if text else ()


def _detail(detail: dict[str, Any]) -> Reasoning | None:
    shape, name = sealed_by(detail.get("format")), _string(detail.get("id")) or None
    match detail.get("type"):
        case "reasoning.text":
            text, signature = _string(detail.get("text")), _string(detail.get("signature"))
            return Reasoning(text, signature=signature or None, id=name, format=shape) if text or signature else None
        case "reasoning.summary":
            summary = _string(detail.get("summary"))
            return Reasoning(summary=(summary,), id=name, format=shape) if summary else None
        case "reasoning.encrypted":
            data = _string(detail.get("data"))
            return Reasoning(redacted=data, id=name, format=shape) if data else None
        case _:
            return None


def shown(parts: list[Reasoning]) -> str:
    return "".join(part.text or "\n\n".join(part.summary) for part in parts)


def details(parts: list[Reasoning]) -> list[dict[str, Any]]:
    """Nothing where no part is sealed: plain thoughts need no details."""
    if not any(part.signature or part.redacted for part in parts):
        return []
    return [{**detail(part), "index": index} for index, part in enumerate(parts)]


def detail(part: Reasoning) -> dict[str, Any]:
    entry: dict[str, Any]
    if part.redacted is not None:
        entry = {"type": "reasoning.encrypted", "data": part.redacted}
    elif part.summary:
        entry = {"type": "reasoning.summary", "summary": "\n\n".join(part.summary)}
    else:
        entry = {"type": "reasoning.text", "text": part.text}
        if part.signature is not None:
            entry["signature"] = part.signature
    if part.format:
        entry["format"] = _WRITTEN.get(part.format, part.format)
    if part.id is not None:
        entry["id"] = part.id
    return entry


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
