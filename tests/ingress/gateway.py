"""A real worker process on loopback, with upstreams in this process: what the tests of the wire share.

Law: bytes go in and come out of real sockets; the only thing made up is the configuration, with limits short enough to
be waited for. Providers `faulty` and `claude` break on request by model name (`faulty/fault-stall`), `scripted` does what
a test's own function says, `down` is a port nobody listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from llm_gateway.config.snapshot import (
    Alias,
    Key,
    Listener,
    Logging,
    Provider,
    ProviderKey,
    Retry,
    Server,
    Snapshot,
    Target,
)
from llm_gateway.policies.breaker import Terms
from llm_gateway.supervisor import boot
from replay.faulty import FaultyUpstream, refused_port

SECRET, KEY = b"pepper", "sk-wire"
SEEN = 5.0  # seconds any single wait may take
T = TypeVar("T")


class Upstreams:
    """A thread with a loop for upstreams that the gateway talks to."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.faulty = FaultyUpstream()
        self.run(self.faulty.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SEEN)

    def stop(self) -> None:
        self.run(self.faulty.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)


class Scripted:
    """An upstream that is one function per connection: `play(connection)`, in a thread, with a plain blocking socket.

    `accepted` counts connections; what a script raises is kept for the test to see in `errors`."""

    def __init__(self, play: Callable[[Peer], None] | None = None) -> None:
        self.play = play
        self.accepted = 0
        self.errors: list[BaseException] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            raw, _ = self._sock.accept()
            self.accepted += 1
            threading.Thread(target=self._serve, args=(Peer(raw, self.accepted),), daemon=True).start()

    def _serve(self, peer: Peer) -> None:
        try:
            if self.play is not None:
                self.play(peer)
        except (ConnectionError, TimeoutError, EOFError) as error:
            self.errors.append(error)
        finally:
            peer.close()


