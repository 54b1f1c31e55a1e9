"""Same shape in and out: what is checked, what is changed, and that nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.sampling import generated
from formats.shapes import SHAPES
from llm_gateway.core.errors import Fault, Kind

OPENAI, ANTHROPIC = SHAPES["chat_completions"], SHAPES["messages"]
BOTH = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
MINIMAL = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def body(**changes) -> bytes:
    return json.dumps({name: value for name, value in {**MINIMAL, **changes}.items() if value is not ...}).encode()


@BOTH
def test_peek_sees_what_routing_needs(shape):
    peek = shape.peek(body(stream=True, unknown={"a": [1.0, None]}))
    assert (peek.model, peek.stream, peek.max_tokens) == ("m", True, 5)
    assert bytes(peek.members["unknown"]) == b'{"a": [1.0, null]}'


@BOTH
@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b"{", None),
        (b'{"model":"m"} x', None),
        (b'{"model":NaN}', None),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None),
        (b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (body(model=...), "model"),
        (body(model=""), "model"),
        (body(model=5), "model"),
        (body(messages=...), "messages"),
        (body(messages=[]), "messages"),
        (body(messages="hi"), "messages"),
        (body(messages=None), "messages"),
        (body(stream="yes"), "stream"),
        (body(stream=1), "stream"),
        (body(max_tokens=0), "max_tokens"),
        (body(max_tokens=-1), "max_tokens"),
        (body(max_tokens="5"), "max_tokens"),
        (body(max_tokens=1.5), "max_tokens"),
    ],
)
def test_peek_refuses_and_names_the_field(shape, wrong, param):
    with pytest.raises(Fault) as caught:
        shape.peek(wrong)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_peek_refuses_stream_options_that_are_no_object():
    with pytest.raises(Fault) as caught:
        OPENAI.peek(body(stream=True, stream_options=[]))
    assert caught.value.param == "stream_options"


@BOTH
@generated(100)
@given(st.binary(max_size=200))
def test_peek_answers_any_bytes_with_a_peek_or_a_fault(shape, anything):
    try:
        shape.peek(anything)
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017  raising is allowed, not asked for


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@BOTH
@generated(100)
@given(
    st.dictionaries(
        st.text(max_size=8).filter(lambda name: name not in {*MINIMAL, "stream", "stream_options"}), JSON, max_size=5
    )
)
def test_forward_keeps_every_unknown_member(shape, extra):
    sent = json.loads(shape.forward(shape.peek(body(**extra)), "other").body)
    assert sent == {**MINIMAL, **extra, "model": "other"}


@BOTH
def test_of_a_repeated_key_the_one_that_was_checked_is_sent(shape):
    twice = b'{"model":"a","model":"b","messages":[{"role":"user","content":"hi"}],"max_tokens":1,"x":1,"x":2}'
    peek = shape.peek(twice)
    sent = shape.forward(peek, peek.model).body
    assert (peek.model, sent.count(b'"model"'), sent.count(b'"x"')) == ("b", 1, 1)
    assert json.loads(sent)["x"] == 2


def test_a_stream_is_asked_for_usage_beside_the_clients_own_options():
    sent = json.loads(
        OPENAI.forward(OPENAI.peek(body(stream=True, stream_options={"include_obfuscation": False})), "m").body
    )
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert "stream_options" not in json.loads(OPENAI.forward(OPENAI.peek(body()), "m").body)
    assert "stream_options" not in json.loads(ANTHROPIC.forward(ANTHROPIC.peek(body(stream=True)), "m").body)


def test_paths_are_relative_to_the_providers_base():
    assert OPENAI.forward(OPENAI.peek(body()), "m").path == "/chat/completions"
    assert ANTHROPIC.forward(ANTHROPIC.peek(body()), "m").path == "/messages"


@pytest.mark.parametrize("junk", [b"", b"<html>", b"[]", b"{}", b'{"id":1}', b'{"choices":5}', b'{"type":"x"}'])
@BOTH
def test_summarise_refuses_what_is_no_reply(shape, junk):
    with pytest.raises(Fault) as caught:
        shape.summarise(junk)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


def test_summarise_finds_an_error_inside_a_200():
    summary = OPENAI.summarise(b'{"error":{"message":"rate","code":429}}')
    assert summary.fault is not None
    assert summary.fault.kind is Kind.UPSTREAM_RATE_LIMIT
    summary = ANTHROPIC.summarise(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    assert summary.fault is not None
    assert summary.fault.kind is Kind.OVERLOADED
