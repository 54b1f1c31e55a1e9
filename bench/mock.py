"""A streaming upstream on raw epoll: pre-rendered chunks, each its own write, at a steady pace.

Law: far cheaper than what it stands behind. POST /v1/chat/completions streams OpenAI's shape, /v1/messages Anthropic's. The
model names the pace: `mock-100x10` is 100 chunks 10 ms apart, `mock-96x40x4` 96 of them, four in a write. Every chunk carries
`t=<monotonic ns>` of its write, so that a reader on the same machine knows how long it travelled. Streams are spread over the
milliseconds, as users are.
GET /count answers {"chunks", "streams", "open"}.
"""

from __future__ import annotations

import heapq
import json
import re
import select
import socket
import sys
import time

PACE = re.compile(rb'"model"\s*:\s*"[^"]*?-(\d+)x(\d+)(?:x(\d+))?"')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
STREAM = re.compile(rb'"stream"\s*:\s*true')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\nx-request-id: req_1\r\n\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def openai_shape() -> tuple[bytes, bytes, bytes, bytes]:
    """(opening, before the time, after the time, ending), framed."""
    base = {"id": "chatcmpl-BenchBenchBenchBenchBench", "object": "chat.completion.chunk", "created": 1750000000, "model": "gpt-4o-2024-08-06"}
    base |= {"service_tier": "default", "system_fingerprint": "fp_0123456789"}

    def data(choices: object, **more: object) -> bytes:
        return b"data: " + json.dumps({**base, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"

    def choice(delta: object, finish: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    usage = {"prompt_tokens": 25, "completion_tokens": 100, "total_tokens": 125}
    opening = data(choice({"role": "assistant", "content": "", "refusal": None}))
    before, after = framed(data(choice({"content": " t=" + "0" * 19}))).split(b"0" * 19)
    ending = framed(data(choice({}, "stop"))) + framed(data([], usage=usage)) + framed(b"data: [DONE]\n\n")
    return framed(opening), before, after, ending + b"0\r\n\r\n"


def anthropic_shape() -> tuple[bytes, bytes, bytes, bytes]:
    def event(kind: str, **more: object) -> bytes:
        return f"event: {kind}\ndata: ".encode() + json.dumps({"type": kind, **more}, separators=(",", ":")).encode() + b"\n\n"

    usage = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {"id": "msg_01Bench", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    opening = event("message_start", message=message)
    opening += event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + event("ping")
    delta = event("content_block_delta", index=0, delta={"type": "text_delta", "text": " t=" + "0" * 19})
    before, after = framed(delta).split(b"0" * 19)
    ending = event("content_block_stop", index=0)
    ending += event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 100})
    ending += event("message_stop")
    return framed(opening), before, after, framed(ending) + b"0\r\n\r\n"


class Stream:
    """One connection: the request being read, or the reply being written. `unsent`: what a full socket refused."""

    __slots__ = ("closed", "gap", "inbox", "left", "shape", "sock", "together", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = b""
        self.left = 0
        self.together = 1
        self.gap = 0.0
        self.unsent = b""
        self.shape: tuple[bytes, bytes, bytes, bytes] = (b"", b"", b"", b"")
        self.closed = False


class Mock:
    def __init__(self, port: int) -> None:
        self.shapes = {b"/v1/messages": anthropic_shape()}
        self.openai = openai_shape()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=8192)
        self.listener.setblocking(False)
        self.poll = select.epoll()
        self.poll.register(self.listener, select.EPOLLIN)
        self.streams: dict[int, Stream] = {}
        self.due: list[tuple[float, int, Stream]] = []
        self.turn = 0
        self.chunks = 0
        self.started = 0

    def run(self) -> None:
        while True:
            wait = max(self.due[0][0] - time.monotonic(), 0) if self.due else 1.0
            for fd, mask in self.poll.poll(wait):
                if fd == self.listener.fileno():
                    self.accept()
                    continue
                stream = self.streams[fd]
                if mask & select.EPOLLOUT:
                    self.flush(stream)
                if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                    self.read(stream)
            self.write_due()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.streams[sock.fileno()] = Stream(sock)
            self.poll.register(sock, select.EPOLLIN)

    def read(self, stream: Stream) -> None:
        try:
            data = stream.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(stream)
            return
        stream.inbox += data
        if self.whole(stream.inbox):
            request, stream.inbox = stream.inbox, b""
            self.answer(stream, request)

    def whole(self, inbox: bytes) -> bool:
        end = inbox.find(b"\r\n\r\n")
        if end < 0:
            return False
        if CHUNKED.search(inbox, 0, end + 2):
            return inbox.endswith(b"0\r\n\r\n")
        length = LENGTH.search(inbox, 0, end + 2)
        return len(inbox) >= end + 4 + (int(length[1]) if length else 0)

    def answer(self, stream: Stream, request: bytes) -> None:
        path = request.split(b" ", 2)[1].partition(b"?")[0]
        if path == b"/count":
            body = json.dumps({"chunks": self.chunks, "streams": self.started, "open": len(self.streams)}).encode()
            self.send(stream, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            return
        pace = PACE.search(request)
        stream.left, gap, stream.together = (int(pace[1]), int(pace[2]), int(pace[3] or 1)) if pace else (100, 10, 1)
        stream.gap = gap / 1000
        stream.shape = next((shape for end, shape in self.shapes.items() if path.endswith(end)), self.openai)
        self.started += 1
        self.turn += 1
        self.send(stream, HEAD + stream.shape[0])
        offset = (self.turn * 7 % 10) / 10 * stream.gap
        heapq.heappush(self.due, (time.monotonic() + offset, self.turn, stream))

    def write_due(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            when, turn, stream = heapq.heappop(self.due)
            if stream.closed:
                continue
            if stream.left == 0:
                self.send(stream, stream.shape[3])
                continue
            if not stream.unsent:
                together = min(stream.together, stream.left)
                self.send(stream, b"%s%019d%s" % (stream.shape[1], time.monotonic_ns(), stream.shape[2]) * together)
                stream.left -= together
                self.chunks += together
            heapq.heappush(self.due, (when + stream.gap, turn, stream))

    def send(self, stream: Stream, data: bytes) -> None:
        if stream.unsent:
            stream.unsent += data
            return
        try:
            sent = stream.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(stream)
            return
        if sent < len(data):
            stream.unsent = data[sent:]
            self.poll.modify(stream.sock, select.EPOLLIN | select.EPOLLOUT)

    def flush(self, stream: Stream) -> None:
        data, stream.unsent = stream.unsent, b""
        self.poll.modify(stream.sock, select.EPOLLIN)
        if data:
            self.send(stream, data)

    def close(self, stream: Stream) -> None:
        if stream.closed:
            return
        stream.closed = True
        del self.streams[stream.sock.fileno()]
        self.poll.unregister(stream.sock)
        stream.sock.close()


if __name__ == "__main__":
    try:
        Mock(int(sys.argv[1])).run()
    except KeyboardInterrupt:
        sys.exit(0)
