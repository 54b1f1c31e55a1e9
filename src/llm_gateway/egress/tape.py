"""A reply listened to on its way to the client, and one played back instead of being asked for again.

Law: the client gets its bytes first and exactly as without; what is noted is the reply's body, without framing and heads. Over `MOST` bytes
nothing is kept of it. A tape ends when the ledger has settled the exchange, whatever became of it, and says so exactly once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from llm_gateway.core.exchange import Client, Exchange
from llm_gateway.egress.respond import head, whole
from llm_gateway.stores.memory import Kept
from llm_gateway.telemetry.metrics import TargetMeter

MOST = 1 << 20  # bytes of a reply that is kept
STREAM_LINES = b"cache-control: no-cache\r\nx-accel-buffering: no\r\nage: %d\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
FREE = b'"cost":0.0'
HIT = b"x-gateway-cache: hit\r\n"


class Reply(Struct, frozen=True):
    """`body`: without framing; a stream's says that it cost nothing, as it will when it is played back."""

    body: bytes
    content_type: bytes


class Tape:
    """Stands between an exchange and its client. landed: told at the end what the reply was; None if it is too long."""

    def __init__(self, client: Client, landed: Callable[[Exchange, Reply | None], None]) -> None:
        self._client = client
        self._landed = landed
        self._head = b""
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def alive(self) -> bool:
        return self._client.alive

    @property
    def paused(self) -> bool:
        return self._client.paused

    @property
    def sink(self) -> Any:
        return self._client.sink

    @sink.setter
    def sink(self, value: Any) -> None:
        self._client.sink = value

    def send(self, data: bytes) -> None:
        self._client.send(data)
        if not self._head:  # a stream's head goes alone
            self._head = data
            return
        self._size += len(data)
        if self._size <= MOST:
            self._parts.append(_unframed(data))
        elif self._parts:
            self._parts = []

    def hold(self, x: Exchange, size: int) -> bool:
        return self._client.hold(x, size)

    def release(self, x: Exchange) -> None:
        self._client.release(x)

    def finish(self, x: Exchange, data: bytes) -> None:
        self._client.finish(x, data)
        self._landed(x, self._reply(x, data))

    def abort(self, x: Exchange) -> None:
        self._client.abort(x)
        self._landed(x, None)

    def _reply(self, x: Exchange, data: bytes) -> Reply | None:
        if self._size + len(data) > MOST or x.broken:
            return None
        if not self._head:
            top, _, body = data.partition(b"\r\n\r\n")
            if CHUNKED in top:  # a stream that was played back
                body = _unframed(body.removesuffix(b"0\r\n\r\n"))
            return Reply(body, _content_type(top))
        tail = _unframed(data.removesuffix(b"0\r\n\r\n"))
        if x.cost is not None:
            tail = tail.replace(b'"cost":%b' % msgspec.json.encode((x.cost - x.late) / 1e9), FREE)
        return Reply(b"".join(self._parts) + tail, _content_type(self._head))


class Shelf(Struct, frozen=True):
    """Who is said to have answered: whoever did the first time. Its meter is nobody's: nothing was bought."""

    provider: str
    model: str
    key_id: str
    lines: bytes
    meter: TargetMeter
    prices: str = ""

    def price(self, _usage: object, _now: float) -> int:
        return 0


def play(x: Exchange, kept: Kept, meter: TargetMeter, now: float, line: bytes = HIT) -> bytes:
    """The whole reply, as it was kept; free, and a stream for whoever asked for one. now: perf_counter; line: the header that says so."""
    x.target = Shelf(kept.provider, kept.model, kept.key_id, kept.lines, meter)
    x.status, x.usage, x.finish, x.dropped = 200, kept.usage, kept.finish, kept.dropped
    x.cost, x.cached, x.saved = 0, True, kept.cost or 0
    x.extra += line
    age = int(now - kept.born)
    if not x.stream:
        return whole(x, kept.body, kept.content_type, now, b"age: %d\r\n" % age)
    x.first_byte, x.bytes_out = now, len(kept.body)
    top = head(x, kept.content_type, CHUNKED, now, STREAM_LINES % age)
    return b"%b%x\r\n%b\r\n0\r\n\r\n" % (top, len(kept.body), kept.body) if kept.body else top + b"0\r\n\r\n"


def _unframed(data: bytes) -> bytes:
    """One chunk of a chunked body, as the relay sends them."""
    return data[data.index(b"\r\n") + 2 : -2] if data else b""


def _content_type(top: bytes) -> bytes:
    """Of a head that we wrote ourselves."""
    return top.partition(b"content-type: ")[2].partition(b"\r\n")[0]
