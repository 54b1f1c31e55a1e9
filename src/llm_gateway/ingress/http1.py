"""One client's connection: HTTP/1.1 parsed strictly (RFC 9112), requests answered in order, nothing raw passed on.

Law: this file owns the bytes of one connection and the phase it is in; it knows nothing of keys, models or upstreams.
What httptools refuses is refused with its words; what it accepts and we do not is checked here: the size of head, URI and
body, the request line's spaces, Host, Transfer-Encoding other than `chunked` or on HTTP/1.0, Upgrade, trailers, padding
between pieces of body, more than 16 requests waiting.

    IDLE --bytes--> HEAD --headers complete--> BODY --message complete--> IDLE (of the next request) ...
    any --refused with unread body--> LINGER --EOF, 2 s or 64 MiB--> closed

Reading (`phase`) and serving (`active`) go on independently: a pipelining client's next head may be in while its last
request is served. Its next request is served only when its last reply fits the write buffer, so that a stream always
begins with a client that can be told to pause. A client's EOF means it is gone: no SDK half-closes, and waiting to see
would keep upstreams generating. HTTP/1.0 clients get one reply per connection.
A body counts in `server.body_bytes` from its first byte until its reply is over.
Callbacks that httptools or the transport calls never raise: what is wrong is kept in `x.fault` and answered in turn.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, cast

import httptools

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.core.headers import echoable
from llm_gateway.ingress import routes, strict
from llm_gateway.ingress.heads import LENGTH, STRANGER, begin, learn

if TYPE_CHECKING:
    from llm_gateway.ingress.server import Server

IDLE, HEAD, BODY, LINGER, CLOSED = "idle", "head", "body", "linger", "closed"

MAX_WAITING = 16
DISCARD = 64 << 10  # a refused request's body up to this size is read away to keep the connection
LINGER_BYTES = 64 << 20  # a refused upload is read away this far, or its client would meet a reset instead of the answer
MOST_BETWEEN = 16 << 10  # bytes of chunk lines, extensions or trailers between two pieces of body
SMALL_PIECE = 1 << 10
HIGH_WATER = 32 << 10

_UNREADABLE = frozenset((400, 414, 431))  # a request so malformed that what follows it is not trusted either
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


class Connection(asyncio.BufferedProtocol):
    __slots__ = (
        "active", "alive", "between", "discarding", "expecting", "head_bytes", "headers", "held", "incoming", "mark", "midway",
        "on_message_begin", "opening", "parser", "parts", "paused", "peer", "phase", "queue", "reading", "repeats", "resting",
        "send", "server", "sink", "spelling", "strange", "surplus", "tls", "touched", "trailers", "transport", "trusted", "unsent", "url", "wanted",
    )  # fmt: skip

    def __init__(self, server: Server, *, tls: bool = False, peer: str | None = None) -> None:
        self.server = server
        self.tls = tls
        self.peer = peer or ""
        self.trusted = self.surplus = False
        self.phase = IDLE
        self.alive = False
        self.paused = False
        self.touched = False
        self.discarding = False
        self.expecting = False
        self.trailers = False
        self.midway = False
        self.mark = 0.0
        self.head_bytes = self.between = self.repeats = self.held = 0
        self.wanted = self.strange = self.unsent = 0
        self.spelling = LENGTH
        self.url = self.opening = b""
        self.reading = server.small
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes | bytearray] = []
        self.incoming: Exchange | None = None
        self.active: Exchange | None = None
        self.queue: deque[Exchange] | None = None
        self.sink: Sink | None = None
        # Not empty while no request has begun: the parser empties it by a C call, which costs the hot path nothing.
        self.resting = {None: None}
        self.on_message_begin = self.resting.clear
        self.parser = httptools.HttpRequestParser(self)

    def __repr__(self) -> str:
        return f"<Connection {self.peer} {self.phase}{' serving' if self.active else ''}{' paused' if self.paused else ''}>"

    # -- transport ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.send = self.transport.write  # part of a reply: no step of ours lies between
        self.alive = True
        if not self.peer:
            peername = transport.get_extra_info("peername")
            self.peer = peername[0] if isinstance(peername, tuple) else "unix"
        self.server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive, self.send, self.phase = False, _unheard, CLOSED
        self._release()
        self.server.connections.discard(self)
        x, queue, sink = self.active, self.queue, self.sink
        self.active = self.incoming = self.queue = self.sink = None
        self.server.body_bytes -= sum(waiting.held for waiting in queue or ())
        if x is not None and not x.detached:
            self.server.body_bytes -= x.held
            x.held = 0  # its upstream may have its first word in this very turn, and release it
            if x.task is not None:
                x.task.cancel()
        elif x is not None and sink is not None:  # it goes on, and holds its body
            sink.resume()  # nobody is slow any more
        del self.parser  # it holds our callbacks, we hold it: a cycle for each connection there ever was

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True
        self.mark = 0.0
        if self.sink is not None:
            self.sink.pause()

    def resume_writing(self) -> None:
        self.paused = False
        if self.sink is not None:
            self.sink.resume()
        elif self.active is None and self.queue:
            self._start(self.queue.popleft())

    def get_buffer(self, sizehint: int) -> memoryview:
        server = self.server
        return server.large if self.phase is LINGER or (self.phase is BODY and self.held > server.large_from) else server.small

    def buffer_updated(self, nbytes: int) -> None:
        server, phase = self.server, self.phase
        self.touched = True
        if phase is LINGER:
            self._discard(nbytes)
            return
        if phase is BODY:
            view = server.large if self.held > server.large_from else server.small
            if self.between > MOST_BETWEEN:
                self.refuse(Fault(Kind.INVALID, "The request's chunks carry more extensions or trailers than data."))
                return
            if self.wanted:
                self._more(view, nbytes)
                return
            self.between += nbytes
        else:
            view = server.small
            if phase is IDLE:
                if self.strange < STRANGER and (x := begin(self, view, nbytes)) is not None:
                    if self.wanted:
                        self._expect(x)
                    elif self.active is None and not self.paused:
                        self._start(x)
                    else:
                        self._enqueue(x)
                    return
                self.phase, self.mark, self.head_bytes = HEAD, 0.0, 0
            self.head_bytes += nbytes
            if self.head_bytes > server.config.max_header_bytes + len(view):
                self.refuse(strict.oversize(self.url, self.server.config.max_uri))
                return
        self._feed(view[:nbytes])

    def _feed(self, reading: memoryview) -> None:
        self.reading = reading
        try:
            self.parser.feed_data(reading)
        except httptools.HttpParserUpgrade:
            if self.phase is not LINGER:
                self.refuse(Fault(Kind.INVALID, "Upgrade and CONNECT are not supported; use HTTP/1.1."))
        except httptools.HttpParserError as error:
            if self.phase is not LINGER:
                self.refuse(Fault(Kind.INVALID, f"Malformed HTTP request: {error}."))
        if self.phase is HEAD or (self.phase is IDLE and not self.resting):  # HEAD: nothing may have begun but empty lines
            self._keep_opening()

    # -- parser ------------------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is BODY:
            self.trailers = True
            return
        name = name.lower()
        headers = self.headers
        if name in headers:
            self.repeats += 1
            if self.repeats > self.server.config.max_headers:
                return  # refused by _check; joining thousands would hold the loop
            # A second field line joins the first (RFC 9110 5.3); a NUL marks what may stand only once, for _check.
            value = headers[name] + (b"\0" if name in strict.SINGLE else b", ") + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self.phase is LINGER:
            return
        parser, server, url = self.parser, self.server, self.url
        path, _, query = url.partition(b"?")
        started = perf_counter()
        method = parser.get_method()
        line = b"%b %b HTTP/" % (method, url)
        if self.phase is IDLE:
            self.midway = True
        ordinary = self.phase is HEAD and not self.opening and server.buffer.startswith(line)
        headers, self.headers = self.headers, {}
        self.url, self.phase, self.mark = b"", BODY, 0.0
        x = self.incoming = Exchange(
            id=server.next_id(), client=self, route=routes.UNKNOWN, method=method, path=path, query=query,
            headers=headers, peer=self.peer, started=started, wall=started + server.epoch, attempts=[],
        )  # fmt: skip
        request_id = headers.get(b"x-request-id")
        x.request_id = request_id.decode() if request_id is not None and echoable(request_id) else x.id
        try:
            if not ordinary:
                strict.check_line(self.opening + bytes(self.reading), method, url, midway=self.midway)
            self._check(x, parser.get_http_version())
            server.gate(x)
            strict.check_body(x.headers, server.config.max_body)
            if server.body_bytes > server.body_memory:
                raise server.no_room()
            if ordinary and self.strange < STRANGER and not self.repeats:
                learn(self, x)
        except Fault as fault:
            self._refuse_early(x, fault)
            return
        finally:
            self.head_bytes = self.repeats = self.between = 0
            self.opening, self.midway = b"", False
        if b"expect" in headers and not x.http10:
            if self.active is None:
                self.transport.write(_CONTINUE)
            else:
                self.expecting = True

    def on_body(self, body: bytes) -> None:
        self.between = 0
        x = self.incoming
        if x is None or self.discarding:
            return
        size, server = len(body), self.server
        self.held += size
        server.body_bytes += size
        if self.held > server.config.max_body:
            self._refuse_early(x, strict.too_large(server.config.max_body))
        elif server.body_bytes > server.body_memory:
            self._refuse_early(x, server.no_room())
        elif size > SMALL_PIECE or not self.parts:
            self.parts.append(body)
        else:
            self._keep(body)

    def on_message_complete(self) -> None:
        x = self.incoming
        if self.phase is BODY:
            self.phase, self.mark = IDLE, 0.0
            self.resting[None] = None
        self.discarding = self.expecting = False
        if x is None:  # refused and answered already; its body has now been read away
            return
        if self.trailers:
            self.refuse(Fault(Kind.INVALID, "Trailer fields are not accepted."))
            return
        self.incoming = None
        if self.wanted:  # its head was known, and such are kept alive
            self.wanted = 0
        elif not self.parser.should_keep_alive():
            x.keep_alive = False
        parts = self.parts
        if parts:
            x.body = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
            x.bytes_in = x.held = self.held
            self.parts, self.held = [], 0
        if self.active is None and not self.paused:
            self._start(x)
        else:
            self._enqueue(x)

    # -- replies (core.exchange.Client) ------------------------------------------------------------------------------

    def hold(self, x: Exchange, size: int) -> bool:
        """Counts bytes that a request brought along by address like those of its body."""
        room = ((x is self.active and self.alive) or x.detached) and self.server.body_bytes + size <= self.server.body_memory
        if room:
            self.server.body_bytes += size
            x.held += size
        return room

    def release(self, x: Exchange) -> None:
        """Forgets the request's body, and what was derived from it."""
        self.server.body_bytes -= x.held
        x.held = 0
        x.body, x.peek, x.marked, x.call, x.filled = b"", None, None, None, None

    def finish(self, x: Exchange, data: bytes) -> None:
        """The last bytes of the reply to `x`; the next request may start."""
        if x is not self.active or not self.alive:
            return
        self.active = self.sink = None
        self.server.body_bytes -= x.held
        self.transport.write(data)
        if not x.keep_alive:  # said in its head: what was promised to stay open stays, also while draining, until the next reply
            self._close()
        elif self.queue:
            if not self.paused:
                self._start(self.queue.popleft())
        else:
            self.mark = 0.0
            if self.expecting:
                self.expecting = False
                self.transport.write(_CONTINUE)

    def abort(self, x: Exchange) -> None:
        """Ends a broken reply so that no client takes it for whole: no chunk terminator, and for HTTP/1.0 a reset."""
        if x is not self.active or not self.alive:
            return
        self.active = self.sink = None
        self.server.body_bytes -= x.held
        if x.http10:
            raw = self.transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
            return
        self.transport.close()

    def refuse(self, fault: Fault) -> None:
        """Answers what could not be read, after whatever is being served, and closes; whose head is known is told as what it asked for."""
        x, self.incoming = self.incoming, None
        self._release()
        self._linger()
        if x is None:
            id_, route, now = self.server.next_id(), routes.unknown(self.url), perf_counter()
            x = Exchange(id=id_, client=self, route=route, peer=self.peer, attempts=[], started=now, wall=now + self.server.epoch, request_id=id_, headers={})
        x.fault, x.keep_alive = fault, False
        self._enqueue(x)

    # -- heads that come again ---------------------------------------------------------------------------------------

    def _expect(self, x: Exchange) -> None:
        """The head was known; of the body only a beginning is there, or nothing."""
        self.phase, self.incoming, self.between = BODY, x, 0
        beginning, x.body = x.body, b""
        if beginning:
            self.on_body(beginning)

    def _more(self, view: memoryview, nbytes: int) -> None:
        """A piece of a body whose head was not parsed; what follows it is another request's."""
        size = min(nbytes, self.wanted)
        self.on_body(bytes(view[:size]))
        if self.phase is not BODY:
            return
        if size < self.wanted:
            self.wanted -= size
            return
        self.on_message_complete()
        self.wanted = 0
        if nbytes > size and self.phase is IDLE:
            self._feed(view[size:nbytes])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _enqueue(self, x: Exchange) -> None:
        if self.active is None and not self.paused:
            self._start(x)
            return
        if self.queue is None:
            self.queue = deque()
        self.queue.append(x)
        if len(self.queue) > MAX_WAITING:
            self._linger()
            self.transport.abort()

    def _keep(self, body: bytes) -> None:
        """Many small pieces share one buffer: kept apart, a million one-byte chunks would cost forty bytes each."""
        if type(self.parts[-1]) is bytearray:
            self.parts[-1] += body
        else:
            self.parts.append(bytearray(body))

    def _keep_opening(self) -> None:
        """A head continues in the next read: what there is of it is kept to see its first line whole."""
        if self.phase is IDLE:  # it began behind the end of the last request
            self.phase, self.mark, self.head_bytes, self.midway = HEAD, 0.0, 0, True
        if self.phase is HEAD:
            self.opening += bytes(self.reading)

    def _linger(self) -> None:
        """Nothing more is read for its meaning."""
        self.phase, self.mark, self.head_bytes = LINGER, 0.0, 0
        self.expecting, self.opening = False, b""

    def _start(self, x: Exchange) -> None:
        self.active = x
        server = self.server
        if server.draining or server.shedding or len(server.connections) > server.crowded:
            x.keep_alive = False
        x.task = server.start(x)

    def _check(self, x: Exchange, version: str) -> None:
        """What httptools lets through and we do not."""
        headers = x.headers
        if version != "1.1":
            if version != "1.0":
                raise Fault(Kind.INVALID, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
            x.http10, x.keep_alive = True, False
        if b"transfer-encoding" in headers and (x.http10 or headers[b"transfer-encoding"].lower() != b"chunked"):
            raise Fault(Kind.INVALID, "The only Transfer-Encoding is `chunked`, in HTTP/1.1.", param="Transfer-Encoding")
        if b"upgrade" in headers and self.parser.should_upgrade():
            raise Fault(Kind.INVALID, "Upgrade is not supported; use HTTP/1.1.", param="Upgrade")
        server = self.server
        host = headers.get(b"host")
        if not host or host != server.host:  # the last good one, which nearly everybody sends
            strict.check_host(host, http10=x.http10)
            server.host = host or server.host
        config = server.config
        if len(x.path) + len(x.query) > config.max_uri:
            raise strict.long_uri(config.max_uri)
        if len(headers) + self.repeats > config.max_headers:
            raise Fault(Kind.HEADERS_TOO_LARGE, f"At most {config.max_headers} header fields are allowed.")
        if (
            (self.head_bytes > config.max_header_bytes or self.midway)
            and sum(map(len, headers)) + sum(map(len, headers.values())) > config.max_header_bytes
        ):
            raise Fault(Kind.HEADERS_TOO_LARGE, f"At most {config.max_header_bytes} header bytes are allowed.")
        if self.repeats:
            strict.check_single(headers)
        if x.method not in strict.METHODS:
            raise Fault(Kind.METHOD, f"Method {routes.printable(x.method)} is not allowed here.")
        if x.path[:1] != b"/" or b"#" in x.query or b"#" in x.path:
            x.path = strict.origin_form(x)
        if self.trusted:
            x.peer = server.forwarded(headers.get(b"x-forwarded-for"), self.peer)

    def _refuse_early(self, x: Exchange, fault: Fault) -> None:
        """Refuses before the body is in: small bodies are read away, else the connection lingers and closes."""
        x.fault = fault
        if x.route is routes.UNKNOWN:
            x.route = routes.unknown(x.path)
        self._release()
        self.incoming = None
        length = x.headers.get(b"content-length", b"0")
        framed = length.isdigit() and strict.size(length) <= DISCARD and b"transfer-encoding" not in x.headers
        if (
            not framed or x.http10 or b"expect" in x.headers or fault.kind.status in _UNREADABLE
            or self.parser.should_upgrade()
        ):  # fmt: skip
            x.keep_alive = False
            self._linger()
        else:
            self.discarding = True
        if b"close" in x.headers.get(b"connection", b"").lower():
            x.keep_alive = False
        self._enqueue(x)

    def _discard(self, nbytes: int) -> None:
        self.head_bytes += nbytes
        if self.head_bytes > LINGER_BYTES:
            if self.active is None:
                self.transport.abort()
            else:
                self.transport.pause_reading()

    def _release(self) -> None:
        self.server.body_bytes -= self.held
        self.held = 0
        self.parts = []

    def _close(self) -> None:
        if self.phase is LINGER or self.discarding:
            # An unread body would turn our close into a reset and eat the answer: say EOF, then read on for a while.
            self._linger()
            self.transport.resume_reading()
            if self.transport.can_write_eof():
                self.transport.write_eof()
            return
        self.transport.close()


def _unheard(data: object) -> None:
    """What an upstream says in the very turn in which the client has gone; its task hears of that in the next."""


class Sink(Protocol):
    """What a connection tells of its write buffer to whoever feeds it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
