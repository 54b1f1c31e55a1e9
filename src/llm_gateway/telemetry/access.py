"""The access log: one JSON line per request, all lines of a loop tick in one write, never waited for.

Law: a slow, full or broken sink costs log lines (whole ones, counted), never requests. Prompts and replies are not in it.

The standard streams are opened anew where the system lets us (/proc/self/fd), so that not blocking is ours alone: the flag
belongs to the open file, and a shell or sibling process shares the one we inherited. Regular files never block.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MOST_WAITING = 4 << 20


class AccessLog:
    """`output`: stdout, stderr, or the path of a file to append to. Raises OSError if that cannot be opened."""

    def __init__(self, output: str) -> None:
        self.dropped = 0
        self._rest = b""
        self._fd = _open(output)

    def write(self, lines: list[bytes]) -> None:
        """Complete lines. What the sink does not take now is kept for the next write, up to 4 MiB."""
        if len(self._rest) > MOST_WAITING:
            self.dropped += len(lines)
            lines = []
        data = self._rest + b"".join(lines) if self._rest else b"".join(lines)
        try:
            written = os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:  # disk full, reader gone: these lines are lost, the next ones may fare better
            self.dropped += data.count(b"\n")
            data = b""
            written = 0
        self._rest = data[written:]

    def flush(self) -> None:
        """Called by the sweep: retries what is waiting."""
        if self._rest:
            self.write([])


def _open(output: str) -> int:
    standard = {"stdout": 1, "stderr": 2}.get(output)
    if standard is None:
        return os.open(Path(output), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    if stat.S_ISREG(os.fstat(standard).st_mode):
        return standard
    try:
        return os.open(f"/proc/self/fd/{standard}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no /proc, or a socket: the inherited descriptor it is, blocking as it came
        return standard
