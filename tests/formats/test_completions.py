"""Legacy completions: recorded ones read, cut and passed; prompts that become messages, and conversations that become prompts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion as OpenAICompletion

from formats.shapes import SHAPES
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Completion
from llm_gateway.formats.completions import Completions
from llm_gateway.formats.crossing import Crossing
from replay.recordings import Interaction, load

SHAPE, CHAT = Completions(), SHAPES["chat_completions"]


def recorded(**wanted: object) -> list[Interaction]:
    try:
        return list(load().select(api="completions", **wanted))
    except FileNotFoundError:
        return []


def whole(streaming: bool) -> list[Interaction]:
    return [each for each in recorded(streaming=streaming) if each.status == 200]


def said(reply: Completion) -> str:
    return "".join(part.text for choice in reply.choices for part in choice.parts)


@pytest.mark.parametrize("each", whole(False), ids=lambda each: each.id)
def test_recorded_replies_are_read_and_written(each):
    summary, reply = SHAPE.summarise(each.body), SHAPE.read_reply(each.body)
    wanted = json.loads(each.body)
    assert said(reply) == "".join(choice["text"] for choice in wanted["choices"])
    assert summary.usage == reply.usage
    assert reply.usage.output == wanted["usage"]["completion_tokens"]
    written = OpenAICompletion.model_validate_json(SHAPE.write_reply(reply, None, 7).body, strict=True)
    assert [choice.text for choice in written.choices] == [choice["text"] for choice in wanted["choices"]]


@pytest.mark.parametrize("each", whole(True), ids=lambda each: each.id)
def test_recorded_streams_pass_and_cross_at_every_cut(each):
    chunks = [json.loads(line[6:]) for line in each.body.decode().splitlines() if line.startswith("data: {")]
    text = "".join(choice.get("text") or "" for chunk in chunks for choice in chunk["choices"])
    request = json.dumps({"model": "m", "prompt": "x", "stream": True, "stream_options": {"include_usage": True}}).encode()
    for cut in range(0, len(each.body), max(1, len(each.body) // 200)):
        splice = SHAPE.splice(SHAPE.peek(request))
        passed = splice.feed(each.body[:cut]) + splice.feed(each.body[cut:]) + splice.close()
        assert splice.ended, repr(splice)
        assert passed + splice.tail(None) == each.body
        assert splice.characters == len(text)
        crossing = Crossing(SHAPE.stream_reader(), SHAPE.stream_writer(SHAPE.read_request(SHAPE.peek(request)), 7))
        out = crossing.feed(each.body[:cut]) + crossing.feed(each.body[cut:]) + crossing.close() + crossing.tail(0.5)
        parsed = [OpenAICompletion.construct(**json.loads(line[6:])) for line in out.splitlines() if line.startswith(b"data: {")]
        assert "".join(choice.text for chunk in parsed for choice in chunk.choices) == text
        assert out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("each", [each for each in recorded() if each.status >= 400], ids=lambda each: each.id)
def test_recorded_errors_keep_their_words(each):
    fault = SHAPE.read_error(each.status, each.body)
    assert fault.status == each.status
    assert fault.kind is Kind.UPSTREAM_AUTH or fault.message == json.loads(each.body)["error"]["message"]


@pytest.mark.parametrize("each", recorded(), ids=lambda each: each.id)
def test_recorded_requests_pass_untouched(each):
    body = {"model": "m", **each.request}
    sent = SHAPE.forward(SHAPE.peek(json.dumps(body).encode()), "other")
    added = {"stream_options": {"include_usage": True}} if body.get("stream") else {}
    assert (json.loads(sent.body), sent.path) == (body | {"model": "other"} | added, "/completions")


def to_chat(**fields):
    sent = CHAT.write_request(SHAPE.read_request(SHAPE.peek(json.dumps({"model": "m", "prompt": "Once", **fields}).encode())), "gpt-4o")
    return json.loads(sent.body), sent.dropped


def test_a_prompt_becomes_a_message_with_the_apis_default_length():
    body, dropped = to_chat(temperature=0.5, stop="\n", n=2)
    assert body["messages"] == [{"role": "user", "content": "Once"}]
    assert (body["max_completion_tokens"], body["stop"], body["n"], dropped) == (16, ["\n"], 2, ())
    assert to_chat(best_of=3, logprobs=2, max_tokens=5)[1] == ("best_of", "logprobs")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": [1, 2]}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": 5}, "prompt"),
        ({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"), ({"n": 0}, "n"), ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"), ({"stream": 1}, "stream"), ({"stop": [1]}, "stop[0]"),
    ],
)  # fmt: skip
def test_bad_input_is_named(fields, param):
    with pytest.raises(Fault) as caught:
        to_chat(**fields)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def from_chat(*messages, **fields):
    body = json.dumps({"model": "m", "messages": list(messages), **fields}).encode()
    return json.loads(SHAPE.write_request(CHAT.read_request(CHAT.peek(body)), "gpt-3.5-turbo-instruct").body)


def test_a_question_becomes_a_prompt_and_a_dialogue_is_refused():
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}
    assert from_chat(system, user, max_tokens=9) == {"model": "gpt-3.5-turbo-instruct", "prompt": "Be brief.\n\nWhy?", "max_tokens": 9}
    with pytest.raises(Fault, match="what was said before"):
        from_chat(user, {"role": "assistant", "content": "Because."}, user)
    with pytest.raises(Fault, match="tools"):
        from_chat(user, tools=[{"type": "function", "function": {"name": "f"}}])


@given(st.binary())
def test_rubbish_is_a_fault(body):
    for piece in (body, b'{"model":"m","prompt":' + body):
        try:
            SHAPE.read_request(SHAPE.peek(piece))
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017  some rubbish is a request
