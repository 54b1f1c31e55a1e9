"""Gemini's `usageMetadata` <-> Usage. Its prompt count holds what a cache supplied, but neither what tools brought in nor,
on the other side, thoughts: ours hold all.

https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats._numbers import tokens

Fields = dict[str, Any]
_SUMMANDS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount")


def read(fields: Fields, searches: int = 0) -> Usage | None:
    """searches: of the web, counted from the grounding. None where nothing is counted, as in all but the last chunks of some streams (`trafficType` alone)."""
    if not any(name.endswith("TokenCount") for name in fields):
        return None
    thoughts = tokens(fields, "thoughtsTokenCount")
    return Usage(
        input=tokens(fields, "promptTokenCount") + tokens(fields, "toolUsePromptTokenCount"),
        output=tokens(fields, "candidatesTokenCount", "responseTokenCount") + thoughts,
        cache_read=tokens(fields, "cachedContentTokenCount"),
        reasoning=thoughts,
        audio_input=_modality(fields, "AUDIO", "promptTokensDetails", "toolUsePromptTokensDetails"),
        audio_output=_modality(fields, "AUDIO", "candidatesTokensDetails"),
        searches=searches,
        image_input=_modality(fields, "IMAGE", "promptTokensDetails", "toolUsePromptTokensDetails"),
    )


def merged(before: Fields, update: Fields) -> Fields:
    """A stream's counts are cumulative; one that a later chunk leaves out stays, unless the chunk's own total does without it."""
    if (total := tokens(update, "totalTokenCount")) and total == sum(tokens(update, name) for name in _SUMMANDS):
        before = {name: value for name, value in before.items() if name not in _SUMMANDS}
    return {**before, **{name: value for name, value in update.items() if value is not None}}


def _modality(fields: Fields, wanted: str, *names: str) -> int:
    total = 0
    for name in names:
        details = fields.get(name)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict) and detail.get("modality") == wanted:
                total += tokens(detail, "tokenCount")
    return total


def write(usage: Usage) -> Fields:
    fields: Fields = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": max(0, usage.output - usage.reasoning),
        "totalTokenCount": usage.input + usage.output,
    }
    if usage.cache_read:
        fields["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        fields["thoughtsTokenCount"] = usage.reasoning
    if usage.audio_input or usage.image_input:
        text = max(0, usage.input - usage.audio_input - usage.image_input)
        counts = {"TEXT": text, "IMAGE": usage.image_input, "AUDIO": usage.audio_input}
        fields["promptTokensDetails"] = _details(counts)
    if usage.audio_output:
        text = max(0, usage.output - usage.reasoning - usage.audio_output)
        fields["candidatesTokensDetails"] = _details({"TEXT": text, "AUDIO": usage.audio_output})
    return fields


def _details(counts: dict[str, int]) -> list[Fields]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]
