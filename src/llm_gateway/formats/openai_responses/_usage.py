"""`usage` objects of this shape <-> Usage. Sources: OpenAI's ResponseUsage; xAI's and OpenRouter's as recorded."""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats._numbers import money, section, tokens

Fields = dict[str, Any]
_USD_TICK = 1e-10  # xAI's cost_in_usd_ticks


def read(fields: Fields, searches: int = 0, said: object = None) -> Usage:
    """searches: the web searches among the reply's items, where its usage does not count them. said: the service tier."""
    given = section(fields, "input_tokens_details")
    made = section(fields, "output_tokens_details")
    used = section(fields, "server_side_tool_usage_details")
    total, output = tokens(fields, "input_tokens"), tokens(fields, "output_tokens")
    reasoning = tokens(made, "reasoning_tokens")
    apart = reasoning > output or tokens(fields, "total_tokens") == total + output + reasoning
    return Usage(
        input=total,
        output=output + reasoning if apart else output,
        cache_read=min(total, tokens(given, "cached_tokens")),
        cache_write_5m=min(total, tokens(given, "cache_write_tokens")),
        reasoning=reasoning,
        audio_input=tokens(given, "audio_tokens"),
        audio_output=tokens(made, "audio_tokens"),
        image_input=tokens(given, "image_tokens"),
        searches=tokens(used, "web_search_calls") or searches,
        cost=_cost(fields),
        image_output=tokens(made, "image_tokens"),
        tier=_tiers.word(said),
    )


def _cost(fields: Fields) -> float | None:
    if fields.get("cost") is None and (ticks := tokens(fields, "cost_in_usd_ticks")):
        return ticks * _USD_TICK
    return money(fields.get("cost"))


def write(usage: Usage, cost: float | None = None) -> Fields:
    given = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write_5m + usage.cache_write_1h}
    made = {"reasoning_tokens": usage.reasoning}
    for fields, name, value in (
        (given, "audio_tokens", usage.audio_input),
        (given, "image_tokens", usage.image_input),
        (made, "audio_tokens", usage.audio_output),
        (made, "image_tokens", usage.image_output),
    ):
        if value:
            fields[name] = value
    written: Fields = {
        "input_tokens": usage.input,
        "input_tokens_details": given,
        "output_tokens": usage.output,
        "output_tokens_details": made,
        "total_tokens": usage.input + usage.output,
    }
    if usage.searches:
        written["server_side_tool_usage_details"] = {"web_search_calls": usage.searches}
    if (told := usage.cost if cost is None else cost) is not None:
        written["cost"] = told
    return written
