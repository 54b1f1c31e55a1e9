"""The books as a whole: migrated, loaded, told, and going on after whatever fails."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from llm_gateway.admin import books as module
from llm_gateway.admin.books import Books
from llm_gateway.admin.database import Database
from llm_gateway.admin.notices import Notices
from llm_gateway.config.snapshot import Database as Terms
from llm_gateway.core.tenancy import place
from llm_gateway.policies.windows import window
from llm_gateway.stores.sql import tables
from llm_gateway.stores.sql.engine import connect, reading
from llm_gateway.stores.tables import Table
from stores.sql.made import line, write


class Open:
    """Books that are kept, and what was said of them."""

    def __init__(self, folder: Path, url: str = "", **terms: Any) -> None:
        self.folder = folder
        self.said: list[tuple[str, dict[str, object]]] = []
        self.spread: list[str] = []
        self.database = Database(url or f"sqlite:///{folder}/gateway.db", Notices(io.StringIO(), "json", "info"), self._tell)
        self.books = Books(self.database, Terms(**terms), folder, self._tell, self.spread.append)

    def _tell(self, kind: str, data: dict[str, object]) -> None:
        self.said.append((kind, data))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.said]

    async def until(self, check: Callable[[], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not check():
                await asyncio.sleep(0.01)

    async def rows(self) -> int:
        async with reading(self.database.engine) as connection:
            return int((await connection.execute(select(func.count()).select_from(tables.usage))).scalar_one())


@asynccontextmanager
async def opened(folder: Path, **said: Any) -> AsyncIterator[Open]:
    made = Open(folder, **said)
    task = asyncio.get_running_loop().create_task(made.books.run())
    yield made
    task.cancel()
    await asyncio.wait([task])
    await made.database.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)


async def test_what_was_journalled_before_the_start_is_loaded_and_its_spending_told(tmp_path):
    now = time.time_ns() / 1e9
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
    write(tmp_path / "journal", line(id="1", ts=stamp), line(id="2", ts=stamp, cost=500))
    async with opened(tmp_path) as made:
        await made.until(lambda: made.spread)
        assert await made.rows() == 2
        assert made.kinds() == [], "a new database is no news"
        assert made.books.up
        table = Table(tmp_path / made.spread[0])
        assert msgspec.msgpack.decode(table.get(place("tenant:acme budget month"))) == [window("month", now), 1500]
        assert msgspec.msgpack.decode(table.get(place("user:acme/bob budget total"))) == ["", 1500]
        assert table.serial <= time.time_ns() // 10**6


async def test_a_worker_that_begins_is_told_what_its_predecessor_spent(tmp_path):
    async with opened(tmp_path) as made:
        await made.until(lambda: made.spread)
        write(tmp_path / "journal", line(id="1", cost=7))
        made.books.join()
        await made.until(lambda: len(made.spread) > 1)
        found = Table(tmp_path / made.spread[-1]).get(place("tenant:acme budget total"))
        assert found is not None
        assert msgspec.msgpack.decode(found) == ["", 7]


async def test_a_database_that_is_away_is_told_once_and_rows_wait(tmp_path):
    blocked = tmp_path / "gateway.db"
    blocked.mkdir()
    write(tmp_path / "journal", line(id="1"), line(id="2"))
    async with opened(tmp_path) as made:
        await made.until(lambda: made.books.failures >= 2)
        assert made.kinds() == ["database_away"]
        assert made.books.up is False
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_lag_rows"][""] > 0)
        figures = made.books.metrics()
        assert figures["llm_gateway_database_up"] == {"": 0}
        assert figures["llm_gateway_database_failures_total"][""] >= 2
        blocked.rmdir()
        await made.until(lambda: "database_back" in made.kinds())
        assert await made.rows() == 2
        assert made.books.metrics()["llm_gateway_journal_lag_rows"] == {"": 0}


async def test_a_password_stands_in_no_event(tmp_path):
    async with opened(tmp_path, url="postgresql://somebody:hidden-word@127.0.0.1:9/gateway") as made:
        await made.until(lambda: made.said)
        assert "hidden-word" not in repr(made.said)


async def test_broken_lines_are_told_a_few_times_and_counted_always(tmp_path):
    write(tmp_path / "journal", *[b"nonsense\n"] * 9, line(id="1"))
    async with opened(tmp_path) as made:
        await made.until(lambda: made.books.swept)
        assert made.kinds().count("journal_line_refused") == 5
        assert made.books.metrics()["llm_gateway_journal_refused_lines_total"] == {"": 9}
        assert await made.rows() == 1


async def test_what_is_too_old_goes(tmp_path):
    write(tmp_path / "journal", line(id="1", ts="2020-01-01T00:00:00.000Z"))
    async with opened(tmp_path, usage_days=1, sums_days=1) as made:
        await made.until(lambda: made.books.purged)
        assert await made.rows() == 0


async def test_of_many_that_are_too_old_a_round_takes_thousands(tmp_path):
    """Else they would never go where more than a round's few come."""
    old = [line(id=str(number), ts="2020-01-01T00:00:00.000Z") for number in range(2000)]
    write(tmp_path / "journal", *old)
    async with opened(tmp_path, usage_days=1, sums_days=1) as made:
        for _ in range(3):  # two rounds in full
            before = made.books.swept
            await made.until(lambda before=before: made.books.swept > before)
        assert made.books.purged >= len(old)
        assert await made.rows() == 0


