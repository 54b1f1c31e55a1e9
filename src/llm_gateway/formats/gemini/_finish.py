"""Gemini's finish reasons <-> ours. https://ai.google.dev/api/generate-content#FinishReason"""

from __future__ import annotations

from llm_gateway.core.types import FinishReason

_NUMBERS = ("FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")  # `enum-encoding=int`
_READ: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
    "MALFORMED_RESPONSE": "error",
    "IMAGE_OTHER": "error",
    "NO_IMAGE": "error",
}
_WRITTEN: dict[FinishReason, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "pause": "STOP",
    "error": "OTHER",
}


def word(value: str | int | None) -> str | None:
    """Gemini's own word; None while the reply goes on."""
    if isinstance(value, int):
        value = _NUMBERS[value] if 0 <= value < len(_NUMBERS) else "OTHER"
    return None if value in {None, "", "FINISH_REASON_UNSPECIFIED"} else value


def read(said: str | None, *, called: bool, empty: bool) -> tuple[FinishReason, str | None]:
    """The reason, and Gemini's own word where ours says less. called: the candidate holds function calls. empty: it has no
    content at all, which is how Gemini withholds an answer without saying so."""
    reason = _READ.get(said or "STOP", "stop")
    if called and reason == "stop":
        reason = "tool_calls"
    elif empty and reason == "stop":
        reason = "content_filter"
    return reason, said if said and _WRITTEN[reason] != said else None


def write(reason: FinishReason, native: str | None) -> str:
    return native if native in _READ else _WRITTEN[reason]
