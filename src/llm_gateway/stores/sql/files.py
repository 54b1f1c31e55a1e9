"""The file of an SQLite database, which somebody may take away, or put another in its place of, while it is open.

Law: what is written to a file that has no name any more is lost with the last who has it open, and nobody is told; so it is looked for (a `stat`).
As long as a connection has it, all that is in it can be had: it is written back under its name. A database that somebody put there is taken
as it is. SQLite itself leaves alone what belongs to the file of that name when connections to one that was taken away are closed
(SQLITE_FCNTL_HAS_MOVED).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import CONNECTIONS, FILE, SINCE, identity

COMPANIONS = ("-wal", "-shm")
Identity = tuple[int, int] | None


class LostError(OSError):
    """No connection has the file any more."""


class File(Struct, frozen=True):
    """A database's file, and what SQLite keeps beside it, as they were when it was opened."""

    path: Path
    itself: Identity
    beside: tuple[Identity, ...]

    @classmethod
    def of(cls, path: Path) -> File:
        return cls(path, identity(path), tuple(map(identity, _beside(path))))

    def gone(self) -> bool:
        """Whether there is none, or another, under its name."""
        return identity(self.path) != self.itself


def path_of(engine: AsyncEngine) -> Path | None:
    """None for PostgreSQL, and for what is in memory."""
    name = engine.url.database
    return Path(name) if engine.dialect.name == "sqlite" and name and name != ":memory:" else None


async def reopen(engine: AsyncEngine, file: File) -> bool:
    """Of a file that is gone: connections are to what is there, or to what was brought back; whether that was so.
    Raises LostError, OSError, sqlite3.Error."""
    for beside, before in zip(_beside(file.path), file.beside, strict=True):
        if identity(beside) == before:  # the old file's own: they would be read into the new one
            beside.unlink(missing_ok=True)
    back = not await asyncio.to_thread(_has_tables, file.path)
    if back:
        await _bring_back(engine, file)
    await engine.dispose()
    return back


async def _bring_back(engine: AsyncEngine, file: File) -> None:
    path = file.path
    draft, begun = path.with_name(f"{path.name}.back"), time.monotonic()
    draft.unlink(missing_ok=True)
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):  # some of which may have been made since, and have made an empty file
            connection = await stack.enter_async_context(engine.connect())
            raw = await connection.get_raw_connection()
            # A file that is made now may have the number of one that nobody has open any more.
            if raw.info.get(FILE) == file.itself and raw.info[SINCE] < begun and raw.driver_connection is not None:
                await raw.driver_connection.execute("VACUUM INTO ?", (str(draft),))
                break
        else:
            raise LostError(f"{path} was taken away, and no connection has it any more")
    await asyncio.to_thread(_put, draft, path)


def _put(draft: Path, path: Path) -> None:
    fd = os.open(draft, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    for beside in _beside(path):  # of an empty file that somebody made meanwhile
        beside.unlink(missing_ok=True)
    draft.rename(path)


def _has_tables(path: Path) -> bool:
    """Whether a database is there that somebody else may have made; what cannot be read is not ours to replace."""
    if identity(path) is None or not path.stat().st_size:
        return False
    with contextlib.closing(sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + companion) for companion in COMPANIONS]
