"""Recordings that every client library can say in its own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2e.recorded import anthropic_content, chosen, openai_content
from replay.recordings import Interaction, Recordings

Content = Callable[[Interaction], tuple[str, list[tuple[str, Any]]]]
PROVIDERS: dict[str, tuple[str, Content]] = {
    "openai": ("chat_completions", openai_content),
    "anthropic": ("messages", anthropic_content),
}
ODD = (b"citations", b"server_tool_use", b"redacted_thinking")  # what no framework says as plain text


def usual(recordings: Recordings, provider: str, *, streaming: bool, tools: bool) -> Interaction:
    api, content = PROVIDERS[provider]
    for each in chosen(recordings, provider, api, streaming=streaming):
        text, called = content(each)
        plain = not any(word in each.body for word in ODD) and each.request.get("n", 1) == 1
        if plain and bool(called) == tools and (text or tools):
            return each
    raise LookupError(provider)


def structured(recordings: Recordings) -> Interaction:
    found = recordings.select(provider="openai", api="chat_completions", streaming=False, status=200)
    return next(each for each in found if openai_content(each)[0].startswith("{"))


def named(provider: str, each: Interaction) -> str:
    """The model by which it is asked for. OpenAI's are behind a server that speaks chat alone, so that every other shape crosses."""
    return f"{'compat' if provider == 'openai' else provider}/{each.id}"
