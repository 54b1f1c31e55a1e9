"""Connections kept per origin: last used first, expired when idle, bounded, and opened by racing addresses.

Law: an origin is scheme, host, port, TLS settings and outbound proxy together; connections are never shared between two.
Taking an idle connection is a plain call; only opening one awaits. TLS is always verified unless the configuration says
otherwise for that provider, and never falls back to plain text.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from urllib.parse import unquote, urlsplit

import aiofastnet
from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.upstream.dns import Address, Resolver, interleave
from llm_gateway.upstream.echo import EchoConnection
from llm_gateway.upstream.http1 import IDLE, LEFT, Connection

RACE = 0.25  # seconds between starting two addresses (RFC 8305 section 5)
LEFT_SECONDS = 5.0
MOST_TUNNEL_HEAD = 8 << 10

Stamps = tuple[tuple[int, int, int] | None, ...]


class Tls(Struct, frozen=True):
    verify: bool = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(file for file in (self.ca, self.cert, self.key) if file is not None)


class Origin(Struct, frozen=True):
    scheme: str
    host: str
    port: int
    tls: Tls = Tls()
    proxy: str | None = None
    connect_timeout: float = 5.0
    idle_timeout: float = 60.0
    max_connections: int = 1000

    @property
    def authority(self) -> str:
        """For the Host field: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}.get(self.scheme) else f"{host}:{self.port}"


class Bay:
    """One origin's connections. context: instead of one made from the origin's TLS settings, which reads certificates."""

    __slots__ = ("context", "files", "idle", "open", "origin", "retired", "seen", "waiting")

    def __init__(self, origin: Origin, context: ssl.SSLContext | None = None) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.open: set[Connection] = set()
        self.waiting: deque[asyncio.Future[Connection | None]] = deque()
        self.retired = False  # no configuration names it any more: what comes back is closed
        tls = origin.tls if origin.scheme == "https" and context is None else Tls()
        self.files = tls.files
        self.seen = stamps(self.files)
        self.context = (context or tls_context(tls)) if origin.scheme == "https" else None

    def refresh(self) -> None:
        """New connections go by what the files of its TLS settings hold now; by what they held before while that is not whole."""
        found = stamps(self.files)
        if found != self.seen:
            with contextlib.suppress(OSError, ssl.SSLError):
                self.context, self.seen = tls_context(self.origin.tls), found

    def __repr__(self) -> str:
        return (
            f"<Bay {self.origin.authority} {len(self.open)} open, {len(self.idle)} idle, {len(self.waiting)} waiting>"
        )


