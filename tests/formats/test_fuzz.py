"""Recorded streams of every shape, damaged at random: readers and splices end in faults only, and no cut changes how.

FUZZ=20000 asks for more examples (`make fuzz`). SSE, AWS event streams and Ollama's lines are all among the recorded ones.
"""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.shapes import CALL, NOW, asked, other, recorded, shape_of
from formats.test_cuts import outcome, pieces
from llm_gateway.formats.crossing import Crossing

EXAMPLES = int(os.environ.get("FUZZ", "150"))
STREAMS = [one for one in recorded(streaming=True) if one.status < 400 and len(one.body) < 16 << 10]
WORDS = (
    b"\n", b"\r", b"\n\n", b"data: ", b"data:", b"event: error\n", b": x\n", b"[DONE]", b"{", b"}", b"]", b'"', b"null", b"1e999", b"\0", b"\xff\xfe",
    b"\xed\xa0\x80", b'{"error":{"message":"x"}}', b'"usage":null', b'"choices":[]', b"\\u0000", b"\\ud800", b"[" * 2000,
)  # fmt: skip


def damaged(body: bytes, dice: random.Random) -> bytes:
    data = bytearray(body)
    for _ in range(dice.randint(0, 5)):
        at = dice.randrange(len(data) + 1)
        match dice.randrange(5):
            case 0:
                data[at:at] = dice.choice(WORDS)
            case 1:
                del data[at : at + dice.randint(1, 200)]
            case 2:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                data[at:at] = data[at : at + dice.randint(1, 300)]
            case _:
                del data[at:]
    return bytes(data)


@pytest.mark.skipif(not STREAMS, reason="the recorded traffic is not here")
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 1 << 40))
def test_a_damaged_stream_ends_in_a_fault_or_well_however_it_is_cut(seed: int) -> None:
    dice = random.Random(seed)
    interaction = dice.choice(STREAMS)
    shape, body = shape_of(interaction), damaged(interaction.body, dice)
    for passage in (lambda: shape.splice(asked()), lambda: Crossing(shape.stream_reader(), other(shape).stream_writer(CALL, NOW))):
        (whole, known), (cut, also) = outcome(passage(), [body]), outcome(passage(), pieces(body, seed))
        assert known == also
        assert cut.translate(None, b"\r\n") == whole.translate(None, b"\r\n"), "blank lines between events are nobody's"
