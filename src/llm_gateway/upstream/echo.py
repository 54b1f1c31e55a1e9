"""The built-in `echo` provider: says the last user message back in OpenAI's chat shape, so a first request always works.

It stands where a connection stands and behaves like one (replies in later ticks, can be paused, left, closed), so that
everything above it is the real thing. Its token counts are characters / 4, rounded up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from llm_gateway.upstream.http1 import CLOSED, IDLE, READING, Sink

_encode = msgspec.json.Encoder().encode


class EchoConnection:
    __slots__ = ("_chunks", "_paused", "sink", "state", "used")

    def __init__(self) -> None:
        self.state = IDLE
        self.used = 0
        self.sink: Sink | None = None
        self._paused = False
        self._chunks: Iterator[bytes] = iter(())

    def send(self, request: bytes, sink: Sink) -> None:
        self.sink, self.state = sink, READING
        self.used += 1
        body = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
        asyncio.get_running_loop().call_soon(self._begin, body)

    def leave(self) -> None:
        self.close()

    def close(self) -> None:
        self.sink, self.state = None, CLOSED

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._next()

    def _begin(self, body: dict[str, Any]) -> None:
        if self.sink is None:
            return
        text = _said(body.get("messages", []))
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        finish = "stop"
        if isinstance(limit, int) and _tokens(text) > limit > 0:
            text, finish = text[: limit * 4], "length"
        usage = {"prompt_tokens": _tokens(str(body.get("messages"))), "completion_tokens": _tokens(text)}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
        base = {
            "id": f"chatcmpl-echo-{time.time_ns():x}",
            "created": time.time_ns() // 10**9,
            "model": body.get("model", "echo"),
        }
        if body.get("stream"):
            self.sink.head(200, {b"content-type": b"text/event-stream"})
            options = body.get("stream_options")
            wants = isinstance(options, dict) and options.get("include_usage")
            self._chunks = _stream(base, text, finish, usage if wants else None)
            self._next()
            return
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        self.sink.head(200, {b"content-type": b"application/json"})
        self.sink.data(_encode({**base, "object": "chat.completion", "choices": [choice], "usage": usage}))
        self._end()

    def _next(self) -> None:
        if self.sink is None or self._paused:
            return
        chunk = next(self._chunks, None)
        if chunk is None:
            self._end()
            return
        self.sink.data(chunk)
        asyncio.get_running_loop().call_soon(self._next)

    def _end(self) -> None:
        sink, self.sink, self.state = self.sink, None, CLOSED
        if sink is not None:
            sink.end(delimited=True)


def _stream(base: dict[str, Any], text: str, finish: str, usage: dict[str, int] | None) -> Iterator[bytes]:
    base = {**base, "object": "chat.completion.chunk"}

    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: %b\n\n" % _encode({**base, "choices": choices, **more})

    def delta(content: dict[str, Any], reason: str | None = None) -> bytes:
        return event([{"index": 0, "delta": content, "logprobs": None, "finish_reason": reason}])

    yield delta({"role": "assistant", "content": "", "refusal": None})
    words = text.split(" ")
    for position, word in enumerate(words):
        yield delta({"content": word if position == len(words) - 1 else word + " "})
    yield delta({}, finish)
    if usage is not None:
        yield event([], usage=usage)
    yield b"data: [DONE]\n\n"


def _said(messages: list[dict[str, Any]]) -> str:
    """The text of the last user message."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
    return ""


def _tokens(text: str) -> int:
    return -(-len(text) // 4)
