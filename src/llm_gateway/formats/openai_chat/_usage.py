"""`usage` objects of OpenAI's shape, with what its many speakers put into it <-> Usage.

Sources: OpenAI's CompletionUsage; DeepSeek, Together, xAI, OpenRouter, Perplexity, Mistral and Vercel as recorded.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats._numbers import money, section, tokens

_CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
_ORDINARY = "default"  # what most replies say: not worth a call
_USD_TICK = 1e-10  # xAI's cost_in_usd_ticks


class _PromptDetails(Struct, forbid_unknown_fields=True, gc=False):
    cached_tokens: int | None = 0
    audio_tokens: int | None = 0


class _CompletionDetails(Struct, forbid_unknown_fields=True, gc=False):
    reasoning_tokens: int | None = 0
    audio_tokens: int | None = 0
    accepted_prediction_tokens: int | None = 0
    rejected_prediction_tokens: int | None = 0


class Plain(Struct, forbid_unknown_fields=True, gc=False):
    """Usage as OpenAI itself writes it, and nothing more: one decode of 1 us instead of `read`'s 30."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_decode_plain = msgspec.json.Decoder(Plain).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode
_NO_PROMPT_DETAILS = _PromptDetails()
_NO_COMPLETION_DETAILS = _CompletionDetails()


def decode(raw: Raw, said: object = None) -> Usage | None:
    """Usage from its JSON text; None where that is null, empty or no object. said: the service tier."""
    try:
        plain = _decode_plain(raw)
    except msgspec.ValidationError:
        return _decode_odd(raw, said)
    usage = counted(plain, said)
    return usage if usage is not None else _decode_odd(raw, said)


def counted(plain: Plain, said: object = None) -> Usage | None:
    """None where its sums are not OpenAI's: somebody else's usage in the same fields."""
    prompt = plain.prompt_tokens_details or _NO_PROMPT_DETAILS
    completion = plain.completion_tokens_details or _NO_COMPLETION_DETAILS
    input_, output, cached = plain.prompt_tokens, plain.completion_tokens, prompt.cached_tokens or 0
    reasoning = completion.reasoning_tokens or 0
    if (
        input_ < 0
        or output < 0
        or cached < 0
        or cached > input_
        or plain.total_tokens != input_ + output
        or reasoning > output
    ):
        return None
    tier = None if said is None or said == _ORDINARY else _tiers.word(said)
    return Usage(
        input_, output, cached, 0, 0, reasoning, prompt.audio_tokens or 0, completion.audio_tokens or 0, 0,
        completion.accepted_prediction_tokens or 0, completion.rejected_prediction_tokens or 0, tier=tier,
    )  # fmt: skip


def _decode_odd(raw: Raw, said: object) -> Usage | None:
    try:
        fields = _decode_fields(raw)
    except msgspec.ValidationError:
        return None
    return read(fields, said) if fields else None


def read(fields: dict[str, Any], said: object = None) -> Usage:
    """said: the service tier, which stands beside the usage."""
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
        image_output=tokens(completion, "image_tokens"),
        tier=_tiers.word(said),
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
    made = {
        "reasoning_tokens": usage.reasoning,
        "audio_tokens": usage.audio_output,
        "accepted_prediction_tokens": usage.accepted_prediction,
        "rejected_prediction_tokens": usage.rejected_prediction,
    }
    if usage.image_output:
        made["image_tokens"] = usage.image_output
    fields: dict[str, Any] = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": made,
    }
    if usage.searches:
        fields["server_tool_use_details"] = {"web_search_requests": usage.searches}
    if cost is None:
        cost = usage.cost
    if cost is not None:
        fields["cost"] = cost
    return fields
