"""Events are found whatever the line ends and wherever the stream is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.core import sse

LINE_ENDS = st.sampled_from([b"\n", b"\r\n"])
LINES = st.sampled_from(
    [b"data: {}", b'data:{"a":"\\n\\n"}', b"event: ping", b": comment", b"data: \xc3\xa9", b"id: 1"]
)


@st.composite
def streams(draw):
    """Events of one to three lines; every line end drawn for itself."""
    stream = b""
    for _ in range(draw(st.integers(1, 5))):
        for line in draw(st.lists(LINES, min_size=1, max_size=3)):
            stream += line + draw(LINE_ENDS)
        stream += draw(LINE_ENDS)
    return stream


@st.composite
def cut_streams(draw):
    stream = draw(streams()) + draw(st.sampled_from([b"", b"data: unfinished", b"\n", b"\r"]))
    edges = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=12)) | {0, len(stream)})
    return stream, [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(cut_streams())
def test_no_cut_loses_or_changes_a_byte(case):
    stream, pieces = case
    blocks = sse.Blocks()
    passed = [blocks.feed(piece) for piece in pieces]
    assert b"".join(passed) + blocks.take() == stream


@given(cut_streams())
def test_every_block_ends_where_an_event_ends_and_the_rest_holds_no_whole_event(case):
    _, pieces = case
    blocks = sse.Blocks()
    for piece in pieces:
        block = blocks.feed(piece)
        assert not block or sse.boundary(block) == len(block)
    assert sse.boundary(blocks.take()) == 0


@given(cut_streams())
def test_the_same_payloads_come_out_of_every_cut(case):
    stream, pieces = case
    blocks = sse.Blocks()
    cut = [sse.payload(event) for piece in pieces for event in sse.split(blocks.feed(piece))]
    whole = [sse.payload(event) for event in sse.split(stream[: sse.boundary(stream)])]
    assert [one for one in cut if one] == [one for one in whole if one]


def test_a_whole_event_passes_as_the_very_object_it_was():
    data = b"data: {}\n\n"
    assert sse.Blocks().feed(data) is data


def test_an_unfinished_event_is_kept_and_counted():
    blocks = sse.Blocks()
    assert blocks.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert blocks.size == len(b"data: b")
    assert blocks.feed(b"\n\n") == b"data: b\n\n"
    assert blocks.size == 0


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data: {}\r\n\r\n", b"{}"),
        (b"event: error\ndata: {}\n\n", b"{}"),
        (b"\ndata: {}\n\n", b"{}"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"id: 1\ndata: a\nevent: x\ndata: b\n\n", b"a\nb"),
        (b": comment\n\n", b""),
        (b"event: ping\n\n", b""),
        (b"data:\n\n", b""),
    ],
)
def test_payload(event, payload):
    assert sse.payload(event) == payload


def test_an_event_that_grows_in_small_pieces_is_joined_once():
    """Ten thousand pieces: were each join a copy of all before it, this would copy a gigabyte."""
    blocks = sse.Blocks()
    piece = b"x" * 100
    assert not any(blocks.feed(piece) for _ in range(10_000))
    assert blocks.size == 1_000_000
    assert len(blocks.feed(b"\n\n")) == 1_000_002
