"""Connections that are none yet: before the end of their TLS handshake nobody can speak to them, but each has its descriptor.

Law: they are counted, and forgotten with the last who holds them; a transport whose handshake came to nothing tells its protocol so by
letting go of it. So nothing here may be part of a cycle.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Handshake(asyncio.Protocol):
    """Stands where the connection will, until there is one: `done(transport)` gives the transport its next protocol."""

    __slots__ = ("__weakref__", "_done")

    def __init__(self, done: Callable[[Handshake, asyncio.Transport], None], counted: WeakSet[Handshake]) -> None:
        self._done = done
        counted.add(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._done(self, cast(asyncio.Transport, transport))


class Listening:
    """A listening socket, and in its place, for aiofastnet (1.2): without a descriptor to spare that means to look away for a second, but asks
    the socket, not the loop, to do so, and tries on two thousand times."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._short = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> tuple[socket.socket, Any]:
        if self._short:  # the attempt after the one that failed
            self._short = False
            raise BlockingIOError
        try:
            return self._sock.accept()
        except OSError as error:
            self._short = error.errno in SHORT
            raise

    def remove_reader(self, fd: int) -> bool:
        return asyncio.get_running_loop().remove_reader(fd)


def unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The loop's exception handler. Who leaves within a TLS handshake (each health check of a load balancer does) is no error; TLS here tells
    of it by the bare class, which the default handler cannot even print."""
    if context.get("exception") is not ConnectionResetError:
        loop.default_exception_handler(context)
