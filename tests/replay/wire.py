"""Just enough HTTP/1.1 for a test upstream: read a request, frame a reply.

Law: shares no code with the gateway, so that a mistake there cannot hide here. Reads generously, writes exactly.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

HEAD_LIMIT = 1 << 20


@dataclass(frozen=True)
class Received:
    """One request as it came in: `headers` in order, names as written."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """`pieces`: the body, cut as it should be written; `length`: framed by Content-Length instead of chunks."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: list[bytes] = field(default_factory=list)
    length: bool = True
    delay: float = 0.0


async def read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    """None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ", 2)
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    by_name = {name.lower(): value for name, value in headers}
    try:
        body = await _read_body(reader, by_name)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Received(method, path, headers, body, connection)


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (await reader.readline()) not in (b"\r\n", b""):
            continue
        return body
    return await reader.readexactly(int(headers.get("content-length", "0")))


def head_bytes(status: int, headers: tuple[tuple[str, str], ...], reason: str = "X") -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def write_reply(writer: asyncio.StreamWriter, reply: Reply) -> None:
    """Each piece is its own write, and its own chunk where chunked."""
    framing = ("content-length", str(sum(map(len, reply.pieces)))) if reply.length else ("transfer-encoding", "chunked")
    writer.write(head_bytes(reply.status, (*reply.headers, framing)))
    for piece in reply.pieces:
        if not piece:
            continue
        writer.write(piece if reply.length else chunk(piece))
        await writer.drain()
        await asyncio.sleep(reply.delay)
    if not reply.length:
        writer.write(b"0\r\n\r\n")
    await writer.drain()
