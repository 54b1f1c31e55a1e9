"""What the tests of the upstream side share: an upstream in the same loop, and a sink that writes down what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from llm_gateway.core.errors import Fault
from llm_gateway.upstream.http1 import Connection
from llm_gateway.upstream.pool import Origin, Pool

REQUEST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Told:
    """`told`: in words; `done` when the reply is over, well or not."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.fault: Fault | None = None
        self.done = asyncio.Event()

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.told.append(status)
        self.headers = headers

    def data(self, body: bytes) -> None:
        self.body += body

    def end(self, *, delimited: bool) -> None:
        self.told.append("end" if delimited else "eof")
        self.done.set()

    def lost(self, fault: Fault) -> None:
        self.fault = fault
        self.told.append(fault.code)
        self.done.set()

    async def over(self) -> Told:
        async with asyncio.timeout(3):
            await self.done.wait()
        return self


@contextlib.asynccontextmanager
async def serving(play: Play, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Runs `play` for each connection; yields the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await play(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*replies: bytes, close: bool = False) -> Play:
    """One reply per request; then the connection stays open, or is closed."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in replies:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        if not close:
            await reader.read()

    return play


@contextlib.asynccontextmanager
async def pooling() -> AsyncIterator[Pool]:
    pool = Pool(memoryview(bytearray(16 << 10)))
    try:
        yield pool
    finally:
        pool.close()
        await asyncio.sleep(0.01)


async def connection(pool: Pool, origin: Origin) -> Connection:
    bay = pool.bay(origin)
    found = pool.take(bay) or await pool.open(bay)
    assert isinstance(found, Connection)
    return found


async def ask(pool: Pool, origin: Origin) -> tuple[Connection, Told]:
    used, told = await connection(pool, origin), Told()
    used.send(REQUEST, told)
    await told.over()
    await asyncio.sleep(0.005)
    return used, told


def local(port: int, **more: Any) -> Origin:
    return Origin("http", "127.0.0.1", port, **more)


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
