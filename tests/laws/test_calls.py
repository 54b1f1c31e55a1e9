"""The hot path's laws, counted: calls per request, per relayed chunk, per translated chunk, with all defaults on.

The request head is what the openai SDK sends. Limits are DESIGN's law 5; a change that raises a figure explains itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from laws.line import CLIENT_KEY, Counter, Upstream, read_message, start

PYTHON_PER_REQUEST, C_PER_REQUEST = 68, 95
PYTHON_PER_HIT, C_PER_HIT = 30, 46
PYTHON_PER_CHUNK = 8
PYTHON_PER_TRANSLATED = 16
MOST_READS = 3
ROUNDS, CHUNKS = 20, 50

SDK_HEADERS = {
    "Host": "localhost:8080", "Accept-Encoding": "gzip, deflate", "Connection": "keep-alive", "Accept": "application/json",
    "Content-Type": "application/json", "User-Agent": "OpenAI/Python 2.8.0", "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.8.0", "X-Stainless-OS": "Linux", "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython", "X-Stainless-Runtime-Version": "3.11.7", "X-Stainless-Async": "false",
    "x-stainless-retry-count": "0", "x-stainless-read-timeout": "600", "Authorization": f"Bearer {CLIENT_KEY}",
}  # fmt: skip
MESSAGES = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Hello, how are you?"}]
REPLY = msgspec.json.encode({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1759345935, "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine, thank you.", "refusal": None},
                 "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 25, "completion_tokens": 30, "total_tokens": 55,
              "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
              "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0}},
})  # fmt: skip
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Wed, 01 Oct 2025 19:12:16 GMT\r\ncontent-type: %b\r\n%b\r\nx-request-id: req_1\r\n"
    b"openai-version: 2020-10-01\r\nopenai-processing-ms: 399\r\nserver: cloudflare\r\n\r\n"
)


def openai_chunk(delta: bytes, finish: bytes = b"null") -> bytes:
    return (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1759345935,"model":"gpt-4o",'
        b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}],"usage":null}\n\n' % (delta, finish)
    )


def openai_stream() -> Iterator[bytes]:
    yield openai_chunk(b'{"role":"assistant","content":""}')
    for _ in range(CHUNKS):
        yield openai_chunk(b'{"content":" word"}')
    yield openai_chunk(b"{}", b'"stop"')
    yield b'data: {"id":"chatcmpl-1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":50,"total_tokens":59}}\n\n'
    yield b"data: [DONE]\n\n"


def anthropic_stream() -> Iterator[bytes]:
    def event(name: str, **fields: object) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))

    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": usage}
    yield event("message_start", message=message)
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for _ in range(CHUNKS):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": " word"})
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 50})
    yield event("message_stop")


def script(body: bytes) -> Iterator[bytes]:
    request = msgspec.json.decode(body)
    if not request.get("stream"):
        yield HEAD % (b"application/json", b"content-length: %d" % len(REPLY)) + REPLY
        return
    yield HEAD % (b"text/event-stream", b"transfer-encoding: chunked")
    for piece in anthropic_stream() if request["model"].startswith("claude") else openai_stream():
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
        time.sleep(0.002)  # each chunk its own read
    yield b"0\r\n\r\n"


@pytest.fixture(scope="module")
def counter() -> Counter:
    return Counter()


@pytest.fixture(scope="module")
def client(counter: Counter, tmp_path_factory: pytest.TempPathFactory) -> socket.socket:
    data_dir: Path = tmp_path_factory.mktemp("line")
    port = start(Upstream(script).url, data_dir, counter)
    return socket.create_connection(("127.0.0.1", port))


def ask(client: socket.socket, model: str, *, stream: bool) -> bytes:
    body = msgspec.json.encode({"messages": MESSAGES, "model": model, "temperature": 0.7, "stream": stream})
    head = "".join(f"{name}: {value}\r\n" for name, value in {**SDK_HEADERS, "Content-Length": len(body)}.items())
    client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n".encode() + body)
    message = read_message(client)
    assert message is not None
    assert message[0].startswith(b"HTTP/1.1 200"), message
    return message[1]


def costs(client: socket.socket, counter: Counter, what: str) -> tuple[int, int]:
    """Whole (Python, C) calls a request: what the clock's tick or a collection adds to a few of them is not the request's."""
    for _ in range(4):
        ask(client, "openai/gpt-4o", stream=False)
    with counter.counting():
        for _ in range(ROUNDS):
            ask(client, "openai/gpt-4o", stream=False)
    python, c = (sum(count // ROUNDS for count in calls.values()) for calls in (counter.python, counter.c))
    print(f"per {what}: {python} Python calls, {c} C calls")
    return python, c


def test_a_plain_request_costs_few_calls(client: socket.socket, counter: Counter) -> None:
    python, c = costs(client, counter, "request")
    assert python <= PYTHON_PER_REQUEST, counter.table(ROUNDS)
    assert c <= C_PER_REQUEST, counter.table(ROUNDS)


def test_a_reply_from_the_cache_costs_half_of_that(counter: Counter, tmp_path: Path) -> None:
    """The very same request as before, on a head that came before."""
    client = socket.create_connection(("127.0.0.1", start(Upstream(script).url, tmp_path, counter, cached=True)))
    python, c = costs(client, counter, "hit")
    assert python <= PYTHON_PER_HIT, counter.table(ROUNDS)
    assert c <= C_PER_HIT, counter.table(ROUNDS)


@pytest.mark.parametrize(
    ("model", "limit"), [("openai/gpt-4o", PYTHON_PER_CHUNK), ("anthropic/claude-sonnet-4-5", PYTHON_PER_TRANSLATED)]
)
def test_a_chunk_costs_few_calls(client: socket.socket, counter: Counter, model: str, limit: int) -> None:
    """What CHUNKS more chunks add to a stream, by the median place: each call site that runs once a chunk."""
    ask(client, model, stream=True)
    with counter.counting():
        body = ask(client, model, stream=True)
    assert body.count(b" word") == CHUNKS
    per_chunk = sum(count // CHUNKS for count in counter.python.values())
    print(f"per chunk of {model}: {per_chunk} Python calls")
    assert per_chunk <= limit, counter.table(CHUNKS)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
def test_events_that_came_together_go_on_together(counter: Counter, tmp_path: Path, model: str) -> None:
    """What one read brought is told and written once, not event by event: a write is most of what an event costs."""

    def together(body: bytes) -> Iterator[bytes]:
        yield b"".join(script(body))

    client = socket.create_connection(("127.0.0.1", start(Upstream(together).url, tmp_path, counter)))
    ask(client, model, stream=True)
    with counter.counting():
        body = ask(client, model, stream=True)
    assert body.count(b" word") == CHUNKS
    told = counter.python["relay.py:data"]
    print(f"{CHUNKS} events of {model} at once: told {told} times")
    assert 0 < told <= MOST_READS, counter.table(1)
