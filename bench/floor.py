"""What a proxy in Python costs at least: three that do nothing but pass requests on, beside nginx, ours, and ours from its cache.

    .venv/bin/python bench/floor.py [--rounds 12]

Law: the same library (uvloop, httptools) and the same requests as ours. `relay` copies bytes between two sockets; `parse` reads both messages
and writes new ones; `task` does it in an asyncio task that waits for the reply in a future. None checks, counts, times or logs anything.
Rounds are a second each, interleaved, and the least is shown beside the median: what others did to the machine can only add.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httptools
import measure
import upstreams
import uvloop
from contest import DRIVER_CORE, Contest, arena
from drive import Door
from peers import PEERS, Launch, Peer, Site
from states import CACHED, EVERYTHING, needs, ours

ROOT = Path(__file__).parents[1]
KINDS = {"relay": "bytes copied", "parse": "both messages parsed and written", "task": "the same in a task"}


class End:
    """One connection, and the message that is read from it."""

    parser: httptools.HttpRequestParser | httptools.HttpResponseParser

    def __init__(self, line: Line) -> None:
        self.line = line
        self.body = b""
        self.headers: dict[bytes, bytes] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def get_buffer(self, _hint: int) -> memoryview:
        return self.line.view

    def buffer_updated(self, count: int) -> None:
        data = self.line.view[:count]
        if self.line.kind == "relay":
            self.copy(bytes(data))
        else:
            self.headers = {}
            self.parser.feed_data(data)

    def copy(self, data: bytes) -> None:
        raise NotImplementedError

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body = body

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, _error: Exception | None) -> None:
        """Nothing is to be let go."""


class Server(End):
    """The upstream's: told whose reply it reads."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.client: Client | None = None
        self.done: asyncio.Future[None] | None = None
        self.parser = httptools.HttpResponseParser(self)

    def on_message_complete(self) -> None:
        if self.done is not None:
            self.done.set_result(None)
        else:
            self.copy(reply(self.body))

    def copy(self, data: bytes) -> None:
        client, self.client = self.client, None
        self.line.idle.append(self)
        if client is not None:
            client.transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        if self in self.line.idle:
            self.line.idle.remove(self)


class Client(End):
    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self.url = b""
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_message_complete(self) -> None:
        if self.line.kind == "task":
            self.task = asyncio.Task(self.serve(), loop=self.line.loop, name="request")
        else:
            self.copy(request(self.url, self.body))

    def copy(self, data: bytes) -> None:
        if self.line.idle:
            server = self.line.idle.pop()
            server.client = self
            server.transport.write(data)
        else:
            self.task = self.line.loop.create_task(self.open(data))

    async def open(self, data: bytes) -> None:
        server = await self.line.dial()
        server.client = self
        server.transport.write(data)

    async def serve(self) -> None:
        server = self.line.idle.pop() if self.line.idle else await self.line.dial()
        server.done = self.line.loop.create_future()
        server.transport.write(request(self.url, self.body))
        await server.done
        server.done = None
        self.line.idle.append(server)
        self.transport.write(reply(server.body))


class Line:
    """One process: whatever all connections share."""

    def __init__(self, kind: str, upstream: int, loop: asyncio.AbstractEventLoop) -> None:
        self.kind, self.upstream, self.loop = kind, upstream, loop
        self.view = memoryview(bytearray(256 << 10))
        self.idle: list[Server] = []

    async def dial(self) -> Server:
        _, server = await self.loop.create_connection(protocol(Server, self), "127.0.0.1", self.upstream)
        return server


def protocol(kind: Callable[[Line], object], line: Line) -> Callable[[], object]:
    """A factory of what the loop takes for a BufferedProtocol."""
    made = type(kind.__name__, (kind, asyncio.BufferedProtocol), {})  # type: ignore[arg-type]
    return lambda: made(line)


def request(url: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: mock\r\ncontent-length: %d\r\n\r\n%b" % (url, len(body), body)


def reply(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def serve(kind: str, port: int, upstream: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(protocol(Client, Line(kind, upstream, loop)), "127.0.0.1", port)
    gc.freeze()
    await asyncio.Event().wait()


def least(kind: str, site: Site) -> Launch:
    return Launch([sys.executable, __file__, "--serve", kind, str(site.port), str(site.upstream.port)], Door(site.port))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "PORT", "UPSTREAM"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        uvloop.run(serve(chosen.serve[0], int(chosen.serve[1]), int(chosen.serve[2])))
        return
    os.sched_setaffinity(0, {DRIVER_CORE % (os.cpu_count() or 1)})
    folder = ROOT / "build/bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contest = Contest(folder)
    nginx, whole = (next(peer for peer in PEERS if peer.name == name) for name in ("nginx", "ours"))
    there = needs(Path(sys.executable).parent / "llm-gateway")
    peers = [
        nginx,
        *(Peer(kind, label, partial(least, kind), lambda: None) for kind, label in KINDS.items()),
        whole,
        Peer("hit", "ours, from its cache", partial(ours, more=CACHED), there, EVERYTHING),
    ]
    with arena(contest, "floor", peers, upstreams.plain(folder, DRIVER_CORE)) as contestants:
        run = partial(measure.plain, connections=chosen.connections, folder=folder)
        contest.run("floor", contestants[1:], run, chosen.rounds, 1.0)
    figures = {name: sorted(each["cpu_us"] for each in rounds) for name, rounds in contest.results["floor"].items()}
    print("\n| CPU µs/request | least | median | × nginx, least | × nginx, median |\n|---|---:|---:|---:|---:|")
    at = figures["nginx"]
    for peer in peers:
        if mine := figures.get(peer.name):
            low, middle = mine[0], mine[len(mine) // 2]
            print(f"| {peer.label} | {low:.0f} | {middle:.0f} | {low / at[0]:.2f} | {middle / at[len(at) // 2]:.2f} |")


if __name__ == "__main__":
    main()
