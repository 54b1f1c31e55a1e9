"""However the network cuts a recorded stream, the client gets the same bytes and we learn the same.

`make test` takes a sample of streams, places and seeds; `make replay`, which CI runs as well, takes all of them.
"""

from __future__ import annotations

import random

from formats.sampling import EVERY_CUT, each
from formats.shapes import CALL, NOW, asked, other, recorded, shape_of
from llm_gateway.core import sse
from llm_gateway.formats._incoming import Incoming
from llm_gateway.formats.crossing import Crossing

STREAMS = [one for one in recorded(streaming=True) if one.status < 400]
HEAD, FOOT = 4096, 2048
STRIDE, SEEDS, BYTES = (1, 1, None) if EVERY_CUT else (7, 5, 16 << 10)
PEEK = asked()


def outcome(passage, pieces):
    passed = [passage.feed(piece) for piece in pieces]
    passed.append(passage.close())
    fault = passage.failed and (passage.failed.kind, passage.failed.message)
    passed.append(b"" if fault else passage.tail(0.125))
    known = (
        passage.usage,
        passage.finish,
        passage.meaningful,
        passage.ended,
        passage.characters,
        passage.between,
        fault,
    )
    return b"".join(passed), known


def pieces(body, seed):
    """A seed's own scale: from a few bytes a piece up to several events a piece."""
    dice, most, start = random.Random(seed), 128 << (seed % 6), 0
    while start < len(body):
        size = dice.randint(1, most)
        yield body[start : start + size]
        start += size


def passages(shape):
    return (
        lambda: shape.splice(asked()),
        lambda: shape.splice(asked(usage=False)),
        lambda: Crossing(shape.stream_reader(), other(shape).stream_writer(CALL, NOW)),
    )


@each(STREAMS)
def test_byte_by_byte_and_in_twenty_random_ways(interaction):
    body = interaction.body
    splice, quiet, crossing = passages(shape_of(interaction))
    for passage, seeds in ((splice, range(0, 10, SEEDS)), (quiet, range(10, 13, SEEDS)), (crossing, range(13, 20, SEEDS))):
        whole = outcome(passage(), [body])
        for seed in seeds:
            assert outcome(passage(), pieces(body, seed)) == whole, seed
    body = body[:BYTES]
    assert outcome(splice(), (body[at : at + 1] for at in range(len(body)))) == outcome(splice(), [body])
    short = body[:HEAD]
    assert outcome(crossing(), (short[at : at + 1] for at in range(len(short)))) == outcome(crossing(), [short])


@each(STREAMS)
def test_at_every_byte_of_its_beginning_and_end(interaction):
    """A cut matters to the event that it is in: each event of the first 4 KiB and the last 2 KiB is cut at every byte,
    through a fresh splice and through the readers' front half."""
    shape = shape_of(interaction)
    last = len(interaction.body)
    start = 0
    for event in sse.split(interaction.body):
        places = [at for at in range(1, len(event)) if start + at < HEAD or start + at >= last - FOOT]
        start += len(event)
        places = [at for at in places if at % STRIDE == 0 or at < 8 or at > len(event) - 8]
        if len(event) > HEAD:  # one long event, read whole for each cut: a sample of places, and all around its ends
            places = [at for at in places if at % 97 == 0 or at < 64 or at > len(event) - 64]
        assert differing(shape, event, places) == []


def differing(shape, event, places):
    """Where a cut of the event changes what comes out or what is known."""
    whole, seen = shape.splice(PEEK), Incoming().feed(event)
    passed = whole.feed(event)
    known = (whole.usage, whole.finish, whole.meaningful, whole.ended, whole.characters)
    found = []
    for place in places:
        splice = shape.splice(PEEK)
        first, second = event[:place], event[place:]
        same = splice.feed(first) + splice.feed(second) == passed
        if place < 64 or place > len(event) - 64:
            incoming = Incoming()
            same = same and incoming.feed(first) + incoming.feed(second) == seen
        if not same or known != (splice.usage, splice.finish, splice.meaningful, splice.ended, splice.characters):
            found.append(place)
    return found
