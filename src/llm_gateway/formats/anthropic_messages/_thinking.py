"""How much to think, in Anthropic's words.

Models from generation 4.6 on choose their budget themselves (`adaptive`, with an effort); earlier ones are given one. From 4.7 on
they choose how to sample, too.
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
"""

from __future__ import annotations

import re
from typing import Any

from llm_gateway.core.types import Conversation, Effort, Message, Reasoning, Thinking, ToolCall

DEFAULT_TOKENS = 4096
_LEAST = 1024  # the smallest budget Anthropic takes
_BUDGETS: dict[Effort, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32000,
}
_EFFORTS: dict[Effort, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
_GENERATION = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2})(?!\d))?")
_UNTHINKING = re.compile(r"claude-(?:instant|2|3-(?!7))")  # Anthropic refuses to let them
_ADAPTIVE_SINCE = (4, 6)
_UNSAMPLED_SINCE = (4, 7)


def adaptive(model: str) -> bool:
    return _since(_ADAPTIVE_SINCE, model)


def sampled(model: str) -> bool:
    """Whether it takes `temperature`, `top_p` and `top_k`; newer ones refuse every value but the default."""
    return not _since(_UNSAMPLED_SINCE, model)


def _since(generation: tuple[int, int], model: str) -> bool:
    found = _GENERATION.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= generation


def write(call: Conversation, model: str, body: dict[str, Any]) -> bool:
    """Put `thinking` and its effort into the body, raising `max_tokens` that the client left open to make room for it.
    False where it was asked for but cannot be had: then the body is as it was, and the client's field is reported."""
    thinking = call.thinking
    if thinking is None or (thinking.enabled is None and thinking.effort is None and thinking.budget is None):
        return True
    if thinking.enabled is False:
        if call.format == "anthropic_messages":
            body["thinking"] = {"type": "disabled"}
        return True
    if _UNTHINKING.search(model) or _forced(call) or _unsealed(call.messages):
        return False
    if adaptive(model):
        body["thinking"] = _shown({"type": "adaptive"}, thinking)
        effort = thinking.effort or (_nearest(thinking.budget) if thinking.budget else None)
        if effort in _EFFORTS:
            body.setdefault("output_config", {})["effort"] = _EFFORTS[effort]
        return True
    return _write_budget(call, thinking, body)


def _write_budget(call: Conversation, thinking: Thinking, body: dict[str, Any]) -> bool:
    budget = thinking.budget or _BUDGETS.get(thinking.effort or "medium", _BUDGETS["medium"])
    budget = max(budget, _LEAST)
    if call.max_tokens is None:
        body["max_tokens"] = budget + DEFAULT_TOKENS
    elif budget >= call.max_tokens:
        budget = max(_LEAST, call.max_tokens * 4 // 5)
        if budget >= call.max_tokens:
            return False
    body["thinking"] = _shown({"type": "enabled", "budget_tokens": budget}, thinking)
    return True


def _shown(config: dict[str, Any], thinking: Thinking) -> dict[str, Any]:
    if thinking.visible is not None:
        config["display"] = "summarized" if thinking.visible else "omitted"
    return config


def _forced(call: Conversation) -> bool:
    """Anthropic refuses to think when a tool is forced."""
    return call.tool_choice is not None and call.tool_choice.mode in {"required", "tool"}


def _unsealed(messages: tuple[Message, ...]) -> bool:
    """Whether the turn to be continued is a tool loop that began without Anthropic's own thoughts: it would refuse."""
    for message in reversed(messages):
        if message.role == "user":
            return False
        if message.role == "assistant" and any(isinstance(part, ToolCall) for part in message.parts):
            return not any(
                isinstance(part, Reasoning) and part.format == "anthropic_messages" for part in message.parts
            )
    return False


def _nearest(budget: int) -> Effort:
    for effort, tokens in _BUDGETS.items():
        if budget <= tokens:
            return effort
    return "max"
