"""Counting tokens: recorded questions and answers of both shapes, crossed both ways."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.bedrock import complaints, reply_by_boto
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.counting import AnthropicCount, Count, GeminiCount
from llm_gateway.formats.counting_bedrock import BedrockCount
from replay.recordings import Interaction, load

ANTHROPIC, GEMINI, BEDROCK = AnthropicCount(), GeminiCount(), BedrockCount()


def recorded(provider: str) -> list[Interaction]:
    try:
        return list(load().select(api="count_tokens", provider=provider))
    except FileNotFoundError:
        return []


@pytest.mark.parametrize("each", recorded("anthropic"), ids=lambda each: each.id)
def test_anthropics_question_becomes_geminis(each):
    peek = ANTHROPIC.peek(json.dumps(each.request).encode())
    assert ANTHROPIC.forward(peek, each.request["model"]).path == "/messages/count_tokens"
    sent = GEMINI.write_request(ANTHROPIC.read_request(peek), "gemini-2.5-flash")
    assert sent.path == "/models/gemini-2.5-flash:countTokens"
    inner = json.loads(sent.body)["generateContentRequest"]
    assert inner == {"model": "models/gemini-2.5-flash", "contents": [
        {"role": "user", "parts": [{"text": each.request["messages"][0]["content"][0]["text"]}]}]}  # fmt: skip
    if each.status == 200:
        assert ANTHROPIC.read_reply(each.body) == Count(14)


@pytest.mark.parametrize("each", [*recorded("gemini"), *recorded("vertex")], ids=lambda each: each.id)
def test_geminis_question_becomes_anthropics(each):
    peek = GEMINI.peek(json.dumps(each.request).encode(), "m")
    same = json.loads(GEMINI.forward(peek, "gemini-x").body)
    assert same == json.loads(json.dumps(each.request).replace("models/gemini-3.5-flash", "models/gemini-x"))
    if "tools" not in each.request:
        sent = json.loads(ANTHROPIC.write_request(GEMINI.read_request(peek), "claude-haiku-4-5").body)
        assert sent.keys() == {"model", "messages"}
    if each.status == 200:
        assert GEMINI.read_reply(each.body).input in {8, 13}
        assert json.loads(ANTHROPIC.write_reply(GEMINI.read_reply(each.body), None).body)["input_tokens"] in {8, 13}


def test_what_generates_is_left_out():
    asked = {"contents": [{"parts": [{"text": "hi"}]}], "systemInstruction": {"parts": [{"text": "be brief"}]}}
    sent = json.loads(ANTHROPIC.write_request(GEMINI.read_request(GEMINI.peek(json.dumps(asked).encode(), "m")), "claude-haiku-4-5").body)
    assert sent == {"model": "claude-haiku-4-5", "system": "be brief", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"totalTokens":-1}', b'{"totalTokens":"8"}', b'{"totalTokens":true}'])
def test_a_reply_that_counts_nothing_is_broken(body):
    if body == b"{}":
        assert GEMINI.read_reply(body) == Count(0)  # protobuf leaves zeros out
        return
    with pytest.raises(Fault) as caught:
        GEMINI.read_reply(body)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


@given(st.binary())
def test_rubbish_is_a_fault(body):
    for shape in (ANTHROPIC, GEMINI, BEDROCK):
        for piece in (body, b'{"model":"m","messages":' + body, b'{"generateContentRequest":' + body, b'{"input":{"converse":{"messages":' + body):
            try:
                shape.read_request(shape.peek(piece, "m"))
            except Fault as fault:
                assert fault.kind is Kind.INVALID  # noqa: PT017  some rubbish is a request


@pytest.mark.parametrize("each", recorded("bedrock"), ids=lambda each: each.id)
def test_bedrocks_question_becomes_the_others(each):
    body = json.dumps(each.request).encode()
    peek = BEDROCK.peek(body, "us.anthropic.claude-sonnet-4-20250514-v1:0")
    sent = BEDROCK.forward(peek, peek.model)
    assert (sent.path, json.loads(sent.body)) == ("/model/anthropic.claude-sonnet-4-20250514-v1%3A0/count-tokens", each.request)
    call = BEDROCK.read_request(peek)
    assert json.loads(ANTHROPIC.write_request(call, "claude-haiku-4-5").body) == {
        "model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hello"}]}  # fmt: skip
    assert json.loads(GEMINI.write_request(call, "m").body)["generateContentRequest"]["contents"] == [{"role": "user", "parts": [{"text": "hello"}]}]
    assert json.loads(BEDROCK.write_request(call, "m").body) == {"input": {"converse": {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}}}


def test_others_questions_become_bedrocks():
    tool = {"name": "look", "input_schema": {"type": "object"}}
    asked = {"model": "m", "system": "be brief", "messages": [{"role": "user", "content": "hi"}], "tools": [tool], "temperature": 0.5}
    sent = BEDROCK.write_request(ANTHROPIC.read_request(ANTHROPIC.peek(json.dumps(asked).encode())), "global.anthropic.claude-haiku-4-5-v1:0")
    assert sent.path == "/model/anthropic.claude-haiku-4-5-v1%3A0/count-tokens"
    inner = json.loads(sent.body)["input"]["converse"]
    assert inner.keys() == {"system", "messages", "toolConfig"}  # nothing of what only generates
    assert complaints(json.loads(sent.body), "CountTokens") == ""
    assert json.loads(ANTHROPIC.write_reply(BEDROCK.read_reply(b'{"inputTokens": 14}'), None).body) == {"input_tokens": 14}
    assert reply_by_boto(BEDROCK.write_reply(Count(14), None).body, name="CountTokens")["inputTokens"] == 14


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({}, "input"),
        ({"converse": {"messages": [{}]}, "invokeModel": {"body": ""}}, "input"),
        ({"converse": {"messages": []}}, "messages"),
        ({"invokeModel": {"body": "no base64!"}}, "input.invokeModel.body"),
        ({"invokeModel": {}}, "input.invokeModel.body"),
        ({"invokeModel": {"body": base64.b64encode(b'{"inputText": "hi"}').decode()}}, "input.invokeModel.body"),
    ],
)
def test_what_cannot_be_counted_is_refused(given, param):
    with pytest.raises(Fault) as caught:
        BEDROCK.read_request(BEDROCK.peek(json.dumps({"input": given}).encode(), "m"))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)
