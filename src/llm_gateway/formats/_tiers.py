"""The service tier a reply says it was served by, in the catalogue's one word for it.

Law: never raises; None for the ordinary tier, by whatever name, and for words that no price list knows. What was asked for
says nothing: a provider may serve by another tier, and bills by that.
"""

from __future__ import annotations

# OpenAI, Bedrock and Gemini's AI Studio speak as the catalogue does; Vertex says trafficType.
_WORDS = {
    "flex": "flex", "priority": "priority", "fast": "fast", "batch": "batch",
    "ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority",
}  # fmt: skip


def word(said: object) -> str | None:
    return _WORDS.get(said) if isinstance(said, str) else None
