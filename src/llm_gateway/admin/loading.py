"""The journal of all workers, also of those that are gone, into the database: once a second, in small batches, from where it ended.

Law: reads files and never writes to them; what is read is decoded in a thread, so that neither a slow disk nor a slow database keeps the
operator from answering. Nothing is lost if the database is away: the files are the truth until it has taken them, and how far it has is
written in it, with the rows (stores/sql/booking.py). A line that cannot be taken is put aside there and counted; no other waits for it.

A file is removed `keep` seconds after its last line if all of it is in the database and no process has it open (its writer holds a lock).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.booking import NO_ROWS, Batch, Refused
from llm_gateway.stores.sql.engine import unfit

LINES = 4000  # in a batch, at most
BYTES = 1 << 20  # read at once, and what of it are whole lines is a batch: some 1,900 rows, 60 ms
LONGEST = 4 << 20  # a line beyond it is no row
USUAL_LINE = 600  # bytes, before any was seen


class Loader:
    """folder: the journal's. replica: this gateway's name in the world. on_refused: a file, an offset and what was wrong with the line there."""

    def __init__(self, engine: AsyncEngine, folder: Path, replica: str, on_refused: Callable[[str, int, str], None]) -> None:
        self.rows = self.refused = self.removed = 0
        self._engine = engine
        self._folder = folder
        self._replica = replica
        self._on_refused = on_refused
        self._offsets: dict[str, int] | None = None
        self._sizes: dict[str, int] = {}
        self._caught: dict[str, float] = {}  # file -> when all of it was last known to be loaded
        self._torn: dict[str, int] = {}  # file -> its length, where what is left of it is a line that nobody will end
        self._bytes = 0

    async def sweep(self, keep: float, moved: Callable[[], object] = lambda: None) -> int:
        """Loads all there is, and removes what is done with; returns the number of lines. Errors of the database are its caller's.
        moved: called after each batch."""
        offsets = self._offsets
        if offsets is None:
            offsets = self._offsets = await booking.offsets(self._engine, self._replica)
        await self.measure()
        taken = 0
        for name, size in sorted(self._sizes.items()):  # as long as they are now, so that a busy file keeps no other waiting
            taken += await self._load(name, size, offsets, moved)
        await self._remove(keep, offsets)
        return taken

    async def measure(self) -> None:
        """Looks how much there is to load, without the database."""
        self._sizes = await asyncio.to_thread(_sizes, self._folder)
        now = time.time_ns() / 1e9
        offsets = self._offsets or {}
        self._caught = {
            name: now if size in (offsets.get(name), self._torn.get(name)) else self._caught.get(name, _begun(name, now))
            for name, size in self._sizes.items()
        }

    def behind(self) -> tuple[int, float]:
        """Rows not loaded yet, about, and seconds since there was none of them."""
        offsets = self._offsets or {}
        late = {
            name: size - offsets.get(name, 0)
            for name, size in self._sizes.items()
            if size > offsets.get(name, 0) and size != self._torn.get(name)
        }
        mean = self._bytes / self.rows if self.rows else USUAL_LINE
        now = time.time_ns() / 1e9
        seconds = max((now - self._caught.get(name, now) for name in late), default=0.0)
        return -int(-sum(late.values()) // mean), max(0.0, seconds)

    def again(self) -> None:
        """After an error: how far it had come is asked of the database."""
        self._offsets = None
        self._torn.clear()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _load(self, name: str, size: int, offsets: dict[str, int], moved: Callable[[], object]) -> int:
        taken = 0
        while offsets.get(name, 0) < size and self._torn.get(name) != size:
            start = offsets.get(name, 0)
            batch = await asyncio.to_thread(_read, self._folder / name, self._replica, start)
            if batch is None:
                if await asyncio.to_thread(_dead, self._folder / name, start, size):
                    self._torn[name] = size
                break
            offsets[name] = await self._book(batch)
            taken += len(batch.lines)
            moved()
        return taken

    async def _book(self, batch: Batch) -> int:
        """Halves what holds a line that the database will not take, until that one is alone."""
        try:
            end = await booking.book(self._engine, batch, time.time_ns() / 1e9)
        except DBAPIError as error:
            if not unfit(error):
                raise
            if len(batch.lines) == 1:
                return await self._book(batch.without(str(error.orig)))
            first, second = batch.halves()
            await self._book(first)
            return await self._book(second)
        if end == batch.end:
            self._count(batch)
        return end

    def _count(self, batch: Batch) -> None:
        for each in batch.refused:
            self._on_refused(batch.name, each.offset, each.reason)
        self.refused += len(batch.refused)
        self.rows += len(batch.lines) - len(batch.refused)
        self._bytes += batch.end - batch.start - sum([len(each.line) for each in batch.refused])

    async def _remove(self, keep: float, offsets: dict[str, int]) -> None:
        done = [name for name in offsets if name in self._sizes]
        gone = [name for name in offsets if name not in self._sizes]
        old = time.time_ns() / 1e9 - keep
        gone += await asyncio.to_thread(_removed, self._folder, {name: offsets[name] for name in done}, old)
        if gone:
            await booking.forget(self._engine, self._replica, gone)
            self.removed += len(gone)
            for name in gone:
                del offsets[name]
                self._sizes.pop(name, None)
                self._torn.pop(name, None)


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    for path in folder.glob("*.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = path.stat().st_size
    return sizes


def _begun(name: str, now: float) -> float:
    """When a file was begun: Unix milliseconds at the head of its name."""
    stamp = name.partition("-")[0]
    return min(now, int(stamp) / 1000) if stamp.isdigit() else now


def _read(path: Path, replica: str, start: int) -> Batch | None:
    """The next whole lines; None if there are none: the rest was torn by a crash, or is being written."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(BYTES)
            while b"\n" not in data and len(data) < LONGEST and (more := file.read(BYTES)):
                data += more
    except FileNotFoundError:
        return None
    lines = BytesIO(data).readlines()  # `split` takes five times as long
    if lines and not lines[-1].endswith(b"\n"):
        del lines[-1]
    if lines:
        return booking.read(replica, path.name, start, lines[:LINES])
    if len(data) < LONGEST:
        return None
    refused = Refused(start, data, "longer than a row can be")
    return Batch(replica, path.name, start, start + len(data), [data], NO_ROWS, [refused])


def _removed(folder: Path, loaded: dict[str, int], old: float) -> list[str]:
    """Takes those away that are loaded, older than `old` (Unix seconds) and written by nobody."""
    gone = []
    for name, offset in loaded.items():
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            if found.st_mtime < old and _finished(path, offset, found.st_size):
                path.unlink()
                gone.append(name)
    return gone


def _dead(path: Path, offset: int, size: int) -> bool:
    """As `_finished`, of a file that may be gone."""
    with contextlib.suppress(FileNotFoundError):
        return _finished(path, offset, size)
    return False


def _finished(path: Path, offset: int, size: int) -> bool:
    """Whether nothing comes any more. What stands behind `offset` then is the line that a crash cut off."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return size <= offset or (size - offset < LONGEST and b"\n" not in os.pread(fd, size - offset, offset))
    except OSError:  # somebody has it, or nobody can tell
        return False
    finally:
        os.close(fd)
