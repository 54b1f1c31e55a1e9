"""Clients that hardly pause: each holds one keep-alive connection and asks, plain and streamed in turn, until told to stop.

Law: every request comes to one outcome, and nothing is tried again: what fails, failed. A request is good only if all of it came:
status, whole body, for a stream also its end mark and last chunk.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

KEY = "sk-e2e-0123456789"
PATIENCE = 20.0
PAUSE = 0.02  # or a dozen of them would be a load test


@dataclass
class Outcome:
    """`worker`: the process that serves this connection, 0 where none said so yet. Times: monotonic seconds."""

    port: int
    streamed: bool
    connected: float
    started: float
    ended: float = 0.0
    worker: int = 0
    fault: str = ""


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    port: int
    opened: float
    worker: int = 0
    closing: bool = False
    provider: str = ""

    @classmethod
    async def to(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port), port, time.monotonic())

    async def ask(self, *, stream: bool, model: str = "lab/m") -> str:
        """What is wrong with the reply; nothing if all of it is there."""
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        status, headers = await self._head()
        self.worker = int(headers["x-request-id"][:6], 16)
        self.provider = headers.get("x-gateway-provider", "")
        self.closing = headers.get("connection", "").lower() == "close"
        text = await self._body(headers)
        if status != 200:
            return f"status {status}: {text[:200].decode()}"
        if stream and not text.endswith(b"data: [DONE]\n\n"):
            return f"a stream that ends in {text[-200:].decode()}"
        return "" if b"hello" in text or b"three" in text else f"an odd reply: {text[:200].decode()}"

    async def _head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body


@dataclass
class Steady:
    """choose: the port for the next new connection."""

    choose: Callable[[], int]
    clients: int = 16
    outcomes: list[Outcome] = field(default_factory=list)
    under_way: set[int] = field(default_factory=set)  # clients whose stream is
    _stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Lets everybody finish what is under way."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    @property
    def failed(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.fault]

    def good(self, *, streamed: bool, across: float | None = None) -> list[Outcome]:
        """across: only those under way at that time."""
        return [
            each
            for each in self.outcomes
            if not each.fault and each.streamed is streamed and (across is None or each.started < across < each.ended)
        ]

    async def more(self, number: int = 40) -> None:
        """Waits for so many more outcomes."""
        wanted = len(self.outcomes) + number
        async with asyncio.timeout(PATIENCE):
            while len(self.outcomes) < wanted:
                await asyncio.sleep(0.02)

    async def streaming(self) -> float:
        """A time at which somebody's stream is under way: now, or soon."""
        async with asyncio.timeout(PATIENCE):
            while not self.under_way:
                await asyncio.sleep(0.005)
        return time.monotonic()

    async def _client(self, number: int) -> None:
        connection: Connection | None = None
        turn = number
        while not self._stopping:
            if connection is None:
                connection = await Connection.to(self.choose())
            turn += 1
            outcome = Outcome(connection.port, turn % 2 == 0, connection.opened, time.monotonic(), worker=connection.worker)
            if outcome.streamed:
                self.under_way.add(number)
            try:
                async with asyncio.timeout(PATIENCE):
                    outcome.fault = await connection.ask(stream=outcome.streamed)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                outcome.fault = repr(error)
            self.under_way.discard(number)
            outcome.ended = time.monotonic()
            outcome.worker = connection.worker or outcome.worker
            self.outcomes.append(outcome)
            if outcome.fault or connection.closing:
                connection.writer.close()
                connection = None
            await asyncio.sleep(PAUSE)
        if connection is not None:
            connection.writer.close()
