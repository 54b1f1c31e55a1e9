"""`usage` objects of OpenAI's shape, with what its many speakers put into it <-> Usage.

Sources: OpenAI's CompletionUsage; DeepSeek, Together, xAI, OpenRouter, Perplexity, Mistral and Vercel as recorded.
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats._numbers import money, section, tokens

_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
_USD_TICK = 1e-10  # xAI's cost_in_usd_ticks


def read(fields: dict[str, Any]) -> Usage:
    prompt = section(fields, "prompt_tokens_details")
    completion = section(fields, "completion_tokens_details")
    reasoning = tokens(completion, "reasoning_tokens") or tokens(fields, "reasoning_tokens")
    return Usage(
        input=(total := tokens(fields, "prompt_tokens")),
        output=_output(fields, reasoning),
        cache_read=min(total, tokens(prompt, "cached_tokens") or tokens(fields, *_CACHED)),
        cache_write_5m=tokens(prompt, "cache_write_tokens", "cache_creation_tokens")
        or tokens(fields, "cache_creation_input_tokens"),
        reasoning=reasoning,
        audio_input=tokens(prompt, "audio_tokens"),
        audio_output=tokens(completion, "audio_tokens"),
        image_input=tokens(prompt, "image_tokens"),
        accepted_prediction=tokens(completion, "accepted_prediction_tokens"),
        rejected_prediction=tokens(completion, "rejected_prediction_tokens"),
        searches=_searches(fields),
        cost=_cost(fields),
    )


def _output(fields: dict[str, Any], reasoning: int) -> int:
    """xAI, and Gemini behind Vercel, leave reasoning out of completion_tokens; total_tokens or the sizes tell."""
    prompt, output, total = (tokens(fields, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
    apart = reasoning > output or total == prompt + output + reasoning
    return output + reasoning if apart else output


def _searches(fields: dict[str, Any]) -> int:
    used = section(fields, "server_tool_use_details") or section(fields, "server_tool_use")
    return tokens(used, "web_search_requests") or tokens(fields, "num_search_queries")


def _cost(fields: dict[str, Any]) -> float | None:
    cost = fields.get("cost")
    if isinstance(cost, dict):
        return money(cost.get("total_cost"))
    if cost is None and (ticks := tokens(fields, "cost_in_usd_ticks")):
        return ticks * _USD_TICK
    return money(cost)


def write(usage: Usage, cost: float | None = None) -> dict[str, Any]:
    prompt = {"cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input}
    if written := usage.cache_write_5m + usage.cache_write_1h:
        prompt["cache_write_tokens"] = written
    if usage.image_input:
        prompt["image_tokens"] = usage.image_input
    fields: dict[str, Any] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
            "accepted_prediction_tokens": usage.accepted_prediction,
            "rejected_prediction_tokens": usage.rejected_prediction,
        },
    }
    if usage.searches:
        fields["server_tool_use_details"] = {"web_search_requests": usage.searches}
    if cost is None:
        cost = usage.cost
    if cost is not None:
        fields["cost"] = cost
    return fields
