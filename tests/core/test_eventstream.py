"""Event-stream frames: what botocore reads of ours, what we read of anybody's, and what damage is noticed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.core import eventstream
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.eventstream import Frames, decode, encode

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
MOMENTS = st.integers(-(1 << 40), 1 << 40).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.binary(max_size=200),
    st.uuids(),
    MOMENTS,
)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)
FRAME = encode({":message-type": "event", ":event-type": "contentBlockDelta"}, b'{"delta":{"text":"hi"}}')


@given(HEADERS, st.binary(max_size=500))
def test_a_frame_reads_back_as_it_was_written(headers, payload):
    frame = decode(encode(headers, payload))
    assert frame.headers == headers
    assert frame.payload == payload


def as_botocore_says(value):
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return value.bytes if isinstance(value, UUID) else value


@given(HEADERS, st.binary(max_size=500))
def test_botocore_reads_our_frames(headers, payload):
    buffer = EventStreamBuffer()
    buffer.add_data(encode(headers, payload))
    (event,) = list(buffer)
    assert event.payload == payload
    assert event.headers == {name: as_botocore_says(value) for name, value in headers.items()}


@pytest.mark.parametrize(("kind", "raw", "value"), [(2, b"\xfe", -2), (3, b"\xff\x00", -256)])
def test_short_integers_are_read(kind, raw, value):
    assert decode(eventstream.framed(b"\x01n" + bytes((kind,)) + raw, b"")).headers == {"n": value}


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=80)), max_size=6), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same_frames(told, dice):
    frames = [encode(headers, payload) for headers, payload in told]
    data = b"".join(frames)
    cutter = Frames()
    found: list[bytes] = []
    while data:
        size = dice.randint(1, len(data))
        found += cutter.feed(data[:size])
        data = data[size:]
    assert found == frames
    assert cutter.size == 0
    assert cutter.damage is None


def test_an_unfinished_frame_is_kept():
    cutter = Frames()
    assert cutter.feed(FRAME + FRAME[:20]) == [FRAME]
    assert cutter.size == 20
    assert cutter.rest() == FRAME[:20]
    assert cutter.size == 0


def test_a_frame_that_comes_byte_by_byte_is_joined_once():
    long = encode({}, bytes(300_000))
    cutter = Frames()
    for at in range(len(long) - 1):
        assert not cutter.feed(long[at : at + 1])
    assert cutter.feed(long[-1:]) == [long]


@pytest.mark.parametrize("at", range(len(FRAME)))
def test_every_damaged_byte_is_noticed(at):
    damaged = bytearray(FRAME)
    damaged[at] ^= 0x40
    cutter = Frames()
    frames = cutter.feed(bytes(damaged))
    if cutter.damage is not None:
        assert cutter.damage.kind is Kind.UPSTREAM_BROKEN
        assert cutter.feed(FRAME) == []
        return
    with pytest.raises(Fault) as caught:
        decode(frames[0])
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


def test_frames_before_the_damage_are_told():
    cutter = Frames()
    assert cutter.feed(FRAME + FRAME + b"HTTP/1.1 502 Bad Gateway") == [FRAME, FRAME]
    assert cutter.damage is not None


def prelude(total, headers):
    start = total.to_bytes(4) + headers.to_bytes(4)
    return start + crc32(start).to_bytes(4)


@pytest.mark.parametrize(("total", "headers"), [(15, 0), (0, 0), (20, 8), ((16 << 20) + 1, 0), (300_000, 200_000)])
def test_impossible_lengths_are_refused_before_anything_is_kept(total, headers):
    cutter = Frames()
    assert cutter.feed(prelude(total, headers)) == []
    assert cutter.damage is not None
    assert cutter.size == 0


@pytest.mark.parametrize(
    "block",
    [b"\x05ab", b"\x01a", b"\x01a\x0a", b"\x01a\x07\x00\x05ab", b"\x01a\x09abc", b"\x01a\x05\x00", b"\x02\xff\xfe\x00", b"\x01a\x00\x01a\x01",
     b"\x01a\x08\x7f\xff\xff\xff\xff\xff\xff\xff"],
)  # fmt: skip
def test_damaged_headers_are_refused(block):
    with pytest.raises(Fault) as caught:
        decode(eventstream.framed(block, b""))
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_faults(data):
    cutter = Frames()
    for frame in cutter.feed(data):
        with pytest.raises(Fault):
            decode(frame)
    with pytest.raises(Fault):
        decode(data)


@given(st.binary(max_size=60))
def test_garbage_in_headers_raises_nothing_but_faults(block):
    try:
        found = eventstream.headers(block)
    except Fault:
        return
    assert eventstream.headers(eventstream.encode_headers(found)) == found


@pytest.mark.parametrize(
    ("headers", "payload"),
    [
        ({"": "x"}, b""),
        ({"n" * 256: "x"}, b""),
        ({"n": "x" * 32768}, b""),
        ({"n": 1 << 63}, b""),
        ({}, bytes(16 << 20)),
    ],
)
def test_what_no_frame_can_hold_is_not_written(headers, payload):
    with pytest.raises(ValueError, match=r"^A (frame|header)"):
        encode(headers, payload)


def test_many_frames_in_one_read():
    frames = [encode({"n": at}, random.Random(at).randbytes(at)) for at in range(300)]
    assert Frames().feed(b"".join(frames)) == frames