class Pool:
    def __init__(self, buffer: memoryview) -> None:
        self.bays: dict[Origin, Bay] = {}
        self.retired: list[Bay] = []  # with connections still in use
        self.opened = 0
        self._buffer = buffer
        self._resolver = Resolver()
        self._lower: dict[bytes, bytes] = {}

    def bay(self, origin: Origin) -> Bay:
        bay = self.bays.get(origin)
        if bay is None:
            bay = self.bays[origin] = Bay(origin)
        return bay

    def take(self, bay: Bay) -> Connection | None:
        """The idle connection used last, or None: then `open` one."""
        idle = bay.idle
        while idle:
            connection = idle.pop()
            if connection.state is IDLE:
                return connection
        return None

    async def open(self, bay: Bay) -> Connection | EchoConnection:
        """A new connection, or an old one that came back while we waited at the bound. Raises Fault UPSTREAM_*."""
        origin = bay.origin
        if origin.scheme == "echo":
            return EchoConnection()
        waited = False
        while len(bay.open) >= origin.max_connections:
            connection = await self._turn(bay, first=waited)
            if connection is not None and connection.state is IDLE:
                return connection
            waited = True
        opened = Connection(self._buffer, partial(self._idle, bay), partial(self._lost, bay), self._lower)
        bay.open.add(opened)
        try:
            async with asyncio.timeout(origin.connect_timeout):
                await self._connect(bay, opened)
        except BaseException as error:
            opened.close()
            self._lost(bay, opened)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise _connect_fault(origin, error) from None
        self.opened += 1
        return opened

    def sweep(self, now: float) -> None:
        """Closes what has been idle too long, or was left and does not end; re-reads changed certificates."""
        self.retired = [bay for bay in self.retired if bay.open]
        for bay in (*self.bays.values(), *self.retired):
            for connection in list(bay.open):
                if connection.state is IDLE or connection.state is LEFT:
                    limit = bay.origin.idle_timeout if connection.state is IDLE else LEFT_SECONDS
                    connection.since = connection.since or now
                    if now - connection.since > limit:
                        connection.close()
            bay.idle = [c for c in bay.idle if c.state is IDLE]
            if bay.files:
                bay.refresh()

    def forget(self, keep: set[Origin]) -> None:
        """After a reload: closes idle connections to origins that are not used any more."""
        for origin in [o for o in self.bays if o not in keep]:
            bay = self.bays.pop(origin)
            bay.retired = True
            self.retired.append(bay)
            for connection in list(bay.idle):
                connection.close()

    def close(self) -> None:
        for bay in self.bays.values():
            for connection in list(bay.open):
                connection.close()
        self._resolver.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _idle(self, bay: Bay, connection: Connection) -> None:
        if bay.retired:
            connection.close()
            return
        connection.since = 0.0
        if not (bay.waiting and self._wake(bay, connection)):
            bay.idle.append(connection)

    def _lost(self, bay: Bay, connection: Connection) -> None:
        bay.open.discard(connection)
        self._wake(bay, None)

    async def _turn(self, bay: Bay, *, first: bool) -> Connection | None:
        """Waits at the bound. Returns the connection that came back, handed over so that no newcomer can take it, or None
        where one went away and another may be opened. first: this request has waited before."""
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        (bay.waiting.appendleft if first else bay.waiting.append)(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in bay.waiting:
                    bay.waiting.remove(turn)
            elif (granted := turn.result()) is None:  # it was our turn, but we are leaving: the next one's, then
                self._wake(bay, None)
            elif granted.state is IDLE:
                self._idle(bay, granted)
            raise

    def _wake(self, bay: Bay, connection: Connection | None) -> bool:
        """Gives the connection, or leave to open one, to who waits longest; False if nobody waits."""
        while bay.waiting:
            turn = bay.waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    async def _connect(self, bay: Bay, connection: Connection) -> None:
        loop, origin = asyncio.get_running_loop(), bay.origin
        server_name = (origin.tls.server_name or origin.host) if bay.context else None
        if origin.proxy is not None:
            sock = await self._tunnel(origin)
        else:
            sock = await self._race(origin.host, origin.port)
        factory: Callable[[], asyncio.BaseProtocol] = lambda: connection  # noqa: E731
        try:
            if bay.context is None:
                await loop.create_connection(factory, sock=sock)
            else:
                await aiofastnet.create_connection(
                    loop, factory, sock=sock, ssl=bay.context, server_hostname=server_name
                )
        except BaseException:
            sock.close()
            raise

    async def _race(self, host: str, port: int) -> socket.socket:
        """The first address that accepts, started 250 ms apart (RFC 8305)."""
        addresses = interleave(await self._resolver.resolve(host))
        if len(addresses) == 1:
            return await _dial(addresses[0], port)
        attempts: set[asyncio.Task[socket.socket]] = set()
        failure: BaseException = OSError("no address")
        try:
            while addresses or attempts:
                if addresses:
                    attempts.add(asyncio.ensure_future(_dial(addresses.pop(0), port)))
                done, attempts = await asyncio.wait(
                    attempts, timeout=RACE if addresses else None, return_when=asyncio.FIRST_COMPLETED
                )
                for attempt in done:
                    error = attempt.exception()
                    if error is None:
                        attempts |= done - {attempt}  # two at once: the other is closed below
                        return attempt.result()
                    failure = error
        finally:
            for attempt in attempts:
                attempt.add_done_callback(_discard)
                attempt.cancel()
        raise failure

    async def _tunnel(self, origin: Origin) -> socket.socket:
        """A connection through an HTTP proxy's CONNECT (RFC 9110 section 9.3.6)."""
        proxy = urlsplit(origin.proxy or "")
        sock = await self._race(proxy.hostname or "", proxy.port or 80)
        loop = asyncio.get_running_loop()
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.username:
            credentials = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
        try:
            await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
            await _tunnelled(loop, sock)
        except BaseException:
            sock.close()
            raise
        return sock


async def _tunnelled(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Reads the outbound proxy's answer, byte by byte: what follows its head belongs to the tunnel."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = await loop.sock_recv(sock, 1)
        if not piece or len(head) > MOST_TUNNEL_HEAD:
            raise OSError("the outbound proxy closed the connection")
        head += piece
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise OSError(f"the outbound proxy refused with status {b''.join(status).decode('ascii', 'replace')}")


async def _dial(address: Address, port: int) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address.host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _discard(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def stamps(files: tuple[str, ...]) -> Stamps:
    """Tells files that were written again from what they were; None: it is not there."""
    found: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116
        except OSError:
            found.append(None)
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)


def tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def _connect_fault(origin: Origin, error: BaseException) -> Fault:
    where = origin.authority
    if isinstance(error, Fault):
        return error
    if isinstance(error, TimeoutError):
        return Fault(Kind.UPSTREAM_CONNECT, f"Could not connect to {where} within {origin.connect_timeout:g} s.",
                     code="upstream_connect_timeout")  # fmt: skip
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or "TLS handshake failed"
        return Fault(Kind.UPSTREAM_TLS, f"The TLS connection to {where} failed: {reason}.")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Fault(Kind.UNAVAILABLE, "The gateway has no file descriptors left; try again.", code="no_descriptors", retry_after=1.0)
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else error
        return Fault(Kind.UPSTREAM_CONNECT, f"Could not connect to {where}: {reason}.")
    raise error
