from __future__ import annotations

import asyncio
import socket

import msgspec

from llm_gateway.supervisor.channel import HEADER
from llm_gateway.supervisor.counting import MOST_CHARACTERS, Ask, Counted, TokenCounter


async def test_every_count_is_an_outcome():
    counter = TokenCounter()
    assert await counter.count("o200k_base", ["a"]) is None  # nobody is there
    ours, theirs = socket.socketpair()
    with theirs:
        await counter.connect(asyncio.get_running_loop(), ours)
        assert await counter.count("o200k_base", ["a" * (MOST_CHARACTERS + 1)]) is None
        assert await counter.count("o200k_base", ["a"]) is None  # nobody answers
        asked = asyncio.create_task(counter.count("o200k_base", ["b"]))
        await asyncio.sleep(0.01)
        sent = theirs.recv(4096)
        sent = sent[HEADER + int.from_bytes(sent[:HEADER], "big") :]  # the one before is nobody's any more
        ask = msgspec.msgpack.decode(sent[HEADER:], type=Ask)
        said = msgspec.msgpack.encode(Counted(ask.serial, 7))
        theirs.sendall(len(said).to_bytes(HEADER, "big") + said)
        assert await asked == 7
    assert counter.outcomes == {"exact": 1, "late": 1, "away": 1, "full": 0, "large": 1}
