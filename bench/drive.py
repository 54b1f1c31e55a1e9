"""The drivers: wrk for many short requests, raw sockets for one at a time and for streams.

Law: they count what came whole and right; anything else is an error, and a figure with errors says so. All run on the
driver's core, in this process or in wrk; requests look like the openai SDK's own.
"""

from __future__ import annotations

import gzip
import json
import re
import select
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

# What openai-python sends, head for head.
SDK_HEADERS = {
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 2.8.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.8.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.11.7",
    "X-Stainless-Async": "false",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
}
MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant. Answer in one short paragraph, without any preamble, and cite nothing."},
    {"role": "user", "content": "What is the capital of France, and why did it become the capital? " * 6},
]
STAMP = re.compile(rb"t=(\d{19})")


@dataclass(frozen=True)
class Door:
    """Where and how a contestant takes a chat request."""

    port: int
    path: str = "/v1/chat/completions"
    model: str = "mock-100x10"
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, *, stream: bool = False, padding: int = 0, model: str | None = None) -> bytes:
        messages = MESSAGES if not padding else [*MESSAGES, {"role": "user", "content": "lorem ipsum " * (padding // 12)}]
        call: dict[str, object] = {"model": model or self.model, "messages": messages, "temperature": 0.7, "max_tokens": 256}
        if stream:
            call |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(call).encode()

    def request(self, body: bytes) -> bytes:
        headers = {"Host": f"127.0.0.1:{self.port}", **SDK_HEADERS, **self.headers, "Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def exchange(sock: socket.socket, request: bytes) -> tuple[int, bytes]:
    """(status, body) of one reply with a length, or in chunks."""
    sock.sendall(request)
    seen = b""
    while (end := seen.find(b"\r\n\r\n")) < 0:
        seen += _received(sock)
    head = seen[:end].lower()
    status = int(seen[9:12])
    if b"transfer-encoding: chunked" in head:
        while not seen.endswith(b"0\r\n\r\n"):
            seen += _received(sock)
        return status, seen[end + 4 :]
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    whole = end + 4 + (int(length[1]) if length else 0)
    while len(seen) < whole:
        seen += _received(sock)
    return status, seen[end + 4 :]


def connect(port: int, patience: float = 30.0) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), patience)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def check(door: Door) -> None:
    """RuntimeError unless one plain request is answered with the mock's words."""
    with connect(door.port) as sock:
        status, body = exchange(sock, door.request(door.body()))
    if body.startswith(b"\x1f\x8b"):
        body = gzip.decompress(body)
    if status != 200 or b"capital of France is Paris" not in body:
        raise RuntimeError(f"answered {status}: {body[:200].decode(errors='replace')}")


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    requests: int
    seconds: float
    errors: int


def wrk(door: Door, connections: int, seconds: float, folder: Path) -> Load:
    """Chat requests as fast as they are answered."""
    body = door.body().decode()
    headers = {**SDK_HEADERS, **door.headers}
    lua = [f'wrk.method = "POST"\nwrk.path = "{door.path}"\nwrk.body = [==[{body}]==]']
    lua += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    lua.append(
        "function done(s, l, r)\n io.write(string.format('\\nRESULT %d %d %d\\n', s.requests, s.duration, "
        "s.errors.connect + s.errors.read + s.errors.write + s.errors.status + s.errors.timeout))\nend\n"
    )
    script = folder / "chat.lua"
    script.write_text("\n".join(lua))
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{door.port}"]
    out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+)", out)
    assert found is not None, out
    return Load(int(found[1]), int(found[2]) / 1e6, int(found[3]))


def latency(door: Door, times: int, padding: int = 0) -> list[float]:
    """Milliseconds of each of `times` requests on one connection, one after another; the first 20 are not counted."""
    request = door.request(door.body(padding=padding))
    taken = []
    with connect(door.port) as sock:
        for turn in range(times + 20):
            begin = time.perf_counter()
            status, _ = exchange(sock, request)
            if status != 200:
                raise RuntimeError(f"status {status}")
            if turn >= 20:
                taken.append((time.perf_counter() - begin) * 1000)
    return taken


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def median(values: list[float]) -> float:
    return statistics.median(values) if values else float("nan")


class Streams:
    """Holds `count` streams open, each followed by the next on its connection. `delays`: of first chunks, in ms."""

    def __init__(self, door: Door, count: int, model: str | None = None) -> None:
        self.request = door.request(door.body(stream=True, model=model))
        self.door = door
        self.delays: list[float] = []
        self.finished = 0
        self.errors = 0
        self.bytes = 0
        self.poll = select.epoll()
        self.open: dict[int, tuple[socket.socket, bytearray]] = {}
        for _ in range(count):
            self._begin()

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and self.open:
            for fd, _ in self.poll.poll(left):
                self._read(fd)

    def close(self) -> None:
        for sock, _ in self.open.values():
            sock.close()
        self.open.clear()
        self.poll.close()

    def _begin(self) -> None:
        sock = connect(self.door.port)
        sock.setblocking(False)
        self.open[sock.fileno()] = (sock, bytearray())
        self.poll.register(sock, select.EPOLLIN)
        sock.send(self.request)

    def _read(self, fd: int) -> None:
        sock, seen = self.open[fd]
        try:
            data = sock.recv(65536)
        except OSError:
            data = b""
        now = time.monotonic_ns()
        if not data:
            self._lost(fd)
            return
        self.bytes += len(data)
        if seen is not None and not seen.startswith(b"!"):  # `!`: this stream's first chunk was already timed
            seen += data
            if (stamp := STAMP.search(seen)) is not None:
                self.delays.append((now - int(stamp[1])) / 1e6)
                seen[:] = b"!" + seen[-5:]
        else:
            seen[1:] = (seen[1:] + data)[-5:]
        if seen.endswith(b"0\r\n\r\n"):
            self._end(sock, seen)

    def _end(self, sock: socket.socket, seen: bytearray) -> None:
        if not seen.startswith(b"!"):
            self.errors += 1
        self.finished += 1
        seen.clear()
        try:
            sock.send(self.request)
        except OSError:
            self._lost(sock.fileno())

    def _lost(self, fd: int) -> None:
        """Closed by the other side: between streams that is allowed, within one it is an error."""
        sock, seen = self.open.pop(fd)
        self.errors += bool(seen)
        self.poll.unregister(sock)
        sock.close()
        self._begin()


def open_streams(door: Door, count: int, model: str, *, read: bool, begun: float = 60.0) -> list[socket.socket]:
    """Sockets with a stream open on each; `read` waits until all have begun, else nobody ever reads them.

    All are asked for before the first is waited for: a gateway may well keep a head back until something meaningful came."""
    request = door.request(door.body(stream=True, model=model))
    sockets = []
    for _ in range(count):
        sockets.append(connect(door.port, begun))
        sockets[-1].sendall(request)
    for sock in sockets if read else ():
        if not sock.recv(65536).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("a stream was refused")
    return sockets


def count(port: int) -> dict[str, int]:
    """The streaming mock's own count."""
    with connect(port) as sock:
        _, body = exchange(sock, b"GET /count HTTP/1.1\r\nhost: mock\r\n\r\n")
    counted: dict[str, int] = json.loads(body)
    return counted


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 18)
    if not data:
        raise RuntimeError("closed before the reply was complete")
    return data
