"""The access log: one JSON line per request, all lines of a loop tick in one write, never waited for.

Law: a slow, full or broken sink costs log lines (whole ones, counted), never requests. Prompts and replies are not in it.

The standard streams are opened anew where the system lets us (/proc/self/fd), so that not blocking is ours alone: the flag
belongs to the open file, and a shell or sibling process shares the one we inherited. A socket (systemd's journal) cannot be
opened anew, but can be told for each call not to block. Regular files never block. Left over, and blocking as they came, are
pipes and terminals where there is no /proc (macOS).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

MOST_WAITING = 4 << 20
NEWLINE = 0x0A


class AccessLog:
    """`output`: stdout, stderr, or the path of a file to append to. Raises OSError if that cannot be opened."""

    def __init__(self, output: str) -> None:
        self.dropped = 0
        self._rest = bytearray()  # what the sink did not take yet; may begin within a line,
        self._within = False  # whose beginning the sink has
        self._send = _open(output)

    def __repr__(self) -> str:
        return f"<AccessLog {len(self._rest)} bytes waiting, {self.dropped} lines dropped>"

    def write(self, lines: list[bytes]) -> None:
        """Complete lines. What the sink does not take now is kept for the next write, up to 4 MiB."""
        data = b"".join(lines)
        if self._rest:
            if len(self._rest) > MOST_WAITING:
                self.dropped += len(lines)
            else:
                self._rest += data
            self.flush()
            return
        try:
            done = self._send(data)
        except BlockingIOError:
            done = 0
        except OSError:  # disk full, reader gone: these lines are lost, the next ones may fare better
            self.dropped += len(lines)
            return
        if done < len(data):
            self._within = done > 0 and data[done - 1] != NEWLINE
            self._rest += memoryview(data)[done:]

    def flush(self) -> None:
        """Tries again what is waiting; called by the clock, too."""
        rest = self._rest
        if not rest:
            return
        try:
            done = self._send(rest)
        except BlockingIOError:
            return
        except OSError:
            self.dropped += rest.count(b"\n") - rest.startswith(b"\n")
            rest[:] = b"\n" if self._within else b""  # a line that lost its end stays a line of its own
            return
        if done:
            self._within = rest[done - 1] != NEWLINE
            del rest[:done]


def _open(output: str) -> Callable[[bytes | bytearray], int]:
    """What takes bytes and says how many it took."""
    standard = {"stdout": 1, "stderr": 2}.get(output)
    if standard is None:
        return partial(os.write, os.open(Path(output), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))
    mode = os.fstat(standard).st_mode
    if stat.S_ISREG(mode):
        return partial(os.write, standard)
    if stat.S_ISSOCK(mode):
        return partial(_tell, socket.socket(fileno=os.dup(standard)))
    try:
        return partial(os.write, os.open(f"/proc/self/fd/{standard}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return partial(os.write, standard)


def _tell(sock: socket.socket, data: bytes | bytearray) -> int:
    return sock.send(data, socket.MSG_DONTWAIT)
