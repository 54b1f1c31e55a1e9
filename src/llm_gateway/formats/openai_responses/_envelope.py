"""The response object around the output: what was asked, how it ended.

Law: nothing is stored here, and it says so. What the client asked is told back to it as OpenAI does, in its own words.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from llm_gateway.core.types import Conversation, FinishReason, Text
from llm_gateway.formats.openai_responses import request_writer
from llm_gateway.formats.openai_responses._thoughts import SHAPE
from llm_gateway.formats.openai_responses._wire import TIERS

Fields = dict[str, Any]
_REASONS: dict[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FINISHES: dict[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
_MODEL_FAILED = {"code": "server_error", "message": "The model could not finish its answer."}


def finish(status: str | None, reason: str | None, *, called: bool) -> tuple[FinishReason, str | None]:
    """The reason, and the provider's own word where ours says less."""
    if status == "incomplete":
        known = _FINISHES.get(reason or "", "length")
        return known, reason if reason not in _FINISHES else None
    if status in {None, "completed"}:
        return ("tool_calls" if called else "stop"), None
    return ("error" if status in {"failed", "cancelled"} else "pause"), status


def word(status: str | None, details: Fields | None) -> str | None:
    """How it ended, in the words of this shape."""
    reason = (details or {}).get("reason")
    return reason if status == "incomplete" and isinstance(reason, str) else status


def ending(reason: FinishReason) -> Fields:
    """How it ended, as members of the response. `status` also names the stream's last event."""
    if (told := _REASONS.get(reason)) is not None:
        return {"status": "incomplete", "incomplete_details": {"reason": told}}
    if reason == "error":
        return {"status": "failed", "error": _MODEL_FAILED}
    return {"status": "completed"}


def tier(name: str | None) -> str | None:
    return "default" if name == "standard" else name if name in TIERS else None


def about(call: Conversation) -> Fields:
    """What was asked, as members of the response."""
    fields: Fields = {
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": call.max_tokens,
        "metadata": call.metadata or {},
        "parallel_tool_calls": call.parallel_tools is not False,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": call.temperature,
        "text": {"format": {"type": "text"}} | request_writer.text_options(call),
        "tool_choice": "auto",
        "tools": _tools(call),
        "top_p": call.top_p,
        "truncation": "disabled",
        "user": call.user,
    }
    if call.thinking is not None:
        fields["reasoning"] |= {"effort": call.thinking.effort, "summary": call.thinking.summary}
    if call.tool_choice is not None:
        fields["tool_choice"] = request_writer.choice(call.tool_choice, call.tools)
    if call.top_logprobs is not None:
        fields["top_logprobs"] = call.top_logprobs
    first = call.messages[0] if call.messages else None
    if first is not None and first.at == "instructions":
        fields["instructions"] = "".join(part.text for part in first.parts if isinstance(part, Text))
    return fields


def _tools(call: Conversation) -> list[Fields | Raw]:
    known = (one for one in call.tools if one.kind == "function" or one.format == SHAPE)
    return [request_writer.tool(one, at, []) for at, one in enumerate(known)]
