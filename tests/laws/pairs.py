"""The same small chat as every shape says it, whole and streamed: what crossings are counted and measured with.

Law: said by the shapes' own writers, so that a shape added to the gateway is one here, too.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from llm_gateway.core.events import Delta, End, Event, Finish, PartEnd, PartStart, Start, UsageUpdate
from llm_gateway.core.types import Choice, Completion, Conversation, Message, Text, Usage
from llm_gateway.formats.contract import Format, Peek
from llm_gateway.formats.crossing import Crossing
from llm_gateway.wiring import formats

CHAT = (
    "openai_chat", "openai_responses", "openai_completions", "anthropic_messages", "gemini", "bedrock_converse", "ollama_chat",
    "ollama_generate",
)  # fmt: skip
NOW = 1_764_000_000
MODEL = "claude-sonnet-4-5"
USAGE = Usage(input=25, output=30)
QUESTION = Conversation(
    model=MODEL,
    messages=(Message("system", (Text("You are helpful."),), at="messages[0]"), Message("user", (Text("Hello, how are you?"),), at="messages[1]")),
    temperature=0.7,
    max_tokens=256,
    stream_usage=True,
)
ANSWER = Completion(
    id="chatcmpl-1", model=MODEL, created=NOW, usage=USAGE, choices=(Choice((Text("Fine, thank you. What can I do for you?"),), "stop"),)
)
_IN_PATH = frozenset({"gemini", "bedrock_converse"})


class Stream(NamedTuple):
    """In pieces: what comes before the words, each word's event, what comes after them."""

    opening: bytes
    words: list[bytes]
    ending: bytes


def shapes() -> dict[str, Format]:
    known = formats()
    return {name: known[name] for name in CHAT}


def pairs() -> list[tuple[str, str]]:
    """(client's shape, upstream's shape), all but a shape with itself."""
    return list(itertools.permutations(CHAT, 2))


def peek(shape: Format, body: bytes) -> Peek:
    return shape.peek(body, MODEL if shape.name in _IN_PATH else None)


def request(shape: Format, call: Conversation = QUESTION) -> bytes:
    return shape.write_request(call, MODEL).body


def reply(shape: Format) -> bytes:
    return shape.write_reply(ANSWER, QUESTION, NOW).body


def stream(shape: Format, count: int) -> Stream:
    """`count` words, each a delta of its own."""
    writer = shape.stream_writer(QUESTION, NOW)
    before: tuple[Event, ...] = (Start("chatcmpl-1", MODEL, NOW), PartStart(0, "text"), Delta(0, "It"))
    after: tuple[Event, ...] = (PartEnd(0), Finish("stop"), UsageUpdate(USAGE), End())
    opening = b"".join(map(writer.write, before))
    words = [_as_sent(shape.name, writer.write(Delta(0, " word"))) for _ in range(count)]
    return Stream(opening, words, b"".join(map(writer.write, after)) + writer.tail(None))


def _as_sent(shape: str, word: bytes) -> bytes:
    """Gemini counts with every chunk."""
    counts = b'"usageMetadata":{"promptTokenCount":25,"candidatesTokenCount":30,"totalTokenCount":55,'
    counts += b'"promptTokensDetails":[{"modality":"TEXT","tokenCount":25}]},"modelVersion"'
    return word.replace(b'"modelVersion"', counts) if shape == "gemini" else word


def crossing(client: Format, upstream: Format) -> Crossing:
    return Crossing(upstream.stream_reader(), client.stream_writer(QUESTION, NOW), ("chatcmpl-1", MODEL))
