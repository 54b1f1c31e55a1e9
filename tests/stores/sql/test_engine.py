"""Transactions, and whose fault an error is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError

from llm_gateway.stores.sql import engine as engines
from llm_gateway.stores.sql.engine import address, away, connect, reading, writing
from llm_gateway.stores.sql.migrate import upgrade
from llm_gateway.stores.sql.tables import revision, tenants


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////var/lib/gateway.db", "sqlite+aiosqlite"),
        ("postgresql://user:pw@db/gateway", "postgresql+asyncpg"),
        ("postgres://user:pw@db/gateway", "postgresql+asyncpg"),
    ],
)
def test_urls_as_people_write_them(url, driver):
    assert address(url).drivername == driver


def test_other_databases_are_refused():
    with pytest.raises(ValueError, match="expected sqlite"):
        address("mysql://user:pw@db/gateway")


async def test_a_new_file_is_nobody_elses_to_read(tmp_path):
    before = os.umask(0o022)  # as most shells and containers have it
    try:
        engine = connect(f"sqlite:///{tmp_path / 'gateway.db'}")
        await upgrade(engine)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        await engine.dispose()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o640)


async def test_writers_wait_for_each_other(url):
    engine = connect(url)
    await upgrade(engine)

    async def grow() -> None:
        async with writing(engine) as connection:
            serial = (await connection.execute(select(revision.c.serial).with_for_update())).scalar_one()
            await asyncio.sleep(0.01)
            await connection.execute(update(revision).values(serial=serial + 1))

    await asyncio.gather(*(grow() for _ in range(10)))
    async with reading(engine) as connection:
        assert (await connection.execute(select(revision.c.serial))).scalar_one() == 10
    await engine.dispose()


async def test_all_of_it_or_nothing(url):
    engine = connect(url)
    await upgrade(engine)

    async def fail() -> None:
        async with writing(engine) as connection:
            await connection.execute(insert(tenants).values(name="acme"))
            raise ValueError

    with pytest.raises(ValueError):
        await fail()
    async with reading(engine) as connection:
        assert (await connection.execute(select(tenants.c.name))).all() == []
    await engine.dispose()


async def test_what_is_asked_wrongly_is_not_the_databases_fault(url):
    engine = connect(url)
    await upgrade(engine)

    async def repeat() -> None:
        async with writing(engine) as connection:
            await connection.execute(insert(tenants), [{"name": "acme"}, {"name": "acme"}])

    with pytest.raises(DBAPIError) as found:
        await repeat()
    assert not away(found.value)
    await engine.dispose()


async def test_a_server_that_is_gone_is_away():
    engine = connect("postgresql://user:pw@127.0.0.1:9/gateway")

    async def ask() -> None:
        async with reading(engine) as connection:
            await connection.execute(text("SELECT 1"))

    with pytest.raises((OSError, DBAPIError)) as found:
        await ask()
    assert away(found.value)
    await engine.dispose()


@pytest.fixture
def writer(tmp_path) -> Iterator[sqlite3.Connection]:
    """Somebody in the middle of a change to a file that has no write-ahead log yet, as the first of several that start at once."""
    connection = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    connection.execute("CREATE TABLE novelty (id TEXT)")
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


async def test_who_opens_a_new_file_waits_for_who_writes_to_it(writer, tmp_path):
    engine = connect(f"sqlite:///{tmp_path}/gateway.db")
    starting = asyncio.create_task(upgrade(engine))
    await asyncio.sleep(0.3)
    assert not starting.done()
    writer.execute("COMMIT")
    assert (await starting).pending
    async with reading(engine) as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    await engine.dispose()


async def test_but_not_for_ever(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.1)
    engine = connect(f"sqlite:///{tmp_path}/gateway.db")
    with pytest.raises(DBAPIError, match="locked") as found:
        await upgrade(engine)
    assert away(found.value)
    await engine.dispose()


async def test_another_connection_of_ours_leaves_the_locks_of_the_first_alone(tmp_path: Path) -> None:
    """A file that is opened and closed beside SQLite ends all its locks in this process; whoever comes next then takes the log away."""
    engine = connect(f"sqlite:///{tmp_path}/gateway.db")
    try:
        async with engine.connect() as first:
            await first.execute(text("CREATE TABLE t (a)"))
            await first.commit()
            async with engine.connect() as second:
                await second.execute(text("SELECT 1"))
            look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM t').fetchone(); c.close()"
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", look, str(tmp_path / "gateway.db"))
            assert await process.wait() == 0
            assert (tmp_path / "gateway.db-wal").exists()
    finally:
        await engine.dispose()
