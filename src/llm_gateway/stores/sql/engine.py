"""A connection to the operator's database: SQLite in a file, or PostgreSQL.

Law: no statement of ours stands here. Transactions are of two kinds, `reading` and `writing`: on SQLite a writer takes its lock when it
begins, so that it waits for its turn (10 s at most) instead of failing in the middle; on PostgreSQL both are plain.

SQLite: write-ahead log, so that readers and the one writer do not wait for each other; synced at each commit, since a revoked key must
stay revoked after a power cut. The switch to that log needs the file alone and does not wait for it by itself, so we do: many may start at
once. Errors are SQLAlchemy's; `away` says which of them mean that the database is gone, full or busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

BUSY_SECONDS = 10
BUSY_PAUSE = 0.02  # seconds, where SQLite does not wait by itself
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 60
CONNECTIONS = 5
WRITES = "llm_gateway_writes"
FILE, SINCE = "file", "since"  # what a connection's info calls the file that it has open, and when (time.monotonic) it was opened
DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


def address(url: str) -> URL:
    """`sqlite:///relative`, `sqlite:////absolute` or `postgresql://user:password@host:port/database`. ValueError for any other."""
    parsed = make_url(url)
    driver = DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ValueError("expected sqlite:///file or postgresql://user:password@host/database")
    return parsed.set(drivername=driver)


def connect(url: str) -> AsyncEngine:
    """Connects when first used. The folder of an SQLite file is made."""
    target = address(url)
    if target.get_backend_name() == "sqlite":
        if target.database:
            Path(target.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(target, pool_size=CONNECTIONS, connect_args={"timeout": BUSY_SECONDS})
        if target.database and not target.database.startswith((":", "file:")):
            event.listen(engine.sync_engine, "do_connect", partial(_private, target.database))
        event.listen(engine.sync_engine, "connect", partial(_prepare, Path(target.database or "")))
        event.listen(engine.sync_engine, "begin", _begin)
        return engine
    return create_async_engine(
        target,
        pool_size=CONNECTIONS,
        pool_pre_ping=True,
        pool_timeout=CONNECT_SECONDS,
        connect_args={"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS},
    )


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """What it sees is of one moment (on SQLite), and nothing is changed."""
    async with engine.connect() as connection:
        yield connection


@asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """All of it, or none if it raises."""
    async with engine.connect() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():
            yield connection


def away(error: BaseException) -> bool:
    """Whether it is the database that fails, and trying again later makes sense; not what it was asked."""
    if isinstance(error, (OSError, TimeoutError, OperationalError, InterfaceError, PoolTimeoutError)):
        return True
    if not isinstance(error, DBAPIError) or isinstance(error, (IntegrityError, ProgrammingError)):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    # PostgreSQL, appendix A: 08 connection, 25 read-only, 40 deadlock, 53 resources, 55 lock, 57 shut down, 58 system.
    return error.connection_invalidated or state[:2] in ("08", "25", "40", "53", "55", "57", "58")


def unfit(error: BaseException) -> bool:
    """Whether the database refuses what it was given, and would again; not whether, when or by whom."""
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return isinstance(error, (DataError, IntegrityError)) or state[:2] in ("22", "23", "54")  # PostgreSQL: data exception, constraint, too large


def identity(path: Path) -> tuple[int, int] | None:
    """Device and number; None where there is no such file. What a path is called by others may change, and what it names."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _private(path: str, *_about: object) -> None:
    """A new file is nobody else's to read, and neither are those that SQLite makes beside it, which take its mode: keys, sealed secrets and what
    everybody asked for stand there. What cannot be made here SQLite will say. One that is there is not opened: closing it again would end the
    locks of every connection of this process (POSIX), and the next to close would take the write-ahead log away from under them."""
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))


def _prepare(path: Path, connection: Any, record: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin by itself: `_begin` does
    connection.run_async(_write_ahead)
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", f"busy_timeout={BUSY_SECONDS * 1000}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    record.info[FILE], record.info[SINCE] = identity(path), time.monotonic()


async def _write_ahead(connection: aiosqlite.Connection) -> None:
    """A file that is not in that mode yet is read first and written then, and SQLite's busy timeout holds for the reading alone."""
    clock = asyncio.get_running_loop().time
    end = clock() + BUSY_SECONDS
    while True:
        try:
            await connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if clock() > end or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            await asyncio.sleep(BUSY_PAUSE)
        else:
            return


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")
