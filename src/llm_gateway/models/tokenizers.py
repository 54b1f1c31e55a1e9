"""How many tokens a conversation is to OpenAI's models: which vocabulary a model has, what of a conversation is text, what is added to it.

Law: no tokenizer here; texts go out, their counts come back. What no published rule covers is counted as well as can be, and said not
to be exact.

Sources: tiktoken's table of models; https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken for the overhead of messages and of tools.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.types import (
    Conversation,
    Document,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    Tool,
    ToolCall,
    ToolResult,
)

# In order; the first that begins a model's name. gpt-oss has the merges of o200k, and these decide about text.
_FAMILIES = (
    ("gpt-4o", "o200k_base"), ("gpt-4.1", "o200k_base"), ("gpt-4.5", "o200k_base"), ("chatgpt-4o", "o200k_base"), ("gpt-5", "o200k_base"),
    ("o1", "o200k_base"), ("o3", "o200k_base"), ("o4-mini", "o200k_base"), ("gpt-oss-", "o200k_base"),
    ("gpt-4", "cl100k_base"), ("gpt-3.5-turbo", "cl100k_base"), ("gpt-35-turbo", "cl100k_base"),
)  # fmt: skip
_BEFORE = re.compile(r"^(?:openai[/.])?(?:ft:)?")
_END = re.compile(r"[-.:@]|$")
PER_MESSAGE = 3
PER_NAME = 1
REPLY = 3  # every reply is primed with <|start|>assistant<|message|>
TOOL = {"o200k_base": 7, "cl100k_base": 10}
TOOLS_END = 12
PROPERTIES = PROPERTY = 3
ENUM, ENUM_ITEM = -3, 3


class Prompt(Struct, frozen=True):
    """`texts`: each to be counted alone; `overhead`: tokens beside them; `media`: parts that are no text; `exact`: a published rule covers all of it."""

    texts: list[str]
    overhead: int
    media: int
    exact: bool


def encoding(model: str) -> str | None:
    """The vocabulary of a model by its provider's name for it; None if it is not known."""
    name = _BEFORE.sub("", model.lower())
    for start, family in _FAMILIES:
        if name.startswith(start) and (start.endswith("-") or _END.match(name, len(start))):
            return family
    return None


def prompt(call: Conversation, vocabulary: str) -> Prompt:
    """What has to be counted of a conversation."""
    tally = _Tally()
    for message in call.messages:
        tally.message(message)
    for tool in call.tools:
        tally.tool(tool, TOOL[vocabulary])
    if call.tools:
        tally.overhead += TOOLS_END
    if call.output is not None and call.output.schema is not None:
        tally.guess(bytes(call.output.schema).decode())
    return Prompt(tally.texts, tally.overhead + REPLY, tally.media, tally.exact)


class _Tally:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.overhead = 0
        self.media = 0
        self.exact = True

    def guess(self, text: str) -> None:
        self.texts.append(text)
        self.exact = False

    def message(self, message: Message) -> None:
        self.overhead += PER_MESSAGE
        self.texts.append(message.role)
        if message.name is not None:
            self.overhead += PER_NAME
            self.texts.append(message.name)
        said = [part.text for part in message.parts if isinstance(part, Text)]
        if said:
            self.texts.append("".join(said))
        if len(said) > 1:  # nothing published says what stands between two parts
            self.exact = False
        for part in message.parts:
            self.part(part)

    def part(self, part: Part) -> None:
        match part:
            case Text():
                return  # with its message
            case Refusal(text):
                self.guess(text)
            case ToolCall(_, name, arguments):
                self.guess(name)
                self.guess(arguments)
            case ToolResult(_, content):
                for each in content:
                    self.guess(each.text) if isinstance(each, Text) else self.part(each)
            case Reasoning():
                self.exact = False  # what the model makes of its own thoughts, if it is given them at all, nobody says
            case Opaque():
                self.guess(bytes(part.raw).decode())
            case Document(media=None, text=str(text)):
                self.guess(text)
            case _:
                self.media += 1
                self.exact = False

    def tool(self, tool: Tool, each: int) -> None:
        """By the published rule, which knows flat parameters only."""
        flat = _flat(tool)
        if flat is None:
            self.overhead += each
            self.guess(f"{tool.name}:{tool.description or ''}")
            for raw in (tool.schema, tool.raw):
                if raw is not None:
                    self.guess(bytes(raw).decode())
            return
        self.overhead += each + (PROPERTIES if flat else 0)
        self.texts.append(f"{tool.name}:{_unended(tool.description or '')}")
        for name, said in flat.items():
            self.overhead += PROPERTY
            if "enum" in said:
                self.overhead += ENUM + ENUM_ITEM * len(said["enum"])
                self.texts += said["enum"]
            self.texts.append(f"{name}:{said['type']}:{_unended(said['description'])}")


def _flat(tool: Tool) -> dict[str, dict[str, Any]] | None:
    """A function's parameters, None where the rule has no word for them."""
    if tool.kind != "function" or not tool.description:
        return None
    try:
        schema = msgspec.json.decode(tool.schema if tool.schema is not None else Raw(b"{}"))
    except msgspec.DecodeError:
        return None
    given = schema.get("properties", {}) if isinstance(schema, dict) else None
    if not isinstance(given, dict):
        return None
    return given if all(_plain(each) for each in given.values()) else None


def _plain(said: object) -> bool:
    if not isinstance(said, dict) or said.keys() - {"type", "description", "enum"}:
        return False
    items = said.get("enum", [])
    return isinstance(said.get("type"), str) and isinstance(said.get("description"), str) and isinstance(items, list) and all(
        isinstance(each, str) for each in items
    )


def _unended(text: str) -> str:
    return text.removesuffix(".")
