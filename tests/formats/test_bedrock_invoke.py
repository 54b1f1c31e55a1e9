"""Claude's own events out of Bedrock's frames: every recorded stream, as if Anthropic had sent it."""

from __future__ import annotations

import base64
import json
import random

import pytest

from formats.bedrock import exception, frame, recorded
from formats.shapes import CALL, SHAPES, asked
from formats.test_recorded import texts
from llm_gateway.core import sse
from llm_gateway.core.errors import Kind
from llm_gateway.formats.crossing import Crossing
from llm_gateway.formats.unframed import Unframed
from replay.recordings import cut

ANTHROPIC, OPENAI = SHAPES["messages"], SHAPES["chat_completions"]
STREAMS = [one for one in recorded("invoke-stream") if one.status == 200 and "claude" in one.row["model"]]
OTHERS = [one for one in recorded("invoke-stream") if one.status == 200 and "claude" not in one.row["model"]]
REPLIES = [one for one in recorded("invoke") if one.status == 200 and "anthropic.claude" in one.row["model"]]


def each(interactions):
    return pytest.mark.parametrize("interaction", interactions, ids=[one.id for one in interactions])


def chunk(**event) -> bytes:
    return frame("chunk", bytes=base64.b64encode(json.dumps(event).encode()).decode(), p="abcd")


def newer(interaction) -> bool:
    """Whether it speaks the Messages API; the first Claudes had another."""
    return "messages" in (interaction.request or {})


def test_there_is_traffic():
    if not STREAMS:
        pytest.skip("no recorded traffic")
    assert sum(newer(one) for one in STREAMS) >= 5
    assert len(REPLIES) >= 8


@each([one for one in STREAMS if newer(one)])
def test_a_recorded_stream_is_a_stream_of_messages(interaction):
    body = interaction.body
    whole = Unframed(ANTHROPIC.splice(asked()))
    told = whole.feed(body)
    assert whole.ended
    assert whole.usage is not None
    assert whole.usage.output > 0
    told += whole.tail(None)
    kinds = [json.loads(sse.payload(event))["type"] for event in sse.split(told)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    for how in ("bytes:1", "random:3", "bytes:4096"):
        passage = Unframed(ANTHROPIC.splice(asked()))
        passed = b"".join(passage.feed(piece) for piece in cut(body, how))
        assert passed + passage.tail(None) == told
        assert (passage.usage, passage.finish, passage.characters) == (whole.usage, whole.finish, whole.characters)


@each([one for one in STREAMS if newer(one)])
def test_a_recorded_stream_crosses(interaction):
    plain = Unframed(ANTHROPIC.splice(asked()))
    events = plain.feed(interaction.body) + plain.tail(None)
    passage = Unframed(Crossing(ANTHROPIC.stream_reader(), OPENAI.stream_writer(CALL)))
    crossed = passage.feed(interaction.body) + passage.tail(None)
    assert passage.ended
    assert texts(OPENAI, crossed) == texts(ANTHROPIC, events)


@each([one for one in STREAMS if newer(one)])
def test_a_stream_that_stops_early_is_cut(interaction):
    body = interaction.body
    for at in random.Random(5).sample(range(len(body) - 1), 20):
        passage = Unframed(ANTHROPIC.splice(asked()))
        passage.feed(body[:at])
        passage.close()
        assert passage.ended or passage.failed is not None
        assert not (passage.ended and passage.finish is None)


@each([one for one in REPLIES if newer(one)])
def test_a_recorded_reply_is_a_message(interaction):
    assert ANTHROPIC.summarise(interaction.body).usage is not None
    assert ANTHROPIC.read_reply(interaction.body).choices


@each([one for one in [*STREAMS, *OTHERS] if not newer(one)])
def test_a_stream_of_another_api_is_a_fault(interaction):
    passage = Unframed(ANTHROPIC.splice(asked()))
    assert passage.feed(interaction.body) == b""
    assert passage.failed is not None
    assert passage.failed.kind is Kind.UPSTREAM_BROKEN


def test_an_exception_ends_the_stream():
    passage = Unframed(ANTHROPIC.splice(asked()))
    start = chunk(type="message_start", message={"id": "m", "usage": {"input_tokens": 1}})
    told = passage.feed(start + exception("throttlingException", "slow down") + start)
    assert told.count(b"event: ") == 1
    assert passage.failed is not None
    assert passage.failed.kind is Kind.UPSTREAM_RATE_LIMIT
    assert passage.feed(start) == b""
    assert passage.close() == b""
    assert b"event: error" in passage.fail(passage.failed)
    assert passage.heartbeat().startswith(b"event: ping")


@pytest.mark.parametrize(
    "data",
    [frame("chunk", bytes="%%"), frame("chunk", other=1), frame("chunk", bytes=base64.b64encode(b"{").decode()),
     frame("chunk", bytes=base64.b64encode(b'{"type":"a\\nb"}').decode()), b"HTTP/1.1 502 Bad Gateway\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_event_is_a_fault(data):
    passage = Unframed(ANTHROPIC.splice(asked()))
    assert passage.feed(data) == b""
    assert passage.failed is not None
    assert passage.failed.kind is Kind.UPSTREAM_BROKEN


def test_a_line_break_in_an_event_cannot_make_two():
    data = frame("chunk", bytes=base64.b64encode(b'{"type":"ping",\n\n"x":1}').decode())
    passage = Unframed(ANTHROPIC.splice(asked()))
    assert passage.feed(data) == b""
    assert passage.failed is not None


def test_frames_of_other_kinds_are_left_out():
    passage = Unframed(ANTHROPIC.splice(asked()))
    assert passage.feed(frame("initial-response")) == b""
    assert (passage.failed, passage.between, passage.meaningful) == (None, True, False)
