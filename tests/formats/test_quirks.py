"""What the replay of recorded traffic brought to light, one small case each."""

from __future__ import annotations

import json

import pytest

from formats.bedrock import CLAUDE, CONVERSE
from formats.shapes import CALL, GEMINI, NOW, SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.events import Finish, PartStart
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.gemini import _usage
from llm_gateway.formats.openai_responses import OpenAIResponses

OPENAI, ANTHROPIC, RESPONSES = SHAPES["chat_completions"], SHAPES["messages"], OpenAIResponses()
USER = {"role": "user", "content": "hi"}


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode()


def called(number, name):
    return {"tool_calls": [{"index": number, "id": f"c{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}]}


@pytest.mark.parametrize("end", [[chunk({"content": ""}, "tool_calls")], [b"data: [DONE]\n\n"], []])
def test_calls_after_the_first_reason_to_end_are_not_lost(end):
    """Z.ai says why it ended with every call."""
    reader = OPENAI.stream_reader()
    events = reader.feed(chunk(called(0, "add"), "tool_calls") + chunk(called(1, "multiply"), "tool_calls") + b"".join(end))
    events += reader.close()
    assert [event.name for event in events if isinstance(event, PartStart)] == ["add", "multiply"]
    assert [event.finish for event in events if isinstance(event, Finish)] == ["tool_calls"]


def test_an_empty_legacy_call_is_none():
    """Snowflake sends every member, those without meaning empty."""
    message = {"role": "assistant", "content": "x", "function_call": {"name": "", "arguments": ""}, "tool_calls": None}
    reply = OPENAI.read_reply(json.dumps({"id": "c", "model": "m", "choices": [{"message": message, "finish_reason": ""}]}).encode())
    assert [type(part).__name__ for part in reply.choices[0].parts] == ["Text"]


def test_what_a_body_lacks_is_named():
    with pytest.raises(Fault) as caught:
        ANTHROPIC.read_request(ANTHROPIC.peek(b'{"model":"claude","messages":[{"role":"user","content":"hi"}]}'))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "max_tokens")


@pytest.mark.parametrize("target", [OPENAI, ANTHROPIC, RESPONSES], ids=lambda shape: shape.name)
def test_a_tool_of_one_shape_is_refused_by_its_place_in_the_request(target):
    bedrock = {"messages": [{"role": "user", "content": [{"text": "hi"}]}], "toolConfig": {"tools": [{"systemTool": {"name": "s"}}]}}
    google = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "tools": [{"googleSearch": {}}]}
    for shape, body, path in ((CONVERSE, bedrock, "toolConfig.tools[0]"), (GEMINI, google, "tools")):
        with pytest.raises(Fault) as caught:
            target.write_request(shape.read_request(shape.peek(json.dumps(body).encode(), "m")), "m")
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, path)


def test_types_by_protobufs_numbers_are_types():
    schema = {"type": 6, "properties": {"place": {"type": 1}, "odd": {"type": 99}}}
    tool = {"functionDeclarations": [{"name": "f", "parameters": schema}]}
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "tools": [tool]}
    sent = OPENAI.write_request(GEMINI.read_request(GEMINI.peek(json.dumps(body).encode(), "m")), "gpt-4o")
    told = json.loads(sent.body)["tools"][0]["function"]["parameters"]
    assert told == {"type": "object", "properties": {"place": {"type": "string"}, "odd": {}}}


def cross(target, model, **fields):
    call = OPENAI.read_request(OPENAI.peek(json.dumps({"model": "m", "messages": [USER], **fields}).encode()))
    sent = target.write_request(call, model)
    return json.loads(sent.body), sent.dropped


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-fable-5", "claude-opus-5-20260801"])
def test_models_that_take_no_sampling_are_sent_none(model):
    asked = {"temperature": 0.7, "top_p": 0.9, "top_k": 5}
    body, dropped = cross(ANTHROPIC, model, **asked)
    assert body.keys().isdisjoint(asked)
    assert dropped == ("temperature", "top_p", "top_k")
    assert cross(ANTHROPIC, model, temperature=1)[1] == ()
    body, dropped = cross(CONVERSE, f"us.anthropic.{model}-v1:0", **asked)
    assert "inferenceConfig" not in body
    assert "additionalModelRequestFields" not in body
    assert dropped == ("temperature", "top_p", "top_k")


def test_models_that_take_sampling_are_sent_it():
    assert cross(ANTHROPIC, "claude-sonnet-4-5", temperature=0.7, top_k=5)[0]["temperature"] == 0.7
    assert cross(CONVERSE, CLAUDE, temperature=0.7)[0]["inferenceConfig"] == {"temperature": 0.7}


def test_a_tier_of_another_service_is_dropped_by_name():
    body, dropped = cross(RESPONSES, "gpt-5", service_tier="on_demand")
    assert "service_tier" not in body
    assert dropped == ("service_tier",)
    assert cross(RESPONSES, "gpt-5", service_tier="flex")[0]["service_tier"] == "flex"


def test_several_texts_of_a_model_are_several_items():
    said = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    body, _ = cross(RESPONSES, "gpt-5", messages=[USER, {"role": "assistant", "content": said}, USER])
    assert body["input"][1:3] == [{"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}]
    again = RESPONSES.read_request(RESPONSES.peek(json.dumps(body).encode()))
    assert [part.text for part in again.messages[1].parts] == ["one", "two"]


def test_a_chunk_whose_total_is_the_sum_of_its_counts_leaves_nothing_out():
    before = {"promptTokenCount": 9, "candidatesTokenCount": 21, "thoughtsTokenCount": 35, "cachedContentTokenCount": 4}
    whole = {"promptTokenCount": 87, "thoughtsTokenCount": 78, "totalTokenCount": 165}
    told = _usage.read(_usage.merged(before, whole))
    assert told is not None
    assert (told.input, told.output, told.reasoning, told.cache_read) == (87, 78, 78, 4)
    partial = {"promptTokenCount": 9, "candidatesTokenCount": 30, "totalTokenCount": 74}
    told = _usage.read(_usage.merged(before, partial))
    assert told is not None
    assert told.output == 65


def test_a_stream_of_calls_that_each_end_it_crosses_whole():
    crossing = Crossing(OPENAI.stream_reader(), ANTHROPIC.stream_writer(CALL, NOW))
    told = crossing.feed(chunk(called(0, "add"), "tool_calls") + chunk(called(1, "multiply"), "tool_calls"))
    told += crossing.feed(b"data: [DONE]\n\n") + crossing.tail(None)
    assert crossing.ended
    assert told.count(b'"tool_use"') == 3  # two blocks, and the reason to stop


@pytest.mark.parametrize("part", ['{"text":"\\ud800"}', '{"text":"\\x"}', '{"text":5}', '{"text":"a","odd":1}', '{"text":null}'])
def test_a_part_that_is_not_just_text_is_looked_at_closely(part):
    body = b'{"contents":[{"role":"user","parts":[{"text":"hi"},%b]}]}' % part.encode()
    try:
        call = GEMINI.read_request(GEMINI.peek(body, "m"))
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, anything but a Fault is not
        return
    assert [getattr(one, "text", None) for one in call.messages[0].parts][:1] == ["hi"]
    assert ("contents[0].parts[1].odd" in call.extras) is ("odd" in part)
