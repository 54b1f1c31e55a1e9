"""Network namespaces of the tests' own, and wires between them.

Law: a namespace has no name and lives as long as its descriptor is open, so that nothing stays behind, whatever happens to
the tests; nothing of the machine's own network is touched. What is started or opened `inside` a namespace belongs to it:
a socket keeps the namespace it was made in, a process the one of the thread that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
HERE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """Why this machine cannot have namespaces of one's own; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid():
        return "a network namespace of one's own needs root"
    if shutil.which("ip") is None:
        return "no `ip` (iproute2) here"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun here"
    try:
        Space().close()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"
    return ""


class Space:
    """A network namespace with nothing but loopback."""

    def __init__(self) -> None:
        home = os.open(HERE, os.O_RDONLY)
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            self.fd = os.open(HERE, os.O_RDONLY)
            _check(_libc.setns(home, CLONE_NEWNET))
        finally:
            os.close(home)
        self.ip("link", "set", "lo", "up")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace meanwhile."""
        home = os.open(HERE, os.O_RDONLY)
        try:
            _check(_libc.setns(self.fd, CLONE_NEWNET))
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)

    def ip(self, *arguments: str) -> None:
        with self.inside():
            subprocess.run(["ip", *arguments], check=True, capture_output=True)

    def connect(self, address: tuple[str, int], timeout: float = 10.0) -> socket.socket:
        with self.inside():
            return socket.create_connection(address, timeout)

    def close(self) -> None:
        os.close(self.fd)


class Wire:
    """Joins two spaces; the first end is `near`, the other `far`. Good until told otherwise."""

    _made = 0

    def __init__(self, one: Space, other: Space) -> None:
        Wire._made += 1
        net = f"10.{77 + Wire._made // 250}.{Wire._made % 250}"
        self.near, self.far = f"{net}.1", f"{net}.2"
        name = f"wire{Wire._made}"
        ends = (_tun(one, name, self.near, self.far), _tun(other, name, self.far, self.near))
        program = str(Path(__file__).with_name("wire.py"))
        self._process = subprocess.Popen(
            [sys.executable, program, *map(str, ends)], stdin=subprocess.PIPE, pass_fds=ends, bufsize=0
        )
        for fd in ends:
            os.close(fd)

    def order(self, **orders: float) -> None:
        """delay=, loss=, rate=, cut=: see wire.py."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{word} {value}\n" for word, value in orders.items()).encode())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(5)


def _tun(space: Space, name: str, own: str, peer: str) -> int:
    with space.inside():
        fd = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    space.ip("addr", "add", own, "peer", peer, "dev", name)
    space.ip("link", "set", name, "up")
    return fd


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
