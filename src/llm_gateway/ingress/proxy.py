"""The PROXY protocol, version 1 and 2, read exactly: who really connected, told by a load balancer before the first byte.

Source: the HAProxy PROXY protocol specification, sections 2.1 and 2.2. Pure but for `ProxyHead`, the protocol that reads
the head byte-exactly (never one byte of what follows, which may be a TLS hello) and then hands the transport on.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import cast

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MIN_V1 = 15  # "PROXY UNKNOWN\r\n"; a v2 head has 16 at least
MAX_V1 = 107
MAX_V2 = 1024


class ProxyError(ValueError):
    """The bytes are no PROXY head."""


def needed(head: bytes) -> int:
    """How many more bytes may be read without passing the head's end; 0 when it is whole. Raises ProxyError."""
    size = len(head)
    if not (SIGNATURE.startswith(head[:12]) or b"PROXY ".startswith(head[:6])):
        raise ProxyError("no PROXY signature")
    if size < MIN_V1:
        return MIN_V1 - size
    if head.startswith(SIGNATURE):
        if size < 16:
            return 16 - size
        length = 16 + int.from_bytes(head[14:16], "big")
        if length > MAX_V2:
            raise ProxyError("PROXY v2 head too long")
        return length - size
    if head.endswith(b"\r\n"):
        return 0
    if size >= MAX_V1:
        raise ProxyError("PROXY v1 head too long")
    return 1


def parse(head: bytes) -> str | None:
    """The client's address, or None where the proxy speaks for itself (LOCAL, UNKNOWN). Raises ProxyError."""
    if head.startswith(SIGNATURE):
        return _parse_v2(head)
    words = head[:-2].split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        return None
    if len(words) != 6 or words[0] != b"PROXY" or words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyError("malformed PROXY v1 head")
    try:
        return str(ipaddress.ip_address(words[2].decode("ascii")))
    except ValueError:
        raise ProxyError("malformed PROXY v1 address") from None


def _parse_v2(head: bytes) -> str | None:
    version, family = head[12], head[13] >> 4
    if version >> 4 != 2 or version & 15 > 1:
        raise ProxyError("unknown PROXY v2 version or command")
    if version & 15 == 0 or family not in (1, 2):
        return None
    width = 4 if family == 1 else 16
    if len(head) < 16 + 2 * width + 4:
        raise ProxyError("PROXY v2 head too short for its family")
    return str(ipaddress.ip_address(head[16 : 16 + width]))


class ProxyHead(asyncio.BufferedProtocol):
    """Calls `began(self)`, reads one PROXY head, then calls `proceed(self, address)`, which gives the transport its next protocol;
    anything else closes the connection. `gone(self)` is called if it ends before."""

    __slots__ = ("_began", "_buffer", "_gone", "_head", "_proceed", "transport")

    def __init__(
        self,
        began: Callable[[ProxyHead], None],
        proceed: Callable[[ProxyHead, str | None], None],
        gone: Callable[[ProxyHead], None],
    ) -> None:
        self._began = began
        self._proceed = proceed
        self._gone = gone
        self._head = b""
        self._buffer = memoryview(bytearray(MAX_V2))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._began(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: max(1, needed(self._head))]

    def buffer_updated(self, nbytes: int) -> None:
        self._head += bytes(self._buffer[:nbytes])
        try:
            if needed(self._head) == 0:
                self._proceed(self, parse(self._head))
        except ProxyError:
            self.transport.abort()
