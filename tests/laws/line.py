"""A whole worker in a thread of the test's process, so that what its loop does can be counted call by call.

The upstream is a plain socket that answers with what it is told; everything of ours is real. Counting by sys.setprofile is
repeatable where time is not.
"""

from __future__ import annotations

import asyncio
import collections
import hmac
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvloop

from llm_gateway.config.snapshot import Caching, Key, Listener, Logging, Provider, ProviderKey, Server, Snapshot
from llm_gateway.worker import Worker

SECRET, CLIENT_KEY = b"pepper", "sk-counted"


class Upstream:
    """Answers each request on each connection by what `script(body)` yields, one socket write each."""

    def __init__(self, script: Callable[[bytes], Iterator[bytes]]) -> None:
        self._script = script
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._sock.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        while (request := read_message(connection)) is not None:
            for piece in self._script(request[1]):
                connection.sendall(piece)


class Counter:
    """Python and C calls on the loop's thread while `on`."""

    def __init__(self) -> None:
        self.on = False
        self.python: collections.Counter[str] = collections.Counter()
        self.c: collections.Counter[str] = collections.Counter()

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        if not self.on:
            return
        code = frame.f_code
        place = f"{Path(code.co_filename).name}:{code.co_name}"
        if event == "call":
            self.python[place] += 1
        elif event == "c_call":
            self.c[f"{getattr(arg, '__qualname__', arg)} in {place}"] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        self.python.clear()
        self.c.clear()
        self.on = True
        yield
        self.on = False

    def table(self, per: float) -> str:
        rows = [f"{count / per:7.2f}  {name}" for name, count in (self.python + self.c).most_common()]
        return "\n".join(rows)


class _Loop(uvloop.Loop):
    """Signals cannot be had outside the main thread; nothing here needs them."""

    def add_signal_handler(self, sig: int, callback: object, *args: object) -> None:
        return


def snapshot(url: str, data_dir: Path, port: int, *, cached: bool = False) -> Snapshot:
    key = ProviderKey("0", "sk-upstream")
    return Snapshot(
        generation=1,
        digest="",
        version="test",
        workers=1,
        data_dir=str(data_dir),
        secret=SECRET,
        server=Server(listeners=(Listener(host="127.0.0.1", port=port),)),
        providers=(
            Provider(name="openai", type="openai", base_url=url, keys=(key,)),
            Provider(name="anthropic", type="anthropic", base_url=url, keys=(key,)),
        ),
        aliases=(),
        keys=(Key(id="counted", name="counted", digest=hmac.digest(SECRET, CLIENT_KEY.encode(), "sha256")),),
        logging=Logging(output=str(data_dir / "access.log")),
        cache=Caching(enabled=cached),
    )


def start(url: str, data_dir: Path, counter: Counter, *, cached: bool = False) -> int:
    """Starts a worker in a thread; returns its port. It ends with the process."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = int(listening.getsockname()[1])
    control, held = socket.socketpair()
    started = threading.Event()

    def run() -> None:
        loop = _Loop()
        asyncio.set_event_loop(loop)
        worker = Worker(0, snapshot(url, data_dir, port, cached=cached), loop)
        for _ in range(200):  # what is made ahead between requests is made before they are counted
            worker.line.egress.tick(0.0)
        loop.call_later(0.05, started.set)
        sys.setprofile(counter.profile)
        held.set_inheritable(False)  # the supervisor's end of the line, kept open by this frame
        loop.run_until_complete(worker.run([listening.detach()], control.detach()))

    threading.Thread(target=run, daemon=True).start()
    if not started.wait(10):
        raise TimeoutError("the worker did not start")
    return port


def read_message(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """One HTTP message with Content-Length or chunks: (head, body as framed). None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while not body.endswith(b"0\r\n\r\n"):
            body += connection.recv(65536)
        return head, body
    length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head, body