class Peer:
    """One end of a conversation: `send` bytes, `read` what comes; every wait ends in TimeoutError."""

    def __init__(self, sock: socket.socket, number: int = 0) -> None:
        self.sock = sock
        self.number = number
        self.rest = b""
        sock.settimeout(SEEN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.sock.sendall(piece)

    def drip(self, data: bytes, at: int) -> None:
        """In two writes, cut at `at`, that are two reads to whoever reads."""
        self.send(data[:at])
        time.sleep(0.002)
        self.send(data[at:])

    def more(self) -> bytes:
        data = self.sock.recv(65536)
        self.rest += data
        return data

    def until(self, mark: bytes) -> bytes:
        """Everything up to and including the mark. EOFError if the other side ends first."""
        while mark not in self.rest:
            if not self.more():
                raise EOFError(self.rest[-500:])
        at = self.rest.index(mark) + len(mark)
        taken, self.rest = self.rest[:at], self.rest[at:]
        return taken

    def all(self) -> bytes:
        """Everything until the other side ends. A reset raises ConnectionError."""
        while self.more():
            pass
        taken, self.rest = self.rest, b""
        return taken

    def reply(self, *, bodiless: bool = False) -> Reply:
        """One HTTP message, framed by length or chunks."""
        head = self.until(b"\r\n\r\n")
        start, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(start.split(" ")[1]) if start.startswith("HTTP/") else 0
        body = b""
        if bodiless or status in (100, 204):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            body = self.chunks()
        else:
            length = int(headers.get("content-length", "0"))
            while len(self.rest) < length:
                if not self.more():
                    raise EOFError(self.rest)
            body, self.rest = self.rest[:length], self.rest[length:]
        return Reply(status, headers, body, start)

    def chunks(self) -> bytes:
        """A chunked body with its terminator; EOFError (what there was) if that never comes."""
        body = bytearray()
        while True:
            try:
                size = int(self.until(b"\r\n"), 16)
                while len(self.rest) < size + 2:
                    if not self.more():
                        raise EOFError(self.rest)
            except EOFError as error:
                raise EOFError(bytes(body)) from error
            body += self.rest[:size]
            self.rest = self.rest[size + 2 :]
            if size == 0:
                return bytes(body)

    def gone(self) -> bool:
        """Whether the other side ends without another byte; how does not matter."""
        try:
            return self.all() == b""
        except (ConnectionError, ssl.SSLError):
            return not self.rest

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes, neither bytes nor an end, for so long."""
        return not self.rest and not select.select([self.sock], [], [], seconds)[0]

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    start: str = ""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gateway:
    """`ports`: by listener, in order; the first one speaks plain HTTP."""

    process: subprocess.Popen[bytes]
    folder: Path
    ports: list[int]
    _held: list[object] = field(default_factory=list)

    def connect(self, listener: int = 0) -> Peer:
        return Peer(socket.create_connection(("127.0.0.1", self.ports[listener])))

    def ask(self, data: bytes) -> Reply:
        with self.connect() as client:
            client.send(data)
            return client.reply()

    def rows(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "journal").glob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def row(self, request_id: str) -> dict[str, Any]:
        """The one usage row of a request; waits until it is there, and fails if there are two."""
        found = eventually(lambda: [row for row in self.rows() if row["request_id"] == request_id])
        assert len(found) == 1, found
        row: dict[str, Any] = found[0]
        return row

    def rss(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) << 10

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SEEN)


def provider(name: str, url: str, **more: Any) -> Provider:
    more = {
        "type": "openai",
        "connect_timeout": 0.5,
        "silence": 1.0,
        "first_chunk": 1.0,
        "timeout": 2.0,
        "max_retries": 0,
        # What one test does to a target must not be held against it in the next.
        "breaker": Terms(enabled=False, key_ejection=0.0, cooling=False),
    } | more
    return Provider(name=name, base_url=url, keys=(ProviderKey("0", "sk-upstream"),), **more)


def alias(name: str, *places: str, **more: Any) -> Alias:
    targets = [Target(*place.split("/", 1)) for place in places]
    return Alias(name=name, targets=(targets[0],), fallbacks=tuple(targets[1:]), **more)


def server(**more: Any) -> Server:
    short = {
        "timeout": 8.0, "header_timeout": 0.6, "body_timeout": 0.6, "idle_timeout": 2.0, "send_timeout": 1.0, "max_body": 1 << 20,
        "lame_duck": 0.0,
    }  # fmt: skip
    return Server(**({"listeners": (Listener(host="127.0.0.1", port=1),)} | short | more))


def snapshot(folder: Path, providers: tuple[Provider, ...], **more: Any) -> Snapshot:
    defaults: dict[str, Any] = {
        "generation": 1, "digest": "", "version": "test", "workers": 1, "data_dir": str(folder), "secret": SECRET, "server": server(),
        "aliases": (), "keys": (Key(id="wire", name="wire", digest=hmac.digest(SECRET, KEY.encode(), "sha256")),),
        "logging": Logging(output=str(folder / "access.log")), "retry": Retry(base=0.01, cap=0.02), "heartbeat": 600.0,
    }  # fmt: skip
    return Snapshot(providers=providers, **(defaults | more))


def start(told: Snapshot) -> Gateway:
    """Starts the worker process that a supervisor would, and waits until it serves."""
    socks = [_bound(listener) for listener in told.server.listeners]
    control, ours = socket.socketpair()
    boot_fd = boot.create(msgspec.msgpack.encode(told))
    fds = [control.fileno(), boot_fd, *(sock.fileno() for sock in socks)]
    folder = Path(told.data_dir)
    listen = ",".join(str(sock.fileno()) for sock in socks)
    arguments = ["--index", "0", "--control", str(fds[0]), "--snapshot", str(boot_fd), "--listen", listen]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llm_gateway.worker", *arguments], pass_fds=fds, stderr=errors, stdout=errors
        )
    ours.settimeout(10)
    if ours.recv(1) != b"R":
        raise RuntimeError((folder / "stderr").read_text())
    ports = [0 if sock.family == socket.AF_UNIX else sock.getsockname()[1] for sock in socks]
    os.close(boot_fd)
    control.close()
    for sock in socks:
        sock.close()
    return Gateway(process, folder, ports, [ours])


def _bound(listener: Listener) -> socket.socket:
    if listener.path is not None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(listener.path)
        return sock
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


@contextlib.contextmanager
def running(told: Snapshot) -> Iterator[Gateway]:
    """The worker, and that it neither died nor raised anything that nobody caught."""
    gateway = start(told)
    try:
        yield gateway
        assert gateway.alive()
        errors = (gateway.folder / "stderr").read_text()
        assert "Traceback" not in errors, errors
    finally:
        gateway.stop()


def request(
    model: str, *, stream: bool = False, path: str = "/v1/chat/completions", headers: tuple[str, ...] = (), version: str = "1.1",
    **body: Any,
) -> bytes:  # fmt: skip
    """A whole request as bytes."""
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream} | body
    if path == "/v1/messages":
        asked = {"max_tokens": 64} | asked
    data = json.dumps(asked).encode()
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: gateway",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(data)}", *headers]).encode() + b"\r\n\r\n" + data


def eventually(check: Callable[[], T], seconds: float = SEEN) -> T:
    """The first true answer."""
    end = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)
    return answer


def refused() -> str:
    return f"http://127.0.0.1:{refused_port()}"


def event(text: str) -> bytes:
    """One chunk of an OpenAI stream, framed as a chunk of HTTP."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    data = (
        b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )
    return b"%x\r\n%b\r\n" % (len(data), data)


FINISH = (
    b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)
DONE = b"data: [DONE]\n\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_END = b"%x\r\n%b\r\n0\r\n\r\n" % (len(FINISH + DONE), FINISH + DONE)


def completion(text: str = "hello", *more: str) -> bytes:
    """A whole plain reply, with more header lines."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    body = json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    ).encode()
    lines = ["HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
