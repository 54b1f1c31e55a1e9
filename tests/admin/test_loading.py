"""Files of the journal, whatever state they are in, get into the database once."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from databases import Migrated
from llm_gateway.accounting.journal import Journal
from llm_gateway.accounting.ledger import words
from llm_gateway.admin import loading
from llm_gateway.admin.loading import Loader
from llm_gateway.stores.sql import booking, tables
from llm_gateway.stores.sql.engine import connect, reading
from llm_gateway.stores.sql.rows import Rows
from stores.sql.made import line, write

DAY = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def engine(request: pytest.FixtureRequest, tmp_path, migrated: Migrated) -> AsyncIterator[AsyncEngine]:
    postgres = request.param == "postgresql"
    made = connect(migrated.postgres(request.getfixturevalue("postgres")) if postgres else migrated.sqlite(tmp_path))
    yield made
    await made.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def told() -> list[tuple[str, int, str]]:
    return []


@pytest.fixture
def loader(engine, folder, told) -> Loader:
    return Loader(engine, folder, "here", lambda *said: told.append(said))


async def ids(engine) -> list[str]:
    async with reading(engine) as connection:
        return sorted((await connection.execute(select(tables.usage.c.id))).scalars().all())


async def test_all_files_are_loaded_and_then_what_came_since(engine, folder, loader):
    write(folder, line(id="1"), line(id="2"))
    write(folder, line(id="3"), name="1764000000000-1-2-0.jsonl")
    assert await loader.sweep(DAY) == 3
    assert await loader.sweep(DAY) == 0
    write(folder, line(id="4"))
    assert await loader.sweep(DAY) == 1
    assert await ids(engine) == ["1", "2", "3", "4"]
    assert loader.behind() == (0, 0.0)


async def test_many_rows_come_in_batches(engine, folder, loader, monkeypatch):
    monkeypatch.setattr(loading, "BYTES", 100 * len(line(id="00000")) + 50)
    write(folder, *(line(id=f"{number:05}") for number in range(207)))
    moves = []
    assert await loader.sweep(DAY, lambda: moves.append(1)) == 207
    assert (len(moves), len(await ids(engine))) == (3, 207)


async def test_a_batch_of_short_lines_has_its_bound(engine, folder, loader, monkeypatch):
    monkeypatch.setattr(loading, "LINES", 10)
    write(folder, *(b"\n" if number % 2 else line(id=f"{number:05}") for number in range(25)))
    moves = []
    assert await loader.sweep(DAY, lambda: moves.append(1)) == 25
    assert (len(moves), len(await ids(engine)), loader.refused) == (3, 13, 12)


async def test_a_line_that_is_being_written_is_waited_for(engine, folder, loader):
    whole = line(id="2")
    write(folder, line(id="1"), whole[:30])
    assert await loader.sweep(DAY) == 1
    write(folder, whole[30:])
    assert await loader.sweep(DAY) == 1
    assert await ids(engine) == ["1", "2"]


async def test_a_successor_goes_on_where_the_last_one_ended(engine, folder, loader):
    write(folder, line(id="1"))
    await loader.sweep(DAY)
    write(folder, line(id="2"))
    after = Loader(engine, folder, "here", print)
    assert await after.sweep(DAY) == 1
    assert await ids(engine) == ["1", "2"]


async def test_two_gateways_may_have_files_of_one_name(engine, folder, tmp_path, loader):
    write(folder, line(id="1"), line(id="2"))
    write(tmp_path / "other", line(id="3"))
    await loader.sweep(DAY)
    await Loader(engine, tmp_path / "other", "there", print).sweep(DAY)
    assert await ids(engine) == ["1", "2", "3"]


async def test_a_broken_line_is_put_aside_and_no_other_waits_for_it(engine, folder, loader, told):
    write(folder, line(id="1"), b"\x00\xff nonsense\n", line(id="2"), b"\r\n", line(id="3"))
    await loader.sweep(DAY)
    assert await ids(engine) == ["1", "2", "3"]
    assert (loader.rows, loader.refused) == (3, 2)
    assert [offset for _, offset, _ in told] == [len(line(id="1")), 2 * len(line(id="1")) + 12]
    async with reading(engine) as connection:
        kept = (await connection.execute(select(tables.journal_refused.c.line).order_by(tables.journal_refused.c.offset))).scalars().all()
    assert kept == [b"\x00\xff nonsense\n", b"\r\n"]


async def test_a_line_that_the_database_will_not_take_is_found_and_put_aside(engine, folder, loader, told, monkeypatch):
    decode = booking.decode

    def unfit(lines: list[bytes]) -> tuple[Rows, dict[int, str]]:
        rows, refused = decode(lines)
        at = [None if each == "13" else at for each, at in zip(rows.columns["id"], rows.columns["at"], strict=True)]
        return Rows(rows.count, rows.columns | {"at": at}), refused

    monkeypatch.setattr(booking, "decode", unfit)
    write(folder, *(line(id=str(number)) for number in range(40)))
    await loader.sweep(DAY)
    assert await ids(engine) == sorted(str(number) for number in range(40) if number != 13)
    assert (loader.rows, loader.refused, len(told)) == (39, 1, 1)
    assert await loader.sweep(DAY) == 0


async def test_the_longest_tags_of_a_client_are_no_more_than_an_index_holds(engine, folder, loader, told):
    """Bytes that are two in UTF-8, and that no database makes shorter: one such row would hold up the books of all."""
    header = b",".join(bytes(0x80 + byte % 0x80 for byte in os.urandom(80)) for _ in range(40))
    write(folder, line(id="1"), line(id="2", tags=words(header)), line(id="3"))
    await loader.sweep(DAY)
    assert (await ids(engine), told) == (["1", "2", "3"], [])


async def test_a_line_that_no_index_holds_is_put_aside(engine, folder, loader, told):
    """PostgreSQL's hold a third of a page. SQLite's hold anything."""
    write(folder, line(id="1"), line(id="2", tags=[os.urandom(3000).hex()]), line(id="3"))
    await loader.sweep(DAY)
    postgres = engine.dialect.name == "postgresql"
    assert (await ids(engine), len(told)) == (["1", "3"] if postgres else ["1", "2", "3"], int(postgres))
    assert await loader.sweep(DAY) == 0


async def test_a_database_that_fails_in_another_way_puts_nothing_aside(engine, folder, loader):
    write(folder, line(id="1"))
    failing = True

    def fail(connection, cursor, statement, parameters, context, executemany):  # as the driver is about to
        if failing and "INSERT INTO usage " in statement:
            raise OSError("no disk")

    event.listen(engine.sync_engine, "before_cursor_execute", fail)
    with pytest.raises((OSError, DBAPIError)):
        await loader.sweep(DAY)
    loader.again()
    await loader.measure()
    assert loader.refused == 0
    assert loader.behind()[0] >= 1
    failing = False
    assert await loader.sweep(DAY) == 1
    assert await ids(engine) == ["1"]


async def test_a_line_beyond_all_measure_is_passed_over(engine, folder, loader, monkeypatch):
    monkeypatch.setattr(loading, "LONGEST", 4096)
    monkeypatch.setattr(loading, "BYTES", 1024)
    write(folder, line(id="1"), b"x" * 10_000 + b"\n", line(id="2"))
    await loader.sweep(DAY)
    assert await ids(engine) == ["1", "2"]
    assert loader.refused >= 1


def old(path: Path) -> None:
    past = time.time_ns() / 1e9 - 2 * DAY
    os.utime(path, (past, past))


async def test_a_file_goes_when_it_is_loaded_old_and_nobodys(engine, folder, loader):
    path = write(folder, line(id="1"))
    await loader.sweep(DAY)
    assert path.exists(), "it is not old"
    old(path)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await loader.sweep(DAY)
        assert path.exists(), "somebody has it open to write"
    await loader.sweep(DAY)
    assert not path.exists()
    assert (loader.removed, await ids(engine)) == (1, ["1"])
    async with reading(engine) as connection:
        assert (await connection.execute(select(tables.journal_files))).all() == []


async def test_the_journal_holds_its_files_until_its_process_ends(folder, engine, loader):
    journal = Journal(folder, 0)
    journal.write([line(id="1")])
    (path,) = folder.iterdir()
    await loader.sweep(DAY)
    old(path)
    await loader.sweep(DAY)
    assert path.exists()
    journal.close()
    old(path)
    await loader.sweep(DAY)
    assert not path.exists()


async def test_a_file_with_a_torn_end_goes_too_and_one_that_is_not_loaded_stays(engine, folder, loader):
    torn = write(folder, line(id="1"), line(id="2")[:40])
    await loader.sweep(DAY)
    unread = write(folder, line(id="3"), name="1764000000000-1-2-0.jsonl")
    old(torn)
    old(unread)
    gone = await asyncio.to_thread(loading._removed, folder, {torn.name: len(line(id="1")), unread.name: 0}, time.time_ns() / 1e9 - DAY)
    assert gone == [torn.name]
    assert unread.exists()


async def test_how_far_behind_it_is_shows_without_a_database(folder):
    nobody = Loader(connect("postgresql://u:p@127.0.0.1:9/x"), folder, "here", print)
    begun = int(time.time_ns() / 1e6) - 60_000
    write(folder, *(line(id=str(number)) for number in range(100)), name=f"{begun:013d}-0-1-0.jsonl")
    await nobody.measure()
    rows, seconds = nobody.behind()
    assert 30 < rows < 200
    assert 59 < seconds < 90


async def test_the_torn_end_of_a_dead_writers_file_is_no_lag(engine, folder, loader):
    """A power cut, a full disk: nobody will ever end that line, and there is nothing to load."""
    begun = int(time.time_ns() / 1e6) - 60_000
    path = write(folder, line(id="1"), line(id="2")[:40], name=f"{begun:013d}-0-1-0.jsonl")
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        await loader.sweep(DAY)
        assert loader.behind()[0] == 1, "whoever has it open may end it"
    for _ in range(2):
        assert await loader.sweep(DAY) == 0
        assert loader.behind() == (0, 0.0)
    await loader.measure()
    assert loader.behind() == (0, 0.0)
    async with engine.begin() as connection:  # another database, all of a sudden
        await connection.execute(delete(tables.journal_files))
    loader.again()
    assert await loader.sweep(DAY) == 1
    write(folder, line(id="2")[40:], name=path.name)
    await loader.measure()
    assert loader.behind()[0] == 1
    assert await loader.sweep(DAY) == 1
    assert await ids(engine) == ["1", "2"]
