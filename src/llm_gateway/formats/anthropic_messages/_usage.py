"""Anthropic's `usage` <-> Usage. Its `input_tokens` leaves out what was read from or written to a cache; ours counts all.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance; `iterations` (server-side
compaction) are billed beyond the top-level counts: https://platform.claude.com/docs/en/build-with-claude/compaction
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats._numbers import money, section, tokens


def read(fields: dict[str, Any]) -> Usage:
    """fields: one usage object, or a stream's start usage updated by that of its message_delta."""
    parts = fields.get("iterations")
    counted = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    counted = counted or [fields]
    fresh = sum(tokens(part, "input_tokens") for part in counted)
    cache_read = sum(tokens(part, "cache_read_input_tokens") for part in counted)
    written = sum(tokens(part, "cache_creation_input_tokens") for part in counted)
    one_hour = sum(tokens(section(part, "cache_creation"), "ephemeral_1h_input_tokens") for part in counted)
    return Usage(
        input=fresh + cache_read + written,
        output=sum(tokens(part, "output_tokens") for part in counted),
        cache_read=cache_read,
        cache_write_5m=max(0, written - one_hour),
        cache_write_1h=min(one_hour, written),
        reasoning=tokens(section(fields, "output_tokens_details"), "thinking_tokens"),
        searches=tokens(section(fields, "server_tool_use"), "web_search_requests"),
        cost=money(fields.get("cost")),
        tier=_tiers.word(fields.get("speed")) or _tiers.word(fields.get("service_tier")),
    )


def merged(start: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """message_delta's counts are cumulative and replace message_start's. A null or missing one leaves it, and so does a zero: some
    services, and Anthropic in its time, tell of the prompt in message_start alone, and of nothing behind it."""
    return {**start, **{name: value for name, value in update.items() if value is not None and (_tells(value) or not start.get(name))}}


def _tells(value: object) -> bool:
    """Whether a count, or one within an object of them, is not zero."""
    return any(value.values()) if isinstance(value, dict) else value != 0


def write(usage: Usage, cost: float | None = None) -> dict[str, Any]:
    written = usage.cache_write_5m + usage.cache_write_1h
    fields: dict[str, Any] = {
        "input_tokens": max(0, usage.input - usage.cache_read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if written:
        fields["cache_creation"] = {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if usage.searches:
        fields["server_tool_use"] = {"web_search_requests": usage.searches, "web_fetch_requests": 0}
    if cost is None:
        cost = usage.cost
    if cost is not None:
        fields["cost"] = cost
    return fields
