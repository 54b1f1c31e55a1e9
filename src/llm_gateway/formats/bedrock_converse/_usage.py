"""Converse's `usage` <-> Usage. Its `inputTokens` leaves out what was read from or written to a cache; ours counts all.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html; recordings spell the cache's counts both
`cacheReadInputTokens` and `cacheReadInputTokenCount`, always alike.
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats._numbers import tokens

Fields = dict[str, Any]


def read(fields: Fields, said: object = None) -> Usage:
    """said: the object that holds the service tier, which stands beside the usage."""
    fresh = tokens(fields, "inputTokens")
    cache_read = tokens(fields, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = tokens(fields, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    details = fields.get("cacheDetails")
    one_hour = sum(
        tokens(detail, "inputTokens")
        for detail in (details if isinstance(details, list) else ())
        if isinstance(detail, dict) and detail.get("ttl") == "1h"
    )
    return Usage(
        input=fresh + cache_read + written,
        output=tokens(fields, "outputTokens"),
        cache_read=cache_read,
        cache_write_5m=max(0, written - one_hour),
        cache_write_1h=min(one_hour, written),
        tier=_tiers.word(said.get("type")) if isinstance(said, dict) else None,
    )


def write(usage: Usage | None) -> Fields:
    usage = usage or Usage()
    written = usage.cache_write_5m + usage.cache_write_1h
    fields: Fields = {
        "inputTokens": max(0, usage.input - usage.cache_read - written),
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
    }
    if usage.cache_read or written:
        fields["cacheReadInputTokens"] = usage.cache_read
        fields["cacheWriteInputTokens"] = written
    if written:
        details = {"1h": usage.cache_write_1h, "5m": usage.cache_write_5m}
        fields["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in details.items() if count]
    return fields
