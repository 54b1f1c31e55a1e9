"""Anthropic's betas, as the clouds know them that sell Claude: one that a cloud does not know makes it refuse the whole request
(Bedrock: "invalid beta flag"; Vertex: "Unexpected value(s) for the `anthropic-beta` header"), and Claude Code names all that it
has to everybody.

Law: data and its look-up. A word of a cloud's own takes the place of Anthropic's. What is not here is left out, since a request
without a beta is one that is answered.
Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html,
https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai, and what users were refused (issues 12429, 21625, 30926,
34802, 49370, 56595 of anthropics/claude-code).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

HEADER = b"anthropic-beta"
_BOTH = (
    "compact-2026-01-12",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "interleaved-thinking-2025-05-14",
    "tool-search-tool-2025-10-19",
)
_OTHERS = {"advanced-tool-use-2025-11-20": "tool-search-tool-2025-10-19"}
BEDROCK: Mapping[str, str] = MappingProxyType(
    {each: each for each in (*_BOTH, "computer-use-2024-10-22", "effort-2025-11-24", "fine-grained-tool-streaming-2025-05-14")} | _OTHERS
)
VERTEX: Mapping[str, str] = MappingProxyType({each: each for each in (*_BOTH, "web-search-2025-03-05")} | _OTHERS)


def known(headers: Iterable[tuple[bytes, bytes]], words: Mapping[str, str]) -> list[str]:
    """Those that the client named and the cloud knows, in order, each once."""
    return list(dict.fromkeys(words[each] for name, value in headers if name == HEADER for each in _named(value) if each in words))


def unknown(value: bytes, words: Mapping[str, str]) -> tuple[str, ...]:
    """Of a header's value those that are left out, as `x-gateway-dropped-params` names them."""
    return tuple(f"anthropic-beta: {each}" for each in _named(value) if each not in words)


def _named(value: bytes) -> list[str]:
    return [word for part in value.split(b",") if (word := str(part.strip(), "latin-1"))]
