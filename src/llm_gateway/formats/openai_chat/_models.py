"""What OpenAI's own models take, told by their names: each of them refuses a request that says more.

Law: knows names and fields; others' models take what is said. A model that thinks takes nothing of how to sample and no stops,
but for those of 5.1 and later while they do not think; one that does not think takes no effort.
https://platform.openai.com/docs/guides/latest-model#parameter-compatibility; "Unsupported value: 'temperature' does not support 0.7
with this model", "Unrecognized request argument supplied: reasoning_effort".
"""

from __future__ import annotations

import re
from typing import Any

from llm_gateway.core.types import Conversation, Effort
from llm_gateway.formats import crossings

_OWN = re.compile(r"(?:.*/)?(?:gpt-(?!oss)|chatgpt|o\d)")
_UNTHINKING = re.compile(r"(?:.*/)?(?:gpt-[34]|chatgpt-4|gpt-5[.\d]*-chat)")
_THINKING = re.compile(r"(?:.*/)?(?:o\d|gpt-5(?P<later>\.\d+)?(?![.\d]*-chat))")
_AT_REST = frozenset({".1", ".2"})  # that do not think unless they are asked to
# What only a model that does not think takes, and what each asks for that asks for nothing.
_SAMPLING: dict[str, object] = {
    "temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False, "top_logprobs": 0, "logit_bias": {},
    "stop": (),
}  # fmt: skip


def own(model: str) -> bool:
    return _OWN.match(model) is not None


def thinks(model: str) -> bool:
    """Whether it may be told how much to."""
    return _UNTHINKING.match(model) is None


def unsampled(call: Conversation, model: str, effort: Effort | None) -> tuple[frozenset[str], list[str]]:
    """The fields that it does not take, and the client's names of those that ask for something. effort: as it will be told."""
    found = _THINKING.match(model)
    if found is None or (found["later"] and (effort == "none" or (effort is None and found["later"] in _AT_REST))):
        return frozenset(), []
    asked: list[tuple[str, Any]] = [(field, getattr(call, field)) for field in _SAMPLING]
    return frozenset(_SAMPLING), [crossings.name(call, field) for field, value in asked if value is not None and value != _SAMPLING[field]]
