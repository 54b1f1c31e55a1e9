"""Fetches what an address of a client's holds, once, from the very address that was judged.

Law: the name is resolved once, every answer must be reachable by the rules, and the connection goes to one of those
answers; the name is only told (Host, SNI, certificate). A GET with no credential, cookie or header of a client's; no
redirect is followed, no encoding asked for; the connection is never used again, nor shared with an upstream's. A failure is
a word of a closed set, and none says what lies behind an address.

Names that clients choose are resolved by threads of their own: slow ones never wait before an upstream's.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.addresses import Place, Rules, reachable
from llm_gateway.upstream.dns import Address, Resolver, interleave
from llm_gateway.upstream.pool import Bay, Origin, Pool, Tls, tls_context

CONNECT_SECONDS = 3.0  # per address
MOST_ADDRESSES = 3
MOST_AT_ONCE = 256  # fetches of one worker; the next waits, as long as its request may
UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})  # what object stores say of what nobody typed
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)

Failure = Literal["refused", "failed", "timeout", "too_large", "full"]


class Fetched(Struct, frozen=True):
    """mime: lower case, without parameters."""

    mime: str
    charset: str
    body: bytearray


class Order(Struct, frozen=True):
    """accepts: how the types begin that will do. most: bytes. room: asked for each piece; anything but None ends it."""

    place: Place
    accepts: tuple[str, ...]
    most: int
    seconds: float
    room: Callable[[int], Failure | None]


class Fetcher:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._resolver = Resolver()
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)
        self._context: ssl.SSLContext | None = None

    async def fetch(self, order: Order, rules: Rules) -> Fetched | Failure:
        async with self._turns:
            try:
                async with asyncio.timeout(order.seconds):
                    return await self._fetch(order, rules)
            except TimeoutError:
                return "timeout"
            except Fault:
                return "failed"

    def close(self) -> None:
        self._resolver.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _fetch(self, order: Order, rules: Rules) -> Fetched | Failure:
        addresses = interleave(await self._resolver.resolve(order.place.host))
        if not all(reachable(each.host, rules) for each in addresses):
            return "refused"  # also where only one is not: an honest name leads nowhere inside
        context = await self._tls() if order.place.scheme == "https" else None
        for address in addresses[:MOST_ADDRESSES]:
            try:
                connection = await self._pool.open(pinned(order.place, address, context))
            except Fault as fault:
                if fault.kind is not Kind.UPSTREAM_CONNECT:
                    raise
                continue
            download = Download(order, asyncio.get_running_loop().create_future())
            try:
                connection.send(_request(order), download)
                return await download.done
            finally:
                connection.close()
        return "failed"

    async def _tls(self) -> ssl.SSLContext:
        """Made once, when first needed, and off the loop: reading the system's certificates takes 20 ms."""
        if self._context is None:
            self._context = await asyncio.to_thread(tls_context, Tls())
        return self._context


class Download:
    """A Sink: keeps the body of a good reply, and stops wanting it as soon as it is none."""

    __slots__ = ("_body", "_charset", "_mime", "_order", "done")

    def __init__(self, order: Order, done: asyncio.Future[Fetched | Failure]) -> None:
        self._order = order
        self._body = bytearray()
        self._mime = self._charset = ""
        self.done = done

    def __repr__(self) -> str:
        return f"<Download {self._mime or 'untyped'} {len(self._body)} bytes{', done' if self.done.done() else ''}>"

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        mime, _, parameters = str(headers.get(b"content-type", b""), "latin-1").partition(";")
        self._mime = mime.strip().lower()
        self._charset = _charset(parameters)
        plain = headers.get(b"content-encoding", b"identity").lower() == b"identity"
        if status != 200 or not plain or not (self._mime in UNTYPED or self._mime.startswith(self._order.accepts)):
            self._end("failed")
        elif _length(headers) > self._order.most:
            self._end("too_large")

    def data(self, body: bytes) -> None:
        if self.done.done():
            return
        if len(self._body) + len(body) > self._order.most:
            self._end("too_large")
        elif (failure := self._order.room(len(body))) is not None:
            self._end(failure)
        else:
            self._body += body

    def end(self, *, delimited: bool) -> None:
        """A reply without length ends with its connection (RFC 9112 section 6.3): plain file servers do that."""
        mime = _told(self._body) if self._mime in UNTYPED else self._mime
        if not self._body or not mime.startswith(self._order.accepts):
            self._end("failed")
        else:
            self._end(Fetched(mime, self._charset, self._body))

    def lost(self, fault: Fault) -> None:
        self._end("failed")

    def _end(self, outcome: Fetched | Failure) -> None:
        if not self.done.done():
            self.done.set_result(outcome)


def pinned(place: Place, address: Address, context: ssl.SSLContext | None) -> Bay:
    """A bay of one use: nobody else finds it, and a connection that comes back to it is closed."""
    tls = Tls(server_name=place.host)
    bay = Bay(Origin(place.scheme, address.host, place.port, tls=tls, connect_timeout=CONNECT_SECONDS), context)
    bay.retired = True
    return bay


def _request(order: Order) -> bytes:
    return (
        b"GET %b HTTP/1.1\r\nhost: %b\r\nuser-agent: llm-gateway\r\naccept: */*\r\naccept-encoding: identity\r\n"
        b"connection: close\r\n\r\n" % (order.place.target.encode(), order.place.authority.encode())
    )


def _length(headers: dict[bytes, bytes]) -> float:
    """As announced; 0 where nothing is."""
    digits = headers.get(b"content-length", b"").lstrip(b"0")
    if len(digits) > 18:
        return math.inf
    return int(digits) if digits.isdigit() else 0


def _charset(parameters: str) -> str:
    for each in parameters.split(";"):
        name, _, value = each.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return ""


def _told(body: bytearray) -> str:
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for beginning, mime in _BEGINNINGS if body.startswith(beginning)), "")
