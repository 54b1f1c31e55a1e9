"""The service tier a reply was served by, out of every shape that says it, whole and streamed, and out of what was recorded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.sampling import generated
from llm_gateway.core.types import Usage
from llm_gateway.formats import _tiers
from llm_gateway.formats.anthropic_messages import _usage as anthropic
from llm_gateway.formats.anthropic_messages.shape import AnthropicMessages
from llm_gateway.formats.bedrock_converse import _usage as bedrock
from llm_gateway.formats.bedrock_converse import replies as converse
from llm_gateway.formats.gemini import Gemini
from llm_gateway.formats.gemini import _usage as gemini
from llm_gateway.formats.jobs import shapes as jobs
from llm_gateway.formats.openai_chat import OpenAIChat
from llm_gateway.formats.openai_chat.watch import ChatWatch
from llm_gateway.formats.openai_responses import OpenAIResponses
from replay.recordings import folder

COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}


def chat(tier: object) -> bytes:
    return json.dumps({"id": "c", "model": "m", "choices": [CHOICE], "usage": COUNTS, "service_tier": tier}).encode()


@pytest.mark.parametrize(
    ("said", "word"),
    [("flex", "flex"), ("priority", "priority"), ("default", None), ("auto", None), ("", None), (None, None), (7, None), ({"a": 1}, None)],
)
def test_a_chat_completion_says_its_tier(said: object, word: str | None) -> None:
    usage = OpenAIChat().summarise(chat(said)).usage
    assert usage is not None
    assert (usage.tier, usage.input) == (word, 9)


@pytest.mark.parametrize("said", ["flex", "priority"])
def test_a_crossed_chat_completion_says_it_too(said: str) -> None:
    usage = OpenAIChat().read_reply(chat(said)).usage
    assert usage is not None
    assert usage.tier == said


def test_a_stream_says_it_beside_its_usage() -> None:
    watch = ChatWatch(asked=True)
    watch.look(b"data: " + json.dumps({"choices": [], "usage": COUNTS, "service_tier": "flex"}).encode() + b"\n\n")
    assert watch.usage is not None
    assert watch.usage.tier == "flex"


def test_odd_usage_keeps_the_tier() -> None:
    odd = chat("priority").replace(b'"total_tokens": 12', b'"total_tokens": 99, "num_search_queries": 2')
    usage = OpenAIChat().summarise(odd).usage
    assert usage is not None
    assert (usage.tier, usage.searches) == ("priority", 2)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"service_tier": "standard"}, None), ({"service_tier": "priority"}, "priority"), ({"service_tier": "batch"}, "batch"),
        ({"service_tier": "standard", "speed": "fast"}, "fast"), ({"speed": "standard"}, None), ({"speed": ["fast"]}, None),
    ],
)  # fmt: skip
def test_a_message_says_its_tier(fields: dict[str, object], word: str | None) -> None:
    assert anthropic.read({"input_tokens": 1, "output_tokens": 1, **fields}).tier == word
    body = {"type": "message", "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1, **fields}}
    usage = AnthropicMessages().summarise(json.dumps(body).encode()).usage
    assert usage is not None
    assert usage.tier == word


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"serviceTier": "flex"}, "flex"), ({"serviceTier": "standard"}, None), ({"trafficType": "ON_DEMAND"}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"), ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, None),
    ],
)  # fmt: skip
def test_content_says_its_tier(fields: dict[str, object], word: str | None) -> None:
    usage = gemini.read({"promptTokenCount": 1, **fields})
    assert usage is not None
    assert usage.tier == word


@pytest.mark.parametrize(("said", "word"), [({"type": "flex"}, "flex"), ({"type": "default"}, None), ({}, None), (None, None), ("flex", None)])
def test_converse_says_its_tier(said: object, word: str | None) -> None:
    assert bedrock.read({"inputTokens": 1}, said).tier == word


def test_a_converse_reply_says_its_tier() -> None:
    body = {"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": {"inputTokens": 1}, "serviceTier": {"type": "flex"}}
    usage = converse.summarise(json.dumps(body).encode()).usage
    assert usage is not None
    assert usage.tier == "flex"


RECORDED = {
    "openai-chat_completions-plain-5308b8b2a8": "priority",
    "openai-responses-plain-cc8cd16684": "priority flex",
    "openai-responses-stream-7453629652": "flex priority",
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_replies_say_their_tier(name: str) -> None:
    path = folder() / "interactions" / "openai" / f"{name}.json"
    if not path.exists():
        pytest.skip("no recorded traffic here")
    response = json.loads(path.read_text())["response"]
    body = response["body_text"].encode()
    shape = OpenAIChat() if "chat" in name else OpenAIResponses()
    usage: Usage | None
    if "stream" in name:
        usage = next(event.usage for event in shape.stream_reader().feed(body) if hasattr(event, "usage") and event.usage is not None)
    else:
        usage = shape.summarise(body).usage
    assert usage is not None
    assert usage.tier in RECORDED[name].split()


def test_images_made_are_counted_apart() -> None:
    candidates = [{"content": {"parts": [{"text": "here"}]}, "finishReason": "STOP"}]
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 1300, "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]}
    usage = Gemini().summarise(json.dumps({"candidates": candidates, "usageMetadata": counts}).encode()).usage
    assert usage is not None
    assert (usage.output, usage.image_output) == (1300, 1290)
    assert gemini.read(gemini.write(usage)) == usage


@pytest.mark.parametrize(
    ("details", "images"), [({}, 1056), ({"output_tokens_details": {"image_tokens": 1000, "text_tokens": 56}}, 1000)]
)
def test_what_an_image_job_made_is_images_unless_it_says_more(details: dict[str, object], images: int) -> None:
    shape = next(each for each in jobs() if each.name == "openai_images")
    reply = {"created": 1, "data": [{"b64_json": "AA=="}], "usage": {"input_tokens": 10, "output_tokens": 1056, **details}}
    usage = shape.summarise(json.dumps(reply).encode()).usage
    assert usage is not None
    assert (usage.output, usage.image_output) == (1056, images)


@generated(100)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_word_is_too_odd(said: object) -> None:
    assert _tiers.word(said) in {None, "flex", "priority", "fast", "batch"}