async def test_a_failure_that_nobody_thought_of_ends_nothing(tmp_path, monkeypatch):
    async with opened(tmp_path) as made:
        await made.until(lambda: made.books.swept)
        sweep = made.books._loader.sweep

        async def fail(*_: object) -> int:
            raise ZeroDivisionError

        monkeypatch.setattr(made.books._loader, "sweep", fail)
        await made.until(lambda: made.books.away)
        monkeypatch.setattr(made.books._loader, "sweep", sweep)
        write(tmp_path / "journal", line(id="1"))
        await made.until(lambda: not made.books.away)
        assert await made.rows() == 1


FILES = ("gateway.db", "gateway.db-wal", "gateway.db-shm")


async def kept(folder: Path) -> int:
    """Rows of the file, as whoever opens it now finds them."""
    engine = connect(f"sqlite:///{folder}/gateway.db")
    try:
        async with reading(engine) as connection:
            return int((await connection.execute(select(func.count()).select_from(tables.usage))).scalar_one())
    finally:
        await engine.dispose()


@pytest.mark.parametrize("gone", [FILES, FILES[:1]])
async def test_a_file_that_is_taken_away_is_brought_back_with_all_that_was_in_it(tmp_path: Path, gone: tuple[str, ...]) -> None:
    write(tmp_path / "journal", line(id="1"), line(id="2"), name="1-0-1-0.jsonl")
    async with opened(tmp_path) as made:
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 2)
        (tmp_path / "journal" / "1-0-1-0.jsonl").unlink()  # loaded, and too old
        for name in gone:
            (tmp_path / name).unlink(missing_ok=True)
        write(tmp_path / "journal", line(id="3"), name="2-0-1-0.jsonl")
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 3)
        await made.until(lambda: (tmp_path / "gateway.db").exists() and "database_back" in made.kinds())
        write(tmp_path / "journal", line(id="4"), name="3-0-1-0.jsonl")
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 4)
        assert made.kinds() == ["database_away", "database_back"]
        assert "gateway.db" in str(made.said[0][1]["error"])
        assert await kept(tmp_path) == 4, "rows whose journal is gone, too"
    assert await kept(tmp_path) == 4


async def test_a_file_that_was_put_in_its_place_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "journal", line(id="1"), name="1-0-1-0.jsonl")
    (tmp_path / "other").mkdir()
    write(tmp_path / "other" / "journal", line(id="8"), line(id="9"), name="1-0-1-1.jsonl")
    async with opened(tmp_path / "other") as made:
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 2)
    async with opened(tmp_path) as made:
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 1)
        (tmp_path / "other" / "gateway.db").rename(tmp_path / "gateway.db")  # beside what belongs to the old one
        await made.until(lambda: made.books.metrics()["llm_gateway_journal_loaded_rows_total"][""] == 2)  # anew: it does not know of it
        assert await made.rows() == await kept(tmp_path) == 3
        assert made.kinds() == ["database_away", "database_back"]
