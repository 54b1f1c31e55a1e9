"""The usage journal: one append-only file per worker, one JSON object a line, on disk before a client has its whole reply.

Law: a line is written whole or not at all. `write` puts a tick's rows into the page cache with one system call, which
survives a killed process; a thread calls fdatasync once a second, which bounds what a power cut can take, and never the
loop. When the disk refuses, rows wait in memory, in order, until `retry`, which the worker's clock calls once a second;
over 8 MB of them the journal is `full` and, by configuration, new requests are refused or rows are given up and counted.

Files: <dir>/<unix ms>-<worker>-<pid>-<serial>.jsonl, closed at 64 MiB. A file whose last line has no newline was cut by a
crash in mid-write; that line's reply never went out whole, or its row was written again, so `read` leaves it out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

SEGMENT = 64 << 20
MOST_WAITING = 8 << 20
SYNC_SECONDS = 1.0
FRESH = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Journal:
    """`on_error`: what `full` means. Raises OSError if the directory cannot be written, unless only room is missing."""

    def __init__(self, directory: Path, worker: int, on_error: Literal["refuse", "continue"] = "refuse") -> None:
        self.rows = self.errors = self.dropped = 0
        self.waiting_bytes = 0
        self.full = False  # new requests must be refused: their rows could not be kept
        self._directory = directory
        self._worker = worker
        self._on_error = on_error
        self._waiting: list[bytes] = []
        self._serial = 0
        self._fd = -1
        self._size = 0
        self._dirty = False
        self._outgrown: list[int] = []  # the syncer's to sync and close
        self._stop = threading.Event()
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._rotate()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self.errors += 1  # a worker restarted on a full disk follows the policy, too
        self._syncer = threading.Thread(target=self._sync, name="journal-sync", daemon=True)
        self._syncer.start()

    def __repr__(self) -> str:
        return f"<Journal {self.rows} rows, {self.waiting_bytes} bytes waiting, {self.errors} errors>"

    def write(self, rows: list[bytes]) -> None:
        """Appends complete lines. Never raises: what the disk does not take waits in memory."""
        if self._waiting or not self._append(rows):
            self._wait(rows)

    def adopt(self, on_error: Literal["refuse", "continue"]) -> None:
        """From now on: what `full` means."""
        self._on_error = on_error
        self.full = self.waiting_bytes > MOST_WAITING and on_error == "refuse"

    def retry(self) -> None:
        """Tries again to write what waits."""
        if self._waiting and self._append(self._waiting):
            self._waiting = []
            self.waiting_bytes = 0
            self.full = False

    def close(self) -> None:
        """Writes what waits, syncs, stops the thread."""
        self.retry()
        self._stop.set()
        self._syncer.join()
        self._leave()
        self._close_outgrown()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _append(self, rows: list[bytes]) -> bool:
        data = b"".join(rows)
        try:
            if self._fd < 0 or self._size + len(data) > SEGMENT:
                self._rotate()
            written = os.write(self._fd, data)
        except OSError:
            self.errors += 1
            return False
        if written != len(data):  # a disk that fills up takes a part
            self.errors += 1
            self._take_back()
            return False
        self._size += len(data)
        self.rows += len(rows)
        self._dirty = True
        return True

    def _take_back(self) -> None:
        """A torn line must not stand in the middle of a file: cut it off, or let it be this file's last."""
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self._leave()

    def _wait(self, rows: list[bytes]) -> None:
        size = sum(map(len, rows))
        if self.waiting_bytes > MOST_WAITING and self._on_error == "continue":
            self.dropped += len(rows)
            return
        self._waiting += rows
        self.waiting_bytes += size
        self.full = self.waiting_bytes > MOST_WAITING and self._on_error == "refuse"

    def _rotate(self) -> None:
        fresh = -1
        while fresh < 0:
            name = f"{time.time_ns() // 1_000_000:013d}-{self._worker}-{os.getpid()}-{self._serial}.jsonl"
            self._serial += 1
            with contextlib.suppress(FileExistsError):  # a clock set back, and a container's first pid again
                fresh = os.open(self._directory / name, FRESH, 0o640)
        with contextlib.suppress(OSError):  # some networks' file systems have no locks
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, however it does: it may still be written to
        self._leave()
        self._fd, self._size = fresh, 0

    def _leave(self) -> None:
        """Nothing more goes to the present file."""
        if self._fd >= 0:
            self._outgrown.append(self._fd)
            self._fd = -1

    def _sync(self) -> None:
        while not self._stop.wait(SYNC_SECONDS):
            if self._dirty:
                self._dirty = False
                _datasync(self._fd)
            self._close_outgrown()

    def _close_outgrown(self) -> None:
        while self._outgrown:
            fd = self._outgrown.pop()
            _datasync(fd)
            os.close(fd)


def read(directory: Path) -> Iterator[dict[str, Any]]:
    """Every row of all files, by time. Leaves out a torn last line; raises ValueError on a broken one before."""
    files = [_read_file(path) for path in sorted(directory.glob("*.jsonl"))]
    return heapq.merge(*files, key=lambda row: str(row.get("ts", "")))


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path.name}:{number}: {error}") from None


def _datasync(fd: int) -> None:
    """Errors are left to the next write, which meets them again and counts them."""
    with contextlib.suppress(OSError):
        if hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:  # macOS
            os.fsync(fd)
