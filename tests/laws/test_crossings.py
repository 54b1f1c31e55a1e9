"""What a crossing may cost, counted for every pair of shapes: Python calls per translated chunk."""

from __future__ import annotations

import sys

import pytest

from laws.pairs import crossing, pairs, shapes, stream

PYTHON_PER_TRANSLATED = 16  # DESIGN's law 5, with relaying it: so this is what crossing itself may take of it
WORDS = 20


@pytest.mark.parametrize(("client", "upstream"), pairs(), ids=["-from-".join(pair) for pair in pairs()])
def test_a_translated_chunk_costs_few_calls(client, upstream):
    known = shapes()
    told = stream(known[upstream], WORDS)
    passage = crossing(known[client], known[upstream])
    passage.feed(told.opening)
    counts = [calls(passage.feed, word) for word in told.words]
    assert sorted(counts)[len(counts) // 2] <= PYTHON_PER_TRANSLATED, counts
    passage.feed(told.ending)
    passage.close()
    assert passage.ended
    assert passage.characters == len("It" + " word" * WORDS)


def calls(function, argument) -> int:
    counted = 0

    def count(_frame, what, _argument):
        nonlocal counted
        counted += what == "call"

    sys.setprofile(count)
    try:
        function(argument)
    finally:
        sys.setprofile(None)
    return counted
