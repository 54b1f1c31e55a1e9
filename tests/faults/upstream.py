"""The scripted upstream as a process of its own, that can be stopped, killed and counted.

    python upstream.py --host 127.0.0.1 --port 0 [--cert chain.pem]        prints the port it listens on

Law: what it does is `replay.faulty`'s, chosen by the model's name; here stand only what needs a process (counting what was
written, connections left by the other side) and faults too large for others. `GET /seen` answers with the counts, `POST
/told` says what requests for the model `moody` meet from now on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a program: `replay` is a package of the tests' folder

from replay import faulty
from replay.faulty import END, JSON, FaultyUpstream, chunk, event, send, stream_head
from replay.wire import Received, head_bytes

WIDE = "Zürich 東京 🗼 é" * 3


class Upstream(FaultyUpstream):
    def __init__(self) -> None:
        super().__init__()
        self.models: Counter[str] = Counter()
        self.mood = "ok"
        self.left = 0
        self.written = 0

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Received) -> None:
        self.received.clear()
        if request.path == "/seen":
            counts = {"models": self.models, "open": self.open - 1, "left": self.left, "written": self.written}
            body = json.dumps(counts).encode()
            writer.write(head_bytes(200, (JSON, ("content-length", str(len(body))))) + body)
            return
        if request.path == "/told":
            self.mood = request.body.decode()
            writer.write(head_bytes(200, (JSON, ("content-length", "2"))) + b"{}")
            return
        self.models[str(request.json().get("model"))] += 1
        self.gone.clear()
        await super()._play(reader, writer, request)
        self.left += self.gone.is_set()

    async def paced(self, writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
        """`paced:<events>,<seconds between>[,<bytes each>]`: a good stream that takes its time."""
        count, gap, *size = argument.split(",")
        word = "x" * int(size[0]) if size else " word"
        await stream_head(writer)
        for _ in range(int(count)):
            piece = chunk(event(word))
            await send(writer, piece)
            self.written += len(piece)
            await asyncio.sleep(float(gap))
        await send(writer, *map(chunk, END), b"0\r\n\r\n")

    async def wide(self, writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
        """A good stream of letters of many bytes, escaped and raw, one byte a write."""
        await stream_head(writer)
        raw = event("WIDE").replace(b"WIDE", WIDE.encode())
        for byte in b"".join([*map(chunk, (event(WIDE), raw, *END)), b"0\r\n\r\n"]):
            await send(writer, bytes([byte]))

    def _choose(self, request: Received) -> str:
        return self.mood if request.json().get("model") == "moody" else super()._choose(request)

    async def late(self, writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
        """`late:<seconds>,<status>`: that status, after a while."""
        seconds, code = argument.split(",")
        await asyncio.sleep(float(seconds))
        await faulty.status(writer, request, code)

    async def limited(self, writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
        """A 429 whose Retry-After is the argument, whatever it says."""
        head = head_bytes(429, (JSON, ("retry-after", argument), ("content-length", "2")))
        writer.write(head + b"{}")

    async def huge(self, writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
        """A plain reply of so many megabytes, as its head says."""
        size = int(argument) << 20
        writer.write(head_bytes(200, (JSON, ("content-length", str(size)))))
        for _ in range(size >> 16):
            await send(writer, b" " * 65536)
            self.written += 65536


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert")
    chosen = parser.parse_args()
    tls = None
    if chosen.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(chosen.cert)
    upstream = Upstream()
    for each in (upstream.paced, upstream.wide, upstream.late, upstream.limited, upstream.huge):
        faulty.FAULTS[each.__name__] = each
    await upstream.start(chosen.port, chosen.host, tls)
    print(upstream.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
