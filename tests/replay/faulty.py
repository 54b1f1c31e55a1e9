"""An upstream that breaks in every way upstreams break, on request.

Law: one function per fault, named after what a client of it sees. The fault is chosen by the path (`base_url` ending in
`/fault/<name>`), by a `model` named `fault-<name>`, or by a script: `upstream.script("rst_midstream", "ok")` plays them
in turn, then serves well. Numbers after a colon are an argument: `status:503`, `stall:2.5`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gzip
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from replay.wire import HEAD_LIMIT, Received, chunk, head_bytes, read_request

Fault = Callable[[asyncio.StreamWriter, Received, str], Awaitable[None]]

JSON = ("content-type", "application/json")
SSE = ("content-type", "text/event-stream")
CHUNKED = ("transfer-encoding", "chunked")
FOR_EVER = 3600.0


def event(content: str = "", finish: str | None = None, **extra: object) -> bytes:
    """One chunk of an OpenAI chat stream."""
    delta = {"role": "assistant", "content": content}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {} if finish else delta, "finish_reason": finish}]
    return b"data: " + json.dumps({**body, "choices": choices, **extra}).encode() + b"\n\n"


COMPLETION = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
).encode()
WORDS = [event(word) for word in ("One", " two", " three")]
END = [event(finish="stop"), b"data: [DONE]\n\n"]


async def ok(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A good reply, whole or streamed as asked; the argument is seconds between events."""
    if not wants_stream(request):
        writer.write(head_bytes(200, (JSON, ("content-length", str(len(COMPLETION))))) + COMPLETION)
        return
    await stream_head(writer)
    for each in (*WORDS, *END):
        await send(writer, chunk(each))
        await asyncio.sleep(float(argument or 0))
    writer.write(b"0\r\n\r\n")


