"""Converse's stop reasons <-> ours.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import FinishReason

_READ: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
_WRITTEN: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "pause": "end_turn",
    "content_filter": "content_filtered",
    "error": "malformed_model_output",
}


def read(word: str | None) -> tuple[FinishReason, str | None]:
    """The reason, and Converse's own word where ours says less."""
    known = _READ.get(word or "end_turn", "stop")
    return known, word if word and _WRITTEN[known] != word else None


def write(reason: FinishReason, native: str | None, stop_sequence: str | None) -> str:
    if native is not None and _READ.get(native) == reason:
        return native
    return "stop_sequence" if stop_sequence is not None and reason == "stop" else _WRITTEN[reason]


def stop_sequence(more: Any) -> str | None:
    """The text that stopped the model, out of `additionalModelResponseFields`, for those who asked for it."""
    said = more.get("stop_sequence") if isinstance(more, dict) else None
    return said if isinstance(said, str) else None
