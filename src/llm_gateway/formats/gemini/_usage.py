"""Gemini's `usageMetadata` <-> Usage. Its prompt count holds what a cache supplied, but neither what tools brought in nor,
on the other side, thoughts: ours hold all.

https://ai.google.dev/api/generate-content#UsageMetadata
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats._numbers import LARGEST, tokens

Fields = dict[str, Any]
_SUMMANDS = ("promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "responseTokenCount", "thoughtsTokenCount")
_COUNTS = (*_SUMMANDS, "cachedContentTokenCount")
_ZEROS = (0,) * len(_COUNTS)
_COUNTED = frozenset({*_COUNTS, "totalTokenCount"})
_MEDIA = frozenset({"AUDIO", "IMAGE"})
_ASKED, _TOLD = ("promptTokensDetails", "toolUsePromptTokensDetails"), ("candidatesTokensDetails",)
_KEPT = ("cacheTokensDetails",)
_NOTHING: dict[str, int] = {}


def read(fields: Fields, searches: int = 0) -> Usage | None:
    """searches: of the web, counted from the grounding. None where nothing is counted, as in all but the last chunks of some streams (`trafficType` alone)."""
    if _COUNTED.isdisjoint(fields):
        return None
    counts = list(map(fields.get, _COUNTS, _ZEROS))
    if set(map(type, counts)) != {int} or min(counts) < 0 or max(counts) >= LARGEST:  # a number that is none
        counts = [tokens(fields, name) for name in _COUNTS]
    prompt, used, candidates, response, thoughts, cached = counts
    asked = _media(fields, _ASKED)
    told = _media(fields, _TOLD) if "candidatesTokensDetails" in fields else _NOTHING
    kept = _media(fields, _KEPT) if "cacheTokensDetails" in fields else _NOTHING
    return Usage(
        input=prompt + used,
        output=(candidates or response) + thoughts,
        cache_read=cached,
        reasoning=thoughts,
        audio_input=asked.get("AUDIO", 0),
        audio_output=told.get("AUDIO", 0),
        searches=searches,
        image_input=asked.get("IMAGE", 0),
        image_output=told.get("IMAGE", 0),
        tier=_tiers.word(fields.get("serviceTier")) or _tiers.word(fields.get("trafficType")),
        cache_audio=min(cached, kept.get("AUDIO", 0)),
    )


def merged(before: Fields, update: Fields) -> Fields:
    """A stream's counts are cumulative; one that a later chunk leaves out stays, unless the chunk's own total does without it."""
    if before.keys() <= update.keys() and None not in update.values():
        return update
    if (total := tokens(update, "totalTokenCount")) and total == sum(tokens(update, name) for name in _SUMMANDS):
        before = {name: value for name, value in before.items() if name not in _SUMMANDS}
    return {**before, **{name: value for name, value in update.items() if value is not None}}


def _media(fields: Fields, names: tuple[str, ...]) -> dict[str, int]:
    """Tokens of sounds and images."""
    found: dict[str, int] = {}
    for name in names:
        details = fields.get(name)
        for detail in details if isinstance(details, list) else ():
            kind = detail.get("modality") if isinstance(detail, dict) else None
            if isinstance(kind, str) and kind in _MEDIA:
                found[kind] = found.get(kind, 0) + tokens(detail, "tokenCount")
    return found


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
    if usage.audio_output or usage.image_output:
        text = max(0, usage.output - usage.reasoning - usage.audio_output - usage.image_output)
        fields["candidatesTokensDetails"] = _details({"TEXT": text, "IMAGE": usage.image_output, "AUDIO": usage.audio_output})
    return fields


def _details(counts: dict[str, int]) -> list[Fields]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]
