"""Shapes that pass: forms cut and joined, usage found, what is missing named, streams ended honestly."""

from __future__ import annotations

import json
from email.parser import BytesParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats import _multipart, jobs
from replay.recordings import Interaction, load

SHAPES = {shape.name: shape for shape in jobs.shapes()}
PIECES = st.dictionaries(st.text("abcdefgh_", min_size=1), st.binary().filter(lambda content: b"--edge" not in content), min_size=1, max_size=6)


def recorded(api: str) -> list[Interaction]:
    try:
        return list(load().select(api=api))
    except FileNotFoundError:
        return []


def written(parts: dict[str, bytes], boundary: bytes = b"edge") -> bytes:
    lines = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\nContent-Type: x/y\r\n\r\n%b\r\n' % (boundary, name.encode(), content)
        for name, content in parts.items()
    ]
    return b"".join(lines) + b"--%b--\r\n" % boundary


@given(PIECES, st.text(min_size=1))
def test_a_form_keeps_every_part_but_the_one_replaced(parts, model):
    form = _multipart.read(written(parts))
    assert {part.name: part.body for part in form.parts} == parts
    joined = _multipart.join(form, "model", model)
    again = BytesParser().parsebytes(b'content-type: multipart/form-data; boundary="edge"\r\n\r\n' + joined)
    names = [part.get_param("name", header="content-disposition") for part in again.get_payload()]
    assert sorted(names) == sorted({*parts, "model"})
    read = _multipart.read(joined)
    assert {part.name: part.body for part in read.parts} == parts | {"model": model.encode()}


@given(st.binary())
def test_rubbish_is_refused_and_nothing_else(body):
    for shape in SHAPES.values():
        for prefix in (b"", b"--edge\r\n", b"{"):
            try:
                shape.peek(prefix + body)
            except Fault as fault:
                assert fault.kind is Kind.INVALID  # noqa: PT017  most rubbish is refused, some may be a request


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("openai_images", {"model": "m"}, "prompt"), ("openai_images", {"model": 5, "prompt": "x"}, "model"),
        ("openai_speech", {"model": "m", "input": "x"}, "voice"), ("openai_speech", {"input": "x", "voice": "v"}, "model"),
        ("openai_moderation", {}, "input"), ("rerank", {"model": "m", "query": "q"}, "documents"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(name, body, param):
    with pytest.raises(Fault) as caught:
        SHAPES[name].peek(json.dumps(body).encode())
    assert caught.value.param == param


def test_the_apis_own_default_model_stands_in():
    assert SHAPES["openai_moderation"].peek(b'{"input":"x"}').model == "omni-moderation-latest"
    assert SHAPES["openai_images"].peek(b'{"prompt":"x"}').model == "dall-e-2"


def test_unknown_members_survive():
    shape = SHAPES["openai_images"]
    sent = json.loads(shape.forward(shape.peek(b'{"prompt":"x","brand_new":{"a":1.0},"model":"a/b"}'), "b").body)
    assert sent == {"prompt": "x", "brand_new": {"a": 1.0}, "model": "b"}


@pytest.mark.parametrize("each", [*recorded("moderations"), *recorded("images")], ids=lambda each: each.id)
def test_recorded_replies_are_read(each):
    shape = SHAPES["openai_moderation" if each.row["api"] == "moderations" else "openai_images"]
    shape.peek(json.dumps(each.request).encode())
    if each.status >= 400:
        assert shape.read_error(each.status, each.body).status == each.status
    else:
        assert shape.summarise(each.body).fault is None


def test_a_sound_is_whole_only_if_http_says_so():
    for whole in (True, False):
        flow = SHAPES["openai_speech"].splice(SHAPES["openai_speech"].peek(b'{"model":"m","input":"x","voice":"v"}'))
        assert flow.feed(b"\xff\xfb") == b"\xff\xfb"
        assert not flow.between
        flow.close(whole=whole)
        assert (flow.ended, flow.failed is None) == (whole, whole)
        assert repr(flow) == ("Flow(ended)" if whole else "Flow(failed)")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_stream_of_events_ends_with_its_closing_event(cut):
    shape = SHAPES["openai_transcription"]
    body = b'data: {"type":"transcript.text.delta","delta":"hello"}\n\ndata: {"type":"transcript.text.done","usage":{"input_tokens":3}}\n\n'
    passage = shape.splice(shape.peek(written({"file": b"x", "model": b"m"})))
    passed = passage.feed(body[:cut]) + passage.feed(body[cut:])
    assert not passage.ended
    passed += passage.close()
    assert passage.ended
    assert passed + passage.tail(None) == body
    assert passage.usage.input == 3


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_a_picture_ends_its_stream_however_large_it_is(size):
    shape = SHAPES["openai_images"]
    passage = shape.splice(shape.peek(b'{"prompt":"x","stream":true}'))
    told = b'"usage":{"input_tokens":3,"output_tokens":1056}'
    partial = b'event: image_generation.partial_image\ndata: {"type":"image_generation.partial_image","b64_json":"%b"}\n\n' % (b"x" * size)
    last = b'event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"%b",%b}\n\n' % (b"x" * size, told)
    passed = b"".join(passage.feed((partial + last)[at : at + 16384]) for at in range(0, len(partial + last), 16384))
    passed += passage.close()
    assert passage.ended, passage.failed
    assert passed + passage.tail(None) == partial + last
    assert (passage.usage.input, passage.usage.output) == (3, 1056)


def test_a_stream_without_it_was_cut():
    shape = SHAPES["openai_images"]
    passage = shape.splice(shape.peek(b'{"prompt":"x","stream":true}'))
    passage.feed(b'data: {"type":"image_generation.partial_image"}\n\n')
    passage.close()
    assert passage.failed.kind is Kind.UPSTREAM_CUT


@pytest.mark.parametrize("body", [b'{"text":"hel', b"<!DOCTYPE html><title>Sign in</title>", b" \n<html>", b'{"text":"\xff"}', b"[" * 100_000])
def test_what_is_no_reply_is_said_to_be_none(body):
    for name, shape in SHAPES.items():
        if not (shape.plain and body.startswith(b"[")):
            with pytest.raises(Fault) as caught:
                shape.summarise(body)
            assert caught.value.kind is Kind.UPSTREAM_BROKEN, name


@pytest.mark.parametrize("text", [b"", b"hello\n", b"12\n", b"<b>loud</b>", b"1\n00:00:00,000 --> 00:00:01,000\nhi\n", b"WEBVTT\n\n", b"[music]", b"caf\xe9"])
def test_a_transcript_may_be_any_text(text):
    assert SHAPES["openai_transcription"].summarise(text).fault is None
    assert SHAPES["openai_translation"].summarise(text).usage is None


@pytest.mark.parametrize("before", [b"", b": waiting\n\n", b'data: {"type":"image_generation.partial_image"}\n\n'])
def test_a_stream_that_ends_without_a_word_is_no_reply(before):
    shape = SHAPES["openai_images"]
    passage = shape.splice(shape.peek(b'{"prompt":"x","stream":true}'))
    passage.feed(before + b"data: [DONE]\n\n")
    said = b"partial" in before
    assert (passage.ended, passage.failed and passage.failed.kind) == (said, None if said else Kind.UPSTREAM_BROKEN)
