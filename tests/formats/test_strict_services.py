"""What one API lets its clients say and another refuses: a crossing says it so that it is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest

from formats.shapes import SHAPES
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, ANTHROPIC, RESPONSES = SHAPES["chat_completions"], SHAPES["messages"], OpenAIResponses()
USER = {"role": "user", "content": "hi"}


def crossed(source: Any, target: Any, model: str, **fields: Any) -> dict[str, Any]:
    call = source.read_request(source.peek(json.dumps({"model": "m", **fields}).encode()))
    return json.loads(target.write_request(call, model).body)


@pytest.mark.parametrize(("model", "role"), [("deepseek-chat", "system"), ("meta-llama/Llama-4", "system"), ("gpt-5", "developer"), ("openai/o3", "developer")])
def test_developers_are_the_system_where_only_openai_knows_them(model: str, role: str) -> None:
    """Codex says most of its instructions so; DeepSeek: "unknown variant `developer`, expected one of `system`, `user`, ..."."""
    said = [{"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be brief"}]}, USER]
    body = crossed(RESPONSES, OPENAI, model, instructions="be kind", input=said)
    assert [message["role"] for message in body["messages"]] == ["system", role, "user"]


@pytest.mark.parametrize("blank", [" ", "\n\n", "\t"])
def test_a_model_that_said_nothing_but_white_space_is_not_quoted_to_anthropic(blank: str) -> None:
    """ "text content blocks must contain non-whitespace text": what many open models say before they call a tool."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        {"role": "system", "content": blank}, USER, {"role": "assistant", "content": blank, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"}, {"role": "assistant", "content": blank}, USER,
    ]  # fmt: skip
    body = crossed(OPENAI, ANTHROPIC, "claude-sonnet-4-5", messages=said)
    assert "system" not in body
    assert [[block["type"] for block in message["content"]] for message in body["messages"][1:]] == [["tool_use"], ["tool_result", "text"]]


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "additionalProperties": False}])
@pytest.mark.parametrize("target", [OPENAI, RESPONSES], ids=lambda shape: shape.name)
def test_a_tool_that_takes_nothing_has_properties_for_openai(target: Any, schema: dict[str, Any]) -> None:
    """ "In context=(), object schema missing properties", for how MCP servers declare such tools and Anthropic takes them."""
    tool = {"name": "now", "input_schema": schema}
    (told,) = crossed(ANTHROPIC, target, "gpt-5", max_tokens=99, messages=[USER], tools=[tool])["tools"]
    assert (told.get("function") or told)["parameters"] == {**schema, "properties": {}}


@pytest.mark.parametrize("schema", ['{"type": "object", "properties" : {}}', '{"anyOf":[ ]}', '{"$ref":"#/x"}', "true"])
def test_other_schemas_keep_their_bytes(schema: str) -> None:
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","input_schema":%b}]}' % schema.encode()
    call = ANTHROPIC.read_request(ANTHROPIC.peek(body))
    for target in (OPENAI, RESPONSES):
        assert b'"parameters":%b' % schema.encode() in target.write_request(call, "gpt-5").body


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-4.1-mini", "gpt-3.5-turbo", "chatgpt-4o-latest", "gpt-5-chat-latest", "gpt-5.2-chat-latest"])
@pytest.mark.parametrize("target", [OPENAI, RESPONSES], ids=lambda shape: shape.name)
def test_a_model_of_openai_that_does_not_think_is_not_told_how_much(target: Any, model: str) -> None:
    """ "Unrecognized request argument supplied: reasoning_effort": Claude Code asks for thoughts unasked."""
    asked = {"max_tokens": 9999, "thinking": {"type": "enabled", "budget_tokens": 4000}, "temperature": 0.5}
    call = ANTHROPIC.read_request(ANTHROPIC.peek(json.dumps({"model": "m", "messages": [USER], **asked}).encode()))
    sent = target.write_request(call, model)
    body = json.loads(sent.body)
    assert body.keys().isdisjoint({"reasoning_effort", "reasoning"})
    assert (body["temperature"], sent.dropped) == (0.5, ("thinking",))


@pytest.mark.parametrize(
    ("model", "effort", "taken"),
    [
        ("gpt-5", None, False), ("gpt-5-mini", "low", False), ("openai/o3", None, False), ("o4-mini", "low", False), ("gpt-5.4", None, False),
        ("gpt-5.1", None, True), ("gpt-5.4", "none", True), ("gpt-5.1", "high", False), ("gpt-4o", None, True), ("gpt-5-chat-latest", None, True),
        ("gpt-oss-120b", "low", True), ("deepseek-chat", "high", True),
    ],
)  # fmt: skip
def test_a_model_of_openai_that_thinks_is_not_told_how_to_sample(model: str, effort: str | None, taken: bool) -> None:
    """ "Unsupported value: 'temperature' does not support 0.5 with this model"."""
    asked = {"temperature": 0.5, "top_p": 0.5, "presence_penalty": 0.5, "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 2}, "stop": ["x"]}
    said = {"model": "m", "messages": [USER], "frequency_penalty": 0, **asked, **({"reasoning_effort": effort} if effort else {})}
    call = OPENAI.read_request(OPENAI.peek(json.dumps(said).encode()))
    sent = OPENAI.write_request(call, model)
    body = json.loads(sent.body)
    assert {field for field in asked if field in body} == (asked.keys() if taken else set())
    assert set(sent.dropped) == (set() if taken else asked.keys())
    assert body.get("reasoning_effort") == effort
    body = json.loads(RESPONSES.write_request(call, model).body)
    assert ("temperature" in body, "top_p" in body, "top_logprobs" in body) == (taken,) * 3
    assert ("message.output_text.logprobs" in body.get("include", [])) is taken


@pytest.mark.parametrize(("model", "thinks"), [("claude-3-5-haiku-20241022", False), ("claude-3-opus-20240229", False), ("claude-3-7-sonnet-latest", True)])
def test_a_claude_that_cannot_think_is_not_made_to(model: str, thinks: bool) -> None:
    call = OPENAI.read_request(OPENAI.peek(json.dumps({"model": "m", "messages": [USER], "reasoning_effort": "low"}).encode()))
    sent = ANTHROPIC.write_request(call, model)
    assert ("thinking" in json.loads(sent.body)) is thinks
    assert sent.dropped == (() if thinks else ("reasoning_effort",))
