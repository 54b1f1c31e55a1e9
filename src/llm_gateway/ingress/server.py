"""What one worker's connections share: configuration, buffers, counts, and the sweep that keeps their time limits.

Law: one sweep over all connections each half second instead of a timer per connection (a timer costs 2 us to arm and
cancel); limits are therefore kept to +0.5 s. Certificates are re-read when their files change; connections already open
keep what they began with. What has not got as far as a request (a PROXY head, a TLS handshake behind one) is swept, too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast
from weakref import WeakSet

import aiofastnet

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.ingress import memory
from llm_gateway.ingress.early import Handshake, Listening
from llm_gateway.ingress.heads import Heads
from llm_gateway.ingress.http1 import BODY, CLOSED, HEAD, IDLE, LINGER, Connection
from llm_gateway.ingress.proxy import ProxyHead
from llm_gateway.policies.overload import BODIES, CONNECTIONS, LAG, REFUSE, STOP_KEEP_ALIVE, Overload
from llm_gateway.upstream.pool import Stamps, stamps

if TYPE_CHECKING:
    from llm_gateway.core.exchange import Exchange

SWEEP = 0.5
LINGER_SECONDS = 2.0
SMALL, LARGE = 16 << 10, 256 << 10
FIRST = 1 << 48  # a request's number is the twelve digits behind this one's first: more than a worker ever serves
SPARE_FILES = 64  # of a worker's own: its listeners, journal, channel, threads' and what is open for a moment

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Limits(Protocol):
    """Bytes, counts and seconds; config.snapshot.Server is one."""

    @property
    def max_connections(self) -> int: ...
    @property
    def max_streams(self) -> int | None: ...
    @property
    def max_loop_lag(self) -> float: ...
    @property
    def max_body(self) -> int: ...
    @property
    def max_header_bytes(self) -> int: ...
    @property
    def max_headers(self) -> int: ...
    @property
    def max_uri(self) -> int: ...
    @property
    def header_timeout(self) -> float: ...
    @property
    def body_timeout(self) -> float: ...
    @property
    def idle_timeout(self) -> float: ...
    @property
    def send_timeout(self) -> float: ...
    @property
    def body_memory(self) -> int | None: ...
    @property
    def trusted_proxies(self) -> tuple[str, ...]: ...


class Server:
    """`gate(x)` raises a Fault when the head alone is enough to refuse; `start(x)` begins serving a whole request, or has answered it already (None).

    A reply ends its connection while `draining`, `shedding` (`uneven`: more than our share, or too much of something) or with
    more than `crowded` open. While a connection beyond REFUSE is open or the loop is late, requests pass `_guarded` instead of
    the gate alone, so that others pay nothing for it. workers, files: how many share the machine's memory, and the descriptors
    that this one may open. Until the first `adopt` every request is refused."""

    def __init__(
        self,
        config: Limits,
        start: Callable[[Exchange], asyncio.Task[None] | None],
        prefix: str,
        *,
        workers: int = 1,
        files: int = 1 << 20,
    ) -> None:
        self.start = start
        self.connections: set[Connection] = set()
        self.buffer = bytearray(SMALL)
        self.small = memoryview(self.buffer)
        self.large = memoryview(bytearray(LARGE))
        self.large_from = LARGE
        self.body_bytes = 0
        self.draining = False
        self.host = b""  # the last good Host value
        self.shedding = self.uneven = False
        self.overload = Overload()
        self._workers = workers
        self._files = files
        self.epoch = time.time_ns() / 1e9 - time.perf_counter()
        self._prefix = prefix
        self._serial = FIRST
        self._contexts: list[_Certificates] = []
        self._heads: dict[ProxyHead, float] = {}
        self._handshakes: WeakSet[Handshake] = WeakSet()
        self._upgrades: set[asyncio.Task[None]] = set()
        self.heads = Heads()
        self.adopt(config, _refuse_all)

    def adopt(
        self, config: Limits, gate: Callable[[Exchange], None], again: Callable[[Exchange], None] | None = None
    ) -> None:
        """Takes new limits and a new gate over; open connections keep going under them. again: what of the gate is asked anew of a
        request whose head it has let pass before; all of it, if None."""
        self.config = config
        self._gate = self.gate = gate
        self.again = again or gate
        self.heads.forget()
        self.body_memory = config.body_memory or memory.bodies(self._workers, config.max_body)
        self.overload.adopt(config.max_streams, config.max_loop_lag)
        self._trusted: tuple[Network, ...] = tuple(ipaddress.ip_network(n, strict=False) for n in config.trusted_proxies)
        # A request may need a second descriptor, for its upstream: connections that could not be served are not accepted.
        self._most = min(config.max_connections, max((self._files - SPARE_FILES) // 2, 1))
        self.crowded = int(self._most * STOP_KEEP_ALIVE)
        self._full = int(self._most * REFUSE)
        self.strain()

    def next_id(self) -> str:
        self._serial += 1
        return self._prefix + hex(self._serial)[3:]  # a third of what formatting takes

    def admit(self, connection: Connection) -> None:
        """A new connection is counted, or told that there are too many."""
        self.connections.add(connection)
        if self._trusted:
            connection.trusted = self._is_trusted(connection.peer)
        if len(self.connections) > self._full:
            connection.surplus = True
            self.gate, self.unguarded = self._guarded, False
            if self._overflows():
                # Those who are told so, and whose answer is on its way, must not take the last descriptors either: a loop that
                # cannot accept spins.
                self.overload.refuse(CONNECTIONS)
                connection.transport.abort()
            elif len(self.connections) > self._most:
                connection.refuse(self.overload.refuse(CONNECTIONS))

    @property
    def early(self) -> int:
        """Who has connected and is no connection yet: before the end of a PROXY head or a TLS handshake."""
        return len(self._heads) + len(self._handshakes) + len(self._upgrades)

    def _overflows(self) -> bool:
        return len(self.connections) + self.early > self._most + SPARE_FILES // 2

    def strain(self) -> None:
        """After each beat of the clock: whether there is too much to do."""
        overload = self.overload
        self.shedding = self.uneven or overload.crowded or self.body_bytes > self.body_memory * STOP_KEEP_ALIVE
        self.unguarded = not (overload.late or len(self.connections) > self._full)
        self.gate = self._gate if self.unguarded else self._guarded

    def _guarded(self, x: Exchange) -> None:
        """Health is always told; anything else is refused when the loop is late, or on a connection too many."""
        self._gate(x)
        if x.route.open:
            return
        if self.overload.late:
            raise self.overload.refuse(LAG)
        if cast("Connection", x.client).surplus:
            x.keep_alive = False
            raise self.overload.refuse(CONNECTIONS)

    def no_room(self) -> Fault:
        return self.overload.refuse(BODIES)

    def forwarded(self, header: bytes | None, peer: str) -> str:
        """The rightmost address of X-Forwarded-For that is not one of our own proxies; `peer` if there is none."""
        for hop in reversed((header or b"").split(b",")):
            address = hop.strip().decode("ascii", "replace")
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            if not self._is_trusted(address):
                return address
            peer = address
        return peer

    def _is_trusted(self, address: str) -> bool:
        if address == "unix":
            return True
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:  # how a dual-stack socket says IPv4
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._trusted)

    # -- listening ---------------------------------------------------------------------------------------------------

    async def listen(
        self, sock: socket.socket, tls: tuple[str, str, str | None] | None, *, proxied: bool
    ) -> asyncio.AbstractServer:
        """Serves connections that arrive on a bound socket. tls: (certificate, key, client CA) files."""
        loop = asyncio.get_running_loop()
        context = None
        if tls is not None:
            certificates = _Certificates(*tls)
            self._contexts.append(certificates)
            context = certificates.context
        secure = context is not None
        if proxied:
            factory: Callable[[], asyncio.BaseProtocol] = partial(self._proxied, context)
            context = None
        else:
            factory = self._handshake if secure else partial(Connection, self)
        if context is not None:
            patient = cast("socket.socket", Listening(sock))
            return await aiofastnet.create_server(
                loop, factory, sock=patient, ssl=context, backlog=2048, ssl_handshake_timeout=self.config.header_timeout
            )
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(factory, sock=sock, backlog=2048)
        return await loop.create_server(factory, sock=sock, backlog=2048)

    def _handshake(self) -> Handshake:
        """Raises ConnectionAbortedError where there is no room; the socket is closed then."""
        handshake = Handshake(self._shaken, self._handshakes)
        if self._overflows():
            self.overload.refuse(CONNECTIONS)
            raise ConnectionAbortedError
        return handshake

    def _shaken(self, handshake: Handshake, transport: asyncio.Transport) -> None:
        self._handshakes.discard(handshake)
        connection = Connection(self, tls=True)
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def _proxied(self, context: ssl.SSLContext | None) -> ProxyHead:
        head = ProxyHead(self._began, partial(self._proceed, context), self._gone)
        self._heads[head] = 0.0
        return head

    def _began(self, head: ProxyHead) -> None:
        if self._overflows():
            self.overload.refuse(CONNECTIONS)
            head.transport.abort()

    def _gone(self, head: ProxyHead) -> None:
        self._heads.pop(head, None)

    def _proceed(self, context: ssl.SSLContext | None, head: ProxyHead, peer: str | None) -> None:
        self._gone(head)
        transport = head.transport
        direct = transport.get_extra_info("peername")
        if direct is None:  # it has gone already
            transport.abort()
            return
        if self._trusted and not self._is_trusted(direct[0]):
            peer = None  # whom a stranger says he is
        connection = Connection(self, tls=context is not None, peer=peer)
        if context is None:
            transport.set_protocol(connection)
            connection.connection_made(transport)
            return
        transport.pause_reading()
        upgrade = asyncio.ensure_future(self._upgrade(context, transport, connection))
        self._upgrades.add(upgrade)
        upgrade.add_done_callback(self._upgrades.discard)

    async def _upgrade(self, context: ssl.SSLContext, transport: asyncio.Transport, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        limit = self.config.header_timeout
        try:
            secured = await loop.start_tls(
                transport, connection, context, server_side=True, ssl_handshake_timeout=limit
            )
        except OSError:  # also what ssl raises
            transport.abort()
            return
        if secured is not None:
            connection.connection_made(secured)

    # -- time --------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Ends connections that have been too slow; re-reads changed certificates. `now` is perf_counter()."""
        self.epoch = time.time_ns() / 1e9 - now
        for connection in list(self.connections):
            self._check(connection, now)
        for head, since in list(self._heads.items()):
            if not since:
                self._heads[head] = now
            elif now - since > self.config.header_timeout:
                head.transport.abort()
        for certificates in self._contexts:
            certificates.refresh()

    def _check(self, connection: Connection, now: float) -> None:
        phase = connection.phase
        if connection.touched:
            connection.touched = False
            if (phase is BODY or phase is IDLE) and not connection.paused:
                connection.mark = now
        if not connection.mark:
            connection.mark = now
            return
        age = now - connection.mark
        if connection.paused:
            unsent = connection.transport.get_write_buffer_size()
            if unsent < connection.unsent:  # slow, but it reads
                connection.mark = now
            elif age > self.config.send_timeout:
                connection.transport.abort()
            connection.unsent = unsent
        elif phase is IDLE:
            if connection.active is None and age > self.config.idle_timeout:
                _close(connection.transport)
        elif phase is HEAD and connection.active is None and age > self.config.header_timeout:
            connection.refuse(Fault(Kind.SLOW_CLIENT, "The request's head did not arrive in time."))
        elif phase is BODY and age > self.config.body_timeout:
            if connection.discarding:  # answered already; only its unwanted body is missing
                connection.transport.abort()
                return
            connection.refuse(Fault(Kind.SLOW_CLIENT, "The request's body did not arrive in time."))
        elif phase is LINGER and connection.active is None and age > LINGER_SECONDS:
            connection.transport.abort()

    def close_idle(self) -> None:
        """Draining: closes connections that have nothing in hand."""
        for connection in list(self.connections):
            if connection.active is None and connection.phase in (IDLE, CLOSED):
                connection.transport.close()


def _close(transport: asyncio.Transport) -> None:
    """Politely the first time; a transport still flushing to a peer that takes nothing is cut the second time."""
    if transport.is_closing():
        transport.abort()
    else:
        transport.close()


def _refuse_all(_x: Exchange) -> None:
    raise Fault(Kind.OVERLOADED, "Starting up; try again.", retry_after=1.0)


class _Certificates:
    """A TLS context that follows its files: new handshakes use new certificates. A client CA is added, never taken away."""

    def __init__(self, cert: str, key: str, client_ca: str | None) -> None:
        self._files = (cert, key, client_ca)
        self._seen = self._stamps()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load()

    def refresh(self) -> None:
        found = self._stamps()
        if found != self._seen:
            try:
                self._load()
            except (OSError, ssl.SSLError):
                return  # half-written files: the old certificate stays, the next sweep tries again
            self._seen = found

    def _load(self) -> None:
        cert, key, client_ca = self._files
        # On trial first: a certificate loaded without its key would already have replaced the good pair.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
        self.context.load_cert_chain(cert, key)
        if client_ca is not None:
            self.context.load_verify_locations(client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED

    def _stamps(self) -> Stamps:
        return stamps(tuple(file for file in self._files if file is not None))
