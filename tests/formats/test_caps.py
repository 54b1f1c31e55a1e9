"""A limit of output is put where each shape has it, and nothing else of a request changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llm_gateway import wiring
from llm_gateway.formats import caps

SHAPES = wiring.formats()
HELLO = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": HELLO},
    "openai_completions": {"model": "m", "prompt": "hi"},
    "openai_responses": {"model": "m", "input": "hi"},
    "anthropic_messages": {"model": "m", "messages": HELLO, "max_tokens": 9000},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "gemini_array": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "bedrock_converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "ollama_chat": {"model": "m", "messages": HELLO},
    "ollama_generate": {"model": "m", "prompt": "hi"},
}


@pytest.mark.parametrize("shape", sorted(caps.SHAPES))
def test_each_shape_reads_the_limit_that_was_set_and_says_it_to_its_own_upstream(shape: str) -> None:
    form = SHAPES[shape]
    before = form.peek(msgspec.json.encode({**BODIES[shape], "brand_new": [1, 2]}), "m")
    after, name = caps.capped(before, shape, 321, "m")
    sent = form.forward(after, "m").body
    assert form.peek(sent, "m").max_tokens == after.max_tokens == 321
    found: Any = msgspec.json.decode(sent)
    for step in name.split("."):
        found = found[step]
    assert found == 321
    assert msgspec.json.decode(sent)["brand_new"] == [1, 2]


@pytest.mark.parametrize("shape", sorted(caps.SHAPES))
def test_a_crossing_carries_it(shape: str) -> None:
    form = SHAPES[shape]
    peek, _ = caps.capped(form.peek(msgspec.json.encode(BODIES[shape]), "m"), shape, 321, "m")
    call = form.read_request(peek)
    assert call.max_tokens == 321


def test_every_chat_shape_has_a_place_for_it() -> None:
    assert set(BODIES) == caps.SHAPES
    assert {name for name in SHAPES if hasattr(SHAPES[name], "read_steps") and "count" not in name} - caps.SHAPES == set()


@pytest.mark.parametrize(
    ("model", "said", "name"),
    [
        ("gpt-4o", {}, "max_completion_tokens"),
        ("openai/o3", {}, "max_completion_tokens"),
        ("llama-3", {}, "max_tokens"),
        ("gpt-oss-120b", {}, "max_tokens"),
        ("llama-3", {"max_completion_tokens": 9000}, "max_completion_tokens"),
        ("gpt-4o", {"max_tokens": 9000}, "max_tokens"),
        ("gpt-4o", {"max_tokens": None}, "max_completion_tokens"),
    ],
)
def test_the_member_that_the_caller_used_is_the_one_that_is_set(model: str, said: dict[str, Any], name: str) -> None:
    form = SHAPES["openai_chat"]
    peek = form.peek(msgspec.json.encode({**BODIES["openai_chat"], **said}))
    capped, where = caps.capped(peek, "openai_chat", 100, model)
    assert where == name
    assert msgspec.json.decode(capped.members[name]) == 100
    assert [each for each in ("max_completion_tokens", "max_tokens") if capped.members.get(each, msgspec.Raw(b"null")) != msgspec.Raw(b"null")] == [name]


@pytest.mark.parametrize("padding", ["", "x" * 100_000])
@pytest.mark.parametrize("said", [{"max_completion_tokens": 1, "max_tokens": 9000}, {"max_completion_tokens": 9000, "max_tokens": 1}])
def test_of_two_limits_the_larger_is_the_one_that_counts_and_both_are_set(said: dict[str, int], padding: str) -> None:
    """Services that know only the one do as they are told there."""
    form = SHAPES["openai_chat"]
    peek = form.peek(msgspec.json.encode({**BODIES["openai_chat"], **said, "user": padding}))
    assert peek.max_tokens == 9000
    capped, _ = caps.capped(peek, "openai_chat", 100, "llama-3")
    sent = msgspec.json.decode(form.forward(capped, "llama-3").body)
    assert (sent["max_completion_tokens"], sent["max_tokens"], capped.max_tokens) == (100, 100, 100)


def test_other_options_beside_it_stay() -> None:
    form = SHAPES["gemini"]
    body = {**BODIES["gemini"], "generation_config": {"temperature": 0.5, "max_output_tokens": 7}}
    capped, name = caps.capped(form.peek(msgspec.json.encode(body), "m"), "gemini", 5, "m")
    assert name == "generation_config.max_output_tokens"
    assert msgspec.json.decode(capped.members["generation_config"]) == {"temperature": 0.5, "max_output_tokens": 5}


def test_thoughts_that_were_set_aside_are_known() -> None:
    form = SHAPES["anthropic_messages"]
    body = {**BODIES["anthropic_messages"], "thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert caps.thinking(form.peek(msgspec.json.encode(body)), "anthropic_messages") == 2048
    assert caps.thinking(form.peek(msgspec.json.encode(BODIES["anthropic_messages"])), "anthropic_messages") == 0
    endless = msgspec.json.encode(body).replace(b"2048", b"9" * 5000)
    assert caps.thinking(form.peek(endless), "anthropic_messages") > 1 << 40
