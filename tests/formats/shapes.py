"""The two chat shapes and the recorded traffic that speaks them."""

from __future__ import annotations

import json
from typing import Any

from llm_gateway.core.types import Conversation
from llm_gateway.formats.anthropic_messages import AnthropicMessages
from llm_gateway.formats.contract import Format, Peek
from llm_gateway.formats.openai_chat import OpenAIChat
from replay.recordings import Interaction, Recordings, load

SHAPES: dict[str, Format] = {"chat_completions": OpenAIChat(), "messages": AnthropicMessages()}
MODELS = {"openai_chat": "gpt-4o-mini", "anthropic_messages": "claude-sonnet-4-5"}
CALL = Conversation(model="m", messages=(), stream_usage=True)
NOW = 1_700_000_000


def recorded(**wanted: object) -> list[Interaction]:
    try:
        recordings = load()
    except FileNotFoundError:
        recordings = Recordings(())
    return [each for each in recordings.select(**wanted) if each.row["api"] in SHAPES]


def shape_of(interaction: Interaction) -> Format:
    return SHAPES[interaction.row["api"]]


def other(shape: Format) -> Format:
    return next(each for each in SHAPES.values() if each.name != shape.name)


def asked(*, usage: bool = True) -> Peek:
    return Peek({}, "m", True, usage)


def request_body(interaction: Interaction) -> bytes | None:
    """The recorded request; Vertex keeps the model in the URL, so it gets one."""
    body: Any = interaction.request
    if not isinstance(body, dict):
        return None
    return json.dumps({"model": "m", **body}).encode()
