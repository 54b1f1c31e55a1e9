"""The most tokens of a reply, put into a request whose caller asked for more, or did not say: in each shape's own words. Pure.

Law: nothing else of a request changes. The member that the caller used is the one that is set.
"""

from __future__ import annotations

import re

from msgspec import Raw
from msgspec.structs import replace

from llm_gateway.formats import _members
from llm_gateway.formats.contract import Peek

# OpenAI's own models since the o-series refuse `max_tokens`; many compatible services know nothing else.
_OWN_MODELS = re.compile(r"(?:.*/)?(?:gpt-(?!oss)|chatgpt|o\d)")
_CHAT = ("max_completion_tokens", "max_tokens")
# Shape -> where it stands: (outer members, the usual one first; inner members likewise). No outer: at the top.
_PLACES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openai_chat": ((), _CHAT),
    "openai_completions": ((), ("max_tokens",)),
    "openai_responses": ((), ("max_output_tokens",)),
    "anthropic_messages": ((), ("max_tokens",)),
    "gemini": (("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens")),
    "gemini_array": (("generationConfig", "generation_config"), ("maxOutputTokens", "max_output_tokens")),
    "bedrock_converse": (("inferenceConfig",), ("maxTokens",)),
    "ollama_chat": (("options",), ("num_predict",)),
    "ollama_generate": (("options",), ("num_predict",)),
}
SHAPES = frozenset(_PLACES)
LONGEST = 18  # digits of a number that a client wrote; a longer one is large enough


def capped(peek: Peek, shape: str, most: int, model: str) -> tuple[Peek, str]:
    """The request with `most` as its limit, and the dotted name of what was set. shape: one of `SHAPES`; model: the provider's name of it."""
    outer, inner = _PLACES[shape]
    if shape == "openai_chat":
        inner = inner if _OWN_MODELS.match(model) else inner[::-1]
    members, value = peek.members, _members.written(most)
    if not outer:
        name = _present(members, inner)
        both = {each: value for each in inner if each in members and bytes(members[each]) != b"null"}  # some know only the one
        return replace(peek, members={**members, **both, name: value}, max_tokens=most), name
    holder = _present(members, outer)
    within = _members.object_(members, holder)
    name = _present(within, inner)
    return replace(peek, members={**members, holder: _members.written({**within, name: value})}, max_tokens=most), f"{holder}.{name}"


def thinking(peek: Peek, shape: str) -> int:
    """Tokens that the caller set aside for thoughts, which a limit must leave room for; 0 none. (Anthropic: `thinking.budget_tokens`.)"""
    if shape != "anthropic_messages" or "thinking" not in peek.members:
        return 0
    said = bytes(_members.object_(peek.members, "thinking").get("budget_tokens", b"0"))
    return int(said[:LONGEST]) if said.isdigit() else 0


def _present(members: dict[str, Raw], names: tuple[str, ...]) -> str:
    """The one that the caller used, else the usual."""
    return next((name for name in names if name in members and bytes(members[name]) != b"null"), names[0])
