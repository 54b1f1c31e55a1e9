"""The chat shapes and the recorded traffic that speaks them."""

from __future__ import annotations

import json
from typing import Any

from llm_gateway.core.types import Conversation
from llm_gateway.formats.anthropic_messages import AnthropicMessages
from llm_gateway.formats.contract import Format, Peek
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.openai_chat import OpenAIChat
from replay.recordings import Interaction, Recordings, load

SHAPES: dict[str, Format] = {"chat_completions": OpenAIChat(), "messages": AnthropicMessages()}
GEMINI = Gemini()
ALL: dict[str, Format] = SHAPES | {"generateContent": GEMINI, "streamGenerateContent": GEMINI}
MODELS = {"openai_chat": "gpt-4o-mini", "anthropic_messages": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
CALL = Conversation(model="m", messages=(), stream_usage=True)
NOW = 1_700_000_000


def recorded(**wanted: object) -> list[Interaction]:
    try:
        recordings = load()
    except FileNotFoundError:
        recordings = Recordings(())
    chat = (each for each in recordings.select(**wanted) if each.row["api"] in ALL)
    return [each for each in chat if each.row["body_kind"] != "json-array"]  # never asked of an upstream


def shape_of(interaction: Interaction) -> Format:
    return ALL[interaction.row["api"]]


def other(shape: Format) -> Format:
    """Where its traffic is crossed to: the two that share most cross to each other, Gemini to OpenAI."""
    return next(each for each in SHAPES.values() if each.name != shape.name)


def asked(*, usage: bool = True) -> Peek:
    return Peek({}, "m", True, usage)


def request_body(interaction: Interaction) -> bytes | None:
    """The recorded request; Vertex and Gemini keep the model in the URL, so it gets one."""
    body: Any = interaction.request
    if not isinstance(body, dict):
        return None
    return json.dumps({"model": "m", **body}).encode()


def peeked(shape: Format, body: bytes) -> Peek:
    """What `shape` wrote, as it would come to it: with the model in the path where it is not in the body."""
    return shape.peek(body, "m") if shape.name == "gemini" else shape.peek(body)
