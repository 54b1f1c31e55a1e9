"""One connection to an upstream: a request goes out, its reply is told to a sink as it is parsed, byte for byte in order.

Law: this file knows HTTP/1.1 and nothing of what the bytes mean. It may be used again only if the reply completed, both
sides said keep-alive and nothing followed; a byte on an idle connection closes it. 1xx replies are skipped. A reply
without length that ends by EOF is complete only if the sink says that this is good enough (plain replies, never streams).

    FRESH --send--> WAITING --headers--> READING --complete--> IDLE --send--> WAITING ...
    READING --leave() before the end--> LEFT --complete--> IDLE, or closed by the sweep
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from llm_gateway.core.errors import Fault, Kind

IDLE, WAITING, READING, LEFT, CLOSED = "idle", "waiting", "reading", "left", "closed"

MAX_HEAD = 64 << 10
MAX_HEADERS = 200
HIGH_WATER = 256 << 10


class Sink(Protocol):
    """Who a reply is told to. None of these may raise."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None: ...
    def data(self, body: bytes) -> None: ...
    def end(self, *, delimited: bool) -> None: ...  # delimited False: only EOF said that it is over
    def lost(self, fault: Fault) -> None: ...


class Connection(asyncio.BufferedProtocol):
    __slots__ = (
        "_fields", "_idle", "_lost", "_view", "head_bytes", "headers", "informational", "on_header", "parser", "since", "sink", "state",
        "transport", "used",
    )  # fmt: skip

    def __init__(
        self, buffer: memoryview, idle: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self._view = buffer
        self._idle = idle
        self._lost = lost
        self.state = IDLE
        self.sink: Sink | None = None
        self.used = 0
        self.since = 0.0
        self.informational = False
        self.head_bytes = 0
        self.headers: dict[bytes, bytes] = {}
        # Replies carry 20 to 30 fields: the parser stores them by a C call, names are lowered once per reply. A repeated
        # field's last line wins; none that we read may repeat.
        self._fields: dict[bytes, bytes] = {}
        self.on_header = self._fields.__setitem__

    def __repr__(self) -> str:
        return f"<upstream Connection {self.state}, request {self.used}>"

    def send(self, request: bytes, sink: Sink) -> None:
        """Writes one request, whole. The connection must be idle."""
        self.sink = sink
        self.state = WAITING
        self.used += 1
        self.informational = False
        self.transport.write(request)

    def leave(self) -> None:
        """The sink wants no more. A reply still on its way is read to its end for reuse, if it ends soon."""
        self.sink = None
        if self.state is READING:
            self.state = LEFT
            self.transport.resume_reading()
        elif self.state is WAITING:
            self.close()

    def close(self) -> None:
        """At once, unsent bytes dropped: an upstream that still generates must hear of it."""
        self.sink = None
        if self.state is not CLOSED:
            self.state = CLOSED
            self.transport.abort()

    def pause(self) -> None:
        if self.state is READING:
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.state is READING:
            self.transport.resume_reading()

    # -- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.parser = httptools.HttpResponseParser(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        state = self.state
        if state is IDLE:
            self.close()
            return
        if state is WAITING:
            self.head_bytes += nbytes
            if self.head_bytes > MAX_HEAD + len(self._view):
                self._break("The upstream's reply head is too large.")
                return
        try:
            self.parser.feed_data(self._view[:nbytes])
        except httptools.HttpParserError as error:
            self._break(f"The upstream's reply is not valid HTTP: {error}.")
        except httptools.HttpParserUpgrade:
            self._break("The upstream answered with an upgrade nobody asked for.")

    def eof_received(self) -> bool:
        if (
            self.state is READING
            and self.sink is not None
            and b"content-length" not in self.headers
            and (b"chunked" not in self.headers.get(b"transfer-encoding", b"").lower())
        ):
            sink, self.sink = self.sink, None
            sink.end(delimited=False)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        state, self.state = self.state, CLOSED
        sink, self.sink = self.sink, None
        self._lost(self)
        if sink is not None:
            stale = state is WAITING and self.used > 1 and self.head_bytes == 0
            fault = Fault(
                Kind.UPSTREAM_CONNECT if state is WAITING else Kind.UPSTREAM_CUT,
                "The upstream closed the connection before its reply was complete.",
                code="upstream_stale" if stale else None,
            )
            sink.lost(fault)

    def pause_writing(self) -> None:
        """A request is written whole and its body already held; there is nobody to slow down."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    # -- parser ------------------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        self.headers = {name.lower(): value for name, value in self._fields.items()}
        self._fields.clear()
        if self.state is IDLE:  # a reply nobody asked for, in the same read as the last one's end
            self.close()
        self.informational = 100 <= status < 200
        if self.informational or self.state is CLOSED:
            return
        self.state, self.head_bytes = READING, 0
        if self.sink is not None:
            self.sink.head(status, self.headers)

    def on_body(self, body: bytes) -> None:
        if self.sink is not None:
            self.sink.data(body)

    def on_message_complete(self) -> None:
        if self.informational or self.state is CLOSED:
            return
        sink, self.sink = self.sink, None
        keep = self.parser.should_keep_alive()
        if keep:
            self.state = IDLE
        if sink is not None:
            sink.end(delimited=True)
        if keep and self.state is IDLE:
            self._idle(self)
        else:
            self.close()

    def _break(self, message: str) -> None:
        sink, self.sink = self.sink, None
        self.close()
        if sink is not None:
            sink.lost(Fault(Kind.UPSTREAM_BROKEN, message))
