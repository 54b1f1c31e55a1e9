"""Binding: the supervisor owns every listening socket, so that one outlives the process that serves it.

Law: standard library only; binds and closes, never accepts.

A TCP address gets one SO_REUSEPORT socket per worker where the kernel spreads connections over them (Linux), since workers
waiting on one shared socket wake unevenly; elsewhere, and for Unix sockets, all workers share one.
"""

from __future__ import annotations

import errno
import socket
import stat
import sys
from dataclasses import replace
from pathlib import Path

from llm_gateway.supervisor.plan import Address

BACKLOG = 4096
SPREADS = sys.platform == "linux"


class BindError(Exception):
    """An address that cannot be listened on, and what to do about it."""


def bind(address: Address, copies: int) -> list[socket.socket]:
    """`copies` sockets listening on `address`, possibly the same one several times."""
    try:
        if address.path is not None:
            return [_bind_unix(address.path)] * copies
        return _bind_tcp(address, copies)
    except OSError as error:
        raise BindError(_advice(address, error)) from error


def bound(address: Address, sock: socket.socket) -> Address:
    """The address with the port the kernel chose, where 0 was asked for."""
    return address if address.path is not None else replace(address, port=sock.getsockname()[1])


def mark(address: Address) -> tuple[int, int] | None:
    """What tells a Unix socket's file from a successor's at the same path; a file system may give out a number again at once."""
    if address.path is None:
        return None
    try:
        found = Path(address.path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def release(address: Address, ours: tuple[int, int] | None) -> None:
    """Removes what a Unix socket leaves in the file system. ours: its mark; whoever bound anew since stays."""
    if address.path is not None and mark(address) == ours:
        Path(address.path).unlink(missing_ok=True)


def _bind_tcp(address: Address, copies: int) -> list[socket.socket]:
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    # With SO_REUSEPORT a second gateway would get half of the first one's connections and nobody would be told. A socket
    # without it fails where anybody listens already.
    with _socket(family, spread=False) as probe:
        probe.bind(where)
        where = probe.getsockname()
        if not SPREADS:
            alone = probe.dup()
            alone.listen(BACKLOG)
            return [alone] * copies
    sockets: list[socket.socket] = []
    for _ in range(copies):
        sock = _socket(family, spread=True)
        sockets.append(sock)
        sock.bind(where)
        sock.listen(BACKLOG)
    return sockets


def _socket(family: int, *, spread: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if spread:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setblocking(False)
    return sock


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    if _is_stale(path):
        Path(path).unlink()
    sock.bind(path)
    Path(path).chmod(0o660)
    sock.listen(BACKLOG)
    return sock


def _is_stale(path: str) -> bool:
    """A socket file that nobody listens on: what a killed gateway leaves. Anything else at `path` is not ours to remove."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def _advice(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        reason = "another process listens there"
    elif error.errno in (errno.EACCES, errno.EPERM):
        reason = "this user may not (ports below 1024 need CAP_NET_BIND_SERVICE)"
    else:
        reason = error.strerror or str(error)
    return f"cannot listen on {address}: {reason}; change it with {address.setting}"
