"""One connection to an upstream: a request goes out, its reply is told to a sink as it is parsed, byte for byte in order.

Law: this file knows HTTP/1.1 and nothing of what the bytes mean. It may be used again only if the reply completed, both
sides said keep-alive and nothing followed; a byte on an idle connection closes it. 1xx replies are skipped. A reply
without length that ends by EOF is complete only if the sink says that this is good enough (plain replies, never streams).

    FRESH --connected--> IDLE --send--> WAITING --headers--> READING --complete--> IDLE ...
    READING --leave() before the end--> LEFT --complete--> IDLE, or closed by the sweep
    any --close(), an error, EOF--> CLOSED

Only a reader pauses it, and it never rests paused: an idle connection must hear of its end, the next reply must be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, cast

import httptools

from llm_gateway.core.errors import Fault, Kind

FRESH, IDLE, WAITING, READING, LEFT, CLOSED = "fresh", "idle", "waiting", "reading", "left", "closed"

MAX_HEAD = 64 << 10  # bytes of head, and of chunk lines or trailers between two pieces of body
MAX_HEADERS = 200
MOST_NAMES, LONGEST_NAME = 1024, 64  # remembered
HIGH_WATER = 256 << 10


class Sink(Protocol):
    """Who a reply is told to. None of these may raise."""

    def head(self, status: int, headers: dict[bytes, bytes]) -> None: ...
    def data(self, body: bytes) -> None: ...
    def end(self, *, delimited: bool) -> None: ...  # delimited False: only EOF said that it is over
    def lost(self, fault: Fault) -> None: ...


class Connection(asyncio.BufferedProtocol):
    __slots__ = (
        "_bodies", "_fields", "_idle", "_lost", "_lower", "_resting", "_view", "head_bytes", "headers", "informational", "on_body",
        "on_header", "on_message_begin", "parser", "paused", "since", "sink", "state", "transport", "used",
    )  # fmt: skip

    def __init__(
        self, buffer: memoryview, idle: Callable[[Connection], None], lost: Callable[[Connection], None], lower: dict[bytes, bytes]
    ) -> None:
        """lower: field names as they came -> in lower case; shared by all connections."""
        self._view = buffer
        self._lower = lower
        self._idle = idle
        self._lost = lost
        self.state = FRESH
        self.paused = False
        self.transport: asyncio.Transport | None = None
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
        # Not empty from a reply's end until something follows it; emptied by a C call like the above.
        self._resting = {None: None}
        self.on_message_begin = self._resting.clear
        # The pieces of body within one read are told together: events that came together go on in one write, not in one each.
        self._bodies: list[bytes] = []
        self.on_body = self._bodies.append

    def __repr__(self) -> str:
        return f"<upstream Connection {self.state}, request {self.used}>"

    def send(self, request: bytes, sink: Sink) -> None:
        """Writes one request, whole. The connection must be idle."""
        self.sink = sink
        self.state = WAITING
        self.used += 1
        self.informational = False
        if self.transport is not None:
            self.transport.write(request)

    def leave(self) -> None:
        """The sink wants no more. A reply still on its way is read to its end for reuse, if it ends soon."""
        self.sink = None
        if self.state is READING:
            self.state, self.since = LEFT, 0.0
            self._read_on()
        elif self.state is WAITING:
            self.close()

    def close(self) -> None:
        """At once, unsent bytes dropped: an upstream that still generates must hear of it."""
        self.sink = None
        if self.state is not CLOSED:
            self.state = CLOSED
            if self.transport is not None:
                self.transport.abort()

    def pause(self) -> None:
        if self.state is READING and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.state is READING:
            self._read_on()

    # -- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = tcp = cast(asyncio.Transport, transport)
        if self.state is CLOSED:  # nobody waits for it any more
            tcp.abort()
            return
        tcp.set_write_buffer_limits(high=HIGH_WATER)
        self.parser = httptools.HttpResponseParser(self)
        self.state = IDLE

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        state = self.state
        if state is IDLE:
            self.close()
            return
        if self.head_bytes > MAX_HEAD:
            self._break("The upstream's reply has too large a head, or too much between its pieces of body.")
            return
        self.head_bytes += nbytes
        try:
            self.parser.feed_data(self._view[:nbytes])
        except httptools.HttpParserError as error:
            if self._bodies:
                self._tell()
            self._break(f"The upstream's reply is not valid HTTP: {error}.")
        except httptools.HttpParserUpgrade:
            self._break("The upstream answered with an upgrade nobody asked for.")
        if self._bodies:
            self._tell()
        if self.state is IDLE and not self._resting:
            self.close()  # the beginning of a reply nobody asked for

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
        del self.parser  # it holds our callbacks, we hold it: a cycle for each connection there ever was
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
        fields = self._fields
        lower = self._lower
        try:
            self.headers = {lower[name]: value for name, value in fields.items()}
        except KeyError:
            self.headers = {name.lower(): value for name, value in fields.items()}
            self._learn(fields)
        if self.state is IDLE:  # a reply nobody asked for, in the same read as the last one's end
            self.close()
        elif len(fields) > MAX_HEADERS:
            self._break(f"The upstream's reply has more than {MAX_HEADERS} header fields.")
        fields.clear()
        self.informational = 100 <= status < 200
        if self.informational or self.state is CLOSED:
            return
        self.state, self.head_bytes = READING, 0
        if self.sink is not None:
            self.sink.head(status, self.headers)

    def on_message_complete(self) -> None:
        if self.informational or self.state is CLOSED:
            return
        if self._bodies:
            self._tell()
        sink, self.sink = self.sink, None
        if self._fields:  # trailers: they belong to no head, least of all to the next one
            self._fields.clear()
        self.head_bytes = 0
        keep = self.parser.should_keep_alive()
        if keep:
            self.state = IDLE
            self._resting[None] = None
            if self.paused:
                self._read_on()
        if sink is not None:
            sink.end(delimited=True)
        if keep and self.state is IDLE:
            self._idle(self)
        else:
            self.close()

    def _tell(self) -> None:
        """What came of the body in this read."""
        bodies = self._bodies
        body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        bodies.clear()
        self.head_bytes = 0
        if self.sink is not None:
            self.sink.data(body)

    def _learn(self, names: Iterable[bytes]) -> None:
        """They come again, reply after reply."""
        if len(self._lower) >= MOST_NAMES:
            self._lower.clear()
        self._lower.update((name, name.lower()) for name in names if len(name) <= LONGEST_NAME)

    def _read_on(self) -> None:
        self.paused = False
        if self.transport is not None:
            self.transport.resume_reading()

    def _break(self, message: str) -> None:
        sink, self.sink = self.sink, None
        self.close()
        if sink is not None:
            sink.lost(Fault(Kind.UPSTREAM_BROKEN, message))