async def reset_at_once(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """RST instead of a reply."""
    reset(writer)


async def close_at_once(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """FIN instead of a reply."""
    writer.close()


async def rst_midstream(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Three events, then RST; the pause lets them be read before the reset discards them."""
    await stream_head(writer)
    await send(writer, *map(chunk, WORDS))
    await asyncio.sleep(float(argument or 0.05))
    reset(writer)


async def cut_midstream(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Three events, then FIN without the last chunk."""
    await stream_head(writer)
    await send(writer, *map(chunk, WORDS))
    writer.close()


async def cut_mid_event(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Two and a half events, then FIN."""
    await stream_head(writer)
    await send(writer, *map(chunk, WORDS[:2]), chunk(WORDS[2][:40]))
    writer.close()


async def clean_end_without_finish(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A well-framed end of a stream that never said it was finished."""
    await stream_head(writer)
    await send(writer, *map(chunk, WORDS), b"0\r\n\r\n")


async def close_delimited_stream(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A whole stream, ended only by closing: indistinguishable from a cut."""
    writer.write(head_bytes(200, (SSE, ("connection", "close"))))
    await send(writer, *WORDS, *END)
    writer.close()


async def close_delimited(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A plain reply without any length."""
    writer.write(head_bytes(200, (JSON, ("connection", "close"))))
    await send(writer, COMPLETION)
    writer.close()


async def stall(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Nothing, not even a head."""
    await asyncio.sleep(float(argument or FOR_EVER))


async def slow_ok(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A good reply, so many seconds later."""
    await asyncio.sleep(float(argument))
    await ok(writer, request, "")


async def late_close(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Nothing for so many seconds, then FIN."""
    await asyncio.sleep(float(argument))
    writer.close()


async def stall_after_head(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    await stream_head(writer)
    await writer.drain()
    await asyncio.sleep(float(argument or FOR_EVER))


async def stall_midstream(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    await stream_head(writer)
    await send(writer, *map(chunk, WORDS))
    await asyncio.sleep(float(argument or FOR_EVER))


async def slow_bytes(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A good stream, one byte a write; the argument is seconds between bytes."""
    await stream_head(writer)
    for byte in b"".join([*map(chunk, (*WORDS, *END)), b"0\r\n\r\n"]):
        await send(writer, bytes([byte]))
        await asyncio.sleep(float(argument or 0.001))


async def status(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """`status:429,retry-after=30`: an error in OpenAI's shape with these headers."""
    code, *pairs = argument.split(",")
    extra = tuple((name, value) for name, _, value in (pair.partition("=") for pair in pairs))
    body = json.dumps({"error": {"message": f"scripted {code}", "type": "scripted", "param": None, "code": None}}).encode()
    writer.write(head_bytes(int(code), (JSON, *extra, ("content-length", str(len(body))))) + body)


async def headers(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A good whole reply with more headers: `headers:name=value;name=value`."""
    pairs = [tuple(each.split("=", 1)) for each in argument.split(";")]
    writer.write(head_bytes(200, (JSON, ("content-length", str(len(COMPLETION))), *pairs)) + COMPLETION)


async def streamed(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """The same of a good stream."""
    pairs = [tuple(each.split("=", 1)) for each in argument.split(";")]
    writer.write(head_bytes(200, (SSE, CHUNKED, *pairs)))
    await send(writer, *map(chunk, (*WORDS, *END)), b"0\r\n\r\n")


async def answer(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """`answer:400,BASE64`: this status with this JSON, e.g. a recorded error; see `answering`."""
    status, _, packed = argument.partition(",")
    body = base64.b64decode(packed)
    writer.write(head_bytes(int(status), (JSON, ("content-length", str(len(body))))) + body)


def answering(status: int, body: bytes) -> str:
    """The script's word for `answer`."""
    return f"answer:{status},{base64.b64encode(body).decode()}"


async def streaming(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A stream of these bytes, as hexadecimal digits."""
    await stream_head(writer)
    await send(writer, chunk(bytes.fromhex(argument)), b"0\r\n\r\n")


async def error_in_200(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A stream whose first event is an error."""
    await stream_head(writer)
    await send(writer, chunk(b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'), b"0\r\n\r\n")


async def error_midstream(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    await stream_head(writer)
    error = b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n'
    await send(writer, *map(chunk, WORDS))
    await asyncio.sleep(0.02)  # what comes together with an error before anything went on is no stream yet, and another may answer
    await send(writer, chunk(error), b"0\r\n\r\n")


async def role_only_then_cut(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Nothing a client would miss, then FIN: still worth another attempt."""
    await stream_head(writer)
    await send(writer, chunk(event("")))
    writer.close()


async def html(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A 200 from some proxy in between."""
    page = b"<html><body>Welcome to nginx!</body></html>"
    writer.write(head_bytes(200, (("content-type", "text/html"), ("content-length", str(len(page))))) + page)


async def truncated_json(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Well framed, badly ended."""
    half = COMPLETION[: len(COMPLETION) // 2]
    writer.write(head_bytes(200, (JSON, ("content-length", str(len(half))))) + half)


async def short_body(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Less than Content-Length promised, then FIN."""
    writer.write(head_bytes(200, (JSON, ("content-length", str(len(COMPLETION) + 10)))) + COMPLETION)
    writer.close()


async def gzipped(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A compressed reply nobody asked for."""
    packed = gzip.compress(COMPLETION)
    head = head_bytes(200, (JSON, ("content-encoding", "gzip"), ("content-length", str(len(packed)))))
    writer.write(head + packed)


@functools.cache
def bomb() -> bytes:
    """16 MB of spaces in 16 kB; made once, since making it takes longer than a busy machine has."""
    return gzip.compress(b" " * (16 << 20))


async def gzip_bomb(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A reply that grows a thousandfold."""
    packed = bomb()
    head = head_bytes(200, (JSON, ("content-encoding", "gzip"), ("content-length", str(len(packed)))))
    writer.write(head + packed)


async def informational(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """100 and 103 before the good reply."""
    writer.write(head_bytes(100, ()) + head_bytes(103, (("link", "</x>; rel=preload"),)))
    await ok(writer, request, "")


async def endless_line(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """One event that never ends; the argument is megabytes."""
    await stream_head(writer)
    await send(writer, chunk(b"data: "))
    for _ in range(int(argument or 64) * 16):
        await send(writer, chunk(b"x" * 65536))
    writer.close()


async def bad_framing(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """Content-Length and chunks at once."""
    writer.write(head_bytes(200, (JSON, CHUNKED, ("content-length", "5"))) + chunk(COMPLETION) + b"0\r\n\r\n")


async def then_close(writer: asyncio.StreamWriter, request: Received, argument: str) -> None:
    """A good reply on a connection that is closed right after, without saying so."""
    await ok(writer, request, "")
    await writer.drain()
    writer.close()


FAULTS: dict[str, Fault] = {
    each.__name__: each
    for each in (
        ok, reset_at_once, close_at_once, rst_midstream, cut_midstream, cut_mid_event, clean_end_without_finish,
        close_delimited_stream, close_delimited, stall, late_close, slow_ok, stall_after_head, stall_midstream, slow_bytes, status,
        headers, streamed, answer, streaming,
        error_in_200, error_midstream, role_only_then_cut, html, truncated_json, short_body, gzipped, gzip_bomb,
        informational, endless_line, bad_framing, then_close,
    )
}  # fmt: skip


class FaultyUpstream:
    """`received`: every request; `open`: connections now; `gone`: connections the other side closed."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.open = 0
        self.gone = asyncio.Event()
        self.port = 0
        self._script: deque[str] = deque()
        self._connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *faults: str) -> None:
        """What the next requests meet, in turn."""
        for each in faults:
            assert each.partition(":")[0] in FAULTS, each
        self._script.extend(faults)

    def forget(self) -> None:
        """What was met, and what was still to be played."""
        self.received.clear()
        self._script.clear()

    async def start(self, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_LIMIT, ssl=tls, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._connections += 1
        number = self._connections
        self.open += 1
        try:
            while not writer.is_closing() and (request := await read_request(reader, number)) is not None:
                if request.method == "GET" and request.path.endswith("/models"):  # the operator's probe: no part of any script
                    writer.write(head_bytes(200, (JSON, ("content-length", "11"), ("connection", "close"))) + b'{"data":[]}')
                    return
                self.received.append(request)
                await self._play(reader, writer, request)
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self.open -= 1
            writer.close()

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Received) -> None:
        """A fault ends early when the other side closes: a stalled upstream must notice that too."""
        name, _, argument = self._choose(request).partition(":")
        acting = asyncio.ensure_future(FAULTS[name](writer, request, argument))
        listening = asyncio.ensure_future(_closed(reader))
        done, _ = await asyncio.wait({acting, listening}, return_when=asyncio.FIRST_COMPLETED)
        if listening in done and acting not in done:
            self.gone.set()
            acting.cancel()
        elif isinstance(acting.exception(), ConnectionError):  # it was writing when the other side left
            self.gone.set()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await acting
        with contextlib.suppress(ConnectionError):
            await writer.drain()

    def _choose(self, request: Received) -> str:
        if self._script:
            return self._script.popleft()
        if "/fault/" in request.path:
            return request.path.partition("/fault/")[2].split("/")[0]
        with contextlib.suppress(ValueError, AttributeError):
            model = str(request.json().get("model"))
            if model.startswith("fault-"):
                return model.removeprefix("fault-")
        return "ok"


@contextlib.asynccontextmanager
async def faulty(*faults: str) -> AsyncIterator[FaultyUpstream]:
    upstream = FaultyUpstream()
    upstream.script(*faults)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def refused_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wants_stream(request: Received) -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        return bool(request.json().get("stream"))
    return False


async def stream_head(writer: asyncio.StreamWriter) -> None:
    writer.write(head_bytes(200, (SSE, CHUNKED)))


async def send(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    """Each piece its own write."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _closed(reader: asyncio.StreamReader) -> None:
    """Returns when the other side closed or reset."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.005)
