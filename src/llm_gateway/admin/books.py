"""The gateway's books: the database brought to this version's tables, the journal loaded into it, what is too old taken out, and what was
spent written where workers find it.

Law: runs beside everything else and stops nobody. While the database is away (or full, or stalled) it is asked again after a second, then
two, up to half a minute; the journal keeps the rows meanwhile, and `journal lag` says how many those are.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from llm_gateway.admin.database import Database
from llm_gateway.admin.loading import Loader
from llm_gateway.config.material import replica
from llm_gateway.config.snapshot import Database as Terms
from llm_gateway.core.happenings import Kind
from llm_gateway.core.tenancy import place
from llm_gateway.stores.sql import purging, spending
from llm_gateway.stores.tables import write

SECONDS = 1.0
LONGEST_PAUSE = 30.0
STALL_SECONDS = 15.0  # for one batch; an SQLite writer waits 10 for another
PURGE_SECONDS = 600.0
PURGING = 0.25  # seconds of a round, while there is something to take out: thousands of rows
SPEND = "spend.table"  # in data_dir
SPEND_SECONDS = 5.0
MOST_TOLD = 5  # lines put aside that are told one by one


Tell = Callable[[Kind, dict[str, object]], None]


class Books:
    """folder: data_dir; tell: events; spread: told the spend table's name, each time there is a new one. `migrated`: the tables are there.
    `swept`: all that the journal held at that time (Unix seconds) is in the database."""

    def __init__(self, database: Database, terms: Terms, folder: Path, tell: Tell, spread: Callable[[str], None] = lambda _: None) -> None:
        self.engine = engine = database.engine
        self._database = database
        self._reopened = database.reopened
        self.terms = terms
        self.away = False
        self.failures = self.purged = self.forgotten = 0
        self.swept = 0.0
        self.migrated = asyncio.Event()
        self._folder = folder
        self._tell = tell
        self._spread = spread
        self._wake = asyncio.Event()
        self._joined = True
        self._spend_due = 0.0
        self._spend_rows = -1
        self._loader = Loader(engine, folder / "journal", replica(folder), self._refused)
        self._purge_due = 0.0
        self._told = 0

    def join(self) -> None:
        """A worker has begun: what it is told of spending is to hold all that was journalled until now."""
        self._joined = True
        self._wake.set()

    async def run(self) -> None:
        """For as long as the gateway runs."""
        measuring = asyncio.get_running_loop().create_task(self._measure())
        try:
            await self._keep()
        finally:
            measuring.cancel()

    async def _keep(self) -> None:
        pause = SECONDS
        while True:
            try:
                await self._round()
            except Exception as error:  # noqa: BLE001  drivers raise what they like, and nothing may end the books for good
                self._failed(error, pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                self._worked()
                pause = SECONDS
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _measure(self) -> None:
        """Beside all else: how far behind we are shows while the database keeps us waiting, too."""
        while True:
            await asyncio.sleep(SECONDS)
            with contextlib.suppress(OSError):
                await self._loader.measure()

    async def _round(self) -> None:
        await self._look()
        begun, joined, self._joined = time.time_ns() / 1e9, self._joined, False
        try:
            await self._sweep()
            self.swept = begun
            if joined or (self._loader.rows != self._spend_rows and time.monotonic() >= self._spend_due):
                await self._tell_spending(begun)
        except BaseException:
            self._joined |= joined
            raise
        if time.monotonic() >= self._purge_due:
            await self._purge()

    async def _tell_spending(self, now: float) -> None:
        """Writes the spend table and has all workers read it."""
        self._spend_rows, self._spend_due = self._loader.rows, time.monotonic() + SPEND_SECONDS
        entries = [(place(name), msgspec.msgpack.encode((of, amount))) async for name, of, amount in spending.present(self.engine, now)]
        await asyncio.to_thread(write, self._folder / SPEND, entries, int(now * 1000))
        self._spread(SPEND)

    async def _sweep(self) -> None:
        async with asyncio.timeout(STALL_SECONDS) as limit:
            await self._loader.sweep(self.terms.journal_keep, lambda: limit.reschedule(asyncio.get_running_loop().time() + STALL_SECONDS))

    async def _look(self) -> None:
        """Its tables are there, and it is the one that it was; else how far the journal is loaded is asked anew."""
        await self._database.ready()
        self.migrated.set()
        if self._reopened != self._database.reopened:
            self._reopened = self._database.reopened
            self._loader.again()

    async def _purge(self) -> None:
        """In small steps, for a part of each round until nothing is left; then not for a while."""
        terms = purging.Terms(self.terms.usage_days, self.terms.sums_days)
        now, end = time.time_ns() / 1e9, time.monotonic() + PURGING
        while time.monotonic() < end:
            taken, forgotten = await purging.step(self.engine, terms, now), await purging.forget(self.engine, self.terms.removed_days, now)
            self.purged += taken
            self.forgotten += forgotten
            if not taken and not forgotten:
                self._purge_due = time.monotonic() + PURGE_SECONDS
                return

    def _failed(self, error: Exception, pause: float) -> None:
        self.failures += 1
        self._loader.again()
        if not self.away:
            self.away = True
            rows, seconds = self._loader.behind()
            self._tell("database_away", {"error": told(error), "rows": rows, "seconds": round(seconds, 1), "retry_seconds": pause})

    def _worked(self) -> None:
        if self.away:
            self.away = False
            self._tell("database_back", {"failures": self.failures})

    def _refused(self, name: str, offset: int, reason: str) -> None:
        self._told += 1
        if self._told <= MOST_TOLD:
            self._tell("journal_line_refused", {"file": name, "offset": offset, "reason": reason[:200]})

    @property
    def up(self) -> bool | None:
        """Whether the database answers; None before that is known."""
        return False if self.away else True if self.migrated.is_set() else None

    def metrics(self) -> dict[str, dict[str, float]]:
        rows, seconds = self._loader.behind()
        return {
            "llm_gateway_journal_lag_rows": {"": rows},
            "llm_gateway_journal_lag_seconds": {"": round(seconds, 3)},
            "llm_gateway_journal_loaded_rows_total": {"": self._loader.rows},
            "llm_gateway_journal_refused_lines_total": {"": self._loader.refused},
            "llm_gateway_journal_removed_files_total": {"": self._loader.removed},
            "llm_gateway_usage_purged_rows_total": {"": self.purged},
            "llm_gateway_directory_purged_rows_total": {"": self.forgotten},
            "llm_gateway_database_up": {"": int(self.migrated.is_set() and not self.away)},
            "llm_gateway_database_failures_total": {"": self.failures},
        }


def told(error: BaseException) -> str:
    """In one line, without statements and their values."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
