from __future__ import annotations

import msgspec
import pytest

from llm_gateway.core.types import Conversation, Image, Media, Message, Text, Tool, ToolCall
from llm_gateway.models.tokenizers import encoding, prompt
from oracle import tokens


@pytest.mark.parametrize(("model", "vocabulary"), [
    ("gpt-4o-mini", "o200k_base"), ("gpt-4.1", "o200k_base"), ("gpt-5", "o200k_base"), ("o3-mini", "o200k_base"), ("openai/gpt-4o", "o200k_base"),
    ("ft:gpt-4o:org::id", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-4-turbo", "cl100k_base"), ("gpt-3.5-turbo-0125", "cl100k_base"),
    ("gpt-oss-120b", "o200k_base"), ("gpt-44", None), ("o1x", None), ("claude-sonnet-4", None), ("gemini-2.5-pro", None), ("llama", None),
])  # fmt: skip
def test_a_models_name_says_its_vocabulary(model: str, vocabulary: str | None):
    assert encoding(model) == vocabulary


def test_messages_cost_what_the_cookbook_says():
    said = (("system", "Be brief."), ("user", "What is the capital of France?"))
    asked = prompt(Conversation(model="m", messages=tuple(Message(role, (Text(text),)) for role, text in said)), "cl100k_base")
    expected = 3 + sum(3 + tokens(role, "cl100k_base") + tokens(text, "cl100k_base") for role, text in said)
    assert (sum(tokens(text, "cl100k_base") for text in asked.texts) + asked.overhead, asked.exact, asked.media) == (expected, True, 0)


def test_the_cookbooks_own_tool_costs_what_it_says_there():
    """Its example: 101 tokens of gpt-4o and 105 of gpt-4, by its own printed results."""
    schema = {
        "type": "object", "required": ["location"],
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
        },
    }  # fmt: skip
    said = (("system", "You are a helpful assistant that can answer to questions about the weather."),
            ("user", "What's the weather like in San Francisco?"))  # fmt: skip
    tool = Tool("get_current_weather", "Get the current weather in a given location", msgspec.Raw(msgspec.json.encode(schema)))
    call = Conversation(model="m", messages=tuple(Message(role, (Text(text),)) for role, text in said), tools=(tool,))
    for vocabulary, total in (("o200k_base", 101), ("cl100k_base", 105)):
        asked = prompt(call, vocabulary)
        assert (sum(tokens(text, vocabulary) for text in asked.texts) + asked.overhead, asked.exact) == (total, True)


@pytest.mark.parametrize("part", [Image(Media(url="https://a/b.png")), ToolCall("1", "f", "{}")])
def test_what_no_rule_covers_is_not_exact(part):
    assert not prompt(Conversation(model="m", messages=(Message("user", (Text("a"), part)),)), "o200k_base").exact
