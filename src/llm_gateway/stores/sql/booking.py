"""From the journal into the database: rows, their sums, what was spent and how far the file is read, all in one transaction.

Law: a row is taken once, by its id; lines are taken in the order of their file, from where the database says the last batch ended. So it
does not matter how often, by whom, or after which crash a batch is tried again.

Nobody looks beforehand whether a row is there: that the table has each id once says so, when it is, which is next to never. Then the whole
transaction is taken back and tried again without those rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec
from msgspec import Struct
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.stores.sql import spending, sums
from llm_gateway.stores.sql.engine import reading, writing
from llm_gateway.stores.sql.rows import Rows, decode
from llm_gateway.stores.sql.tables import journal_files, journal_refused, usage

COLUMNS = tuple([column.name for column in usage.c])
NO_ROWS = Rows(0, {})
ASKED = 500  # ids at once; SQLite has a bound of parameters


class Refused(Struct, frozen=True):
    """A line that nobody can read, and why; `offset` in bytes."""

    offset: int
    line: bytes
    reason: str


class Batch(Struct, frozen=True):
    """Whole lines of a file, one after another, and what they say; `start` and `end` in bytes."""

    replica: str
    name: str
    start: int
    end: int
    lines: list[bytes]
    rows: Rows
    refused: list[Refused]

    def halves(self) -> tuple[Batch, Batch]:
        """Of several lines."""
        middle = len(self.lines) // 2
        first = read(self.replica, self.name, self.start, self.lines[:middle])
        return first, read(self.replica, self.name, first.end, self.lines[middle:])

    def without(self, reason: str) -> Batch:
        """Of a single line, which is not to be had."""
        (line,) = self.lines
        return msgspec.structs.replace(self, rows=NO_ROWS, refused=[Refused(self.start, line, reason)])


def read(replica: str, name: str, start: int, lines: list[bytes]) -> Batch:
    """lines: with the newlines that end them. Some ten milliseconds of work for thousands of them: not for an event loop."""
    rows, reasons = decode(lines)
    ends = list(accumulate(map(len, lines), initial=start))
    refused = [Refused(ends[number], lines[number], reason) for number, reason in reasons.items()]
    return Batch(replica, name, start, ends[-1], lines, rows, refused)


async def offsets(engine: AsyncEngine, replica: str) -> dict[str, int]:
    """How far each file of that gateway is read."""
    chosen = select(journal_files.c.name, journal_files.c.offset).where(journal_files.c.replica == replica)
    async with reading(engine) as connection:
        return {str(name): int(offset) for name, offset in await connection.execute(chosen)}


async def book(engine: AsyncEngine, batch: Batch, now: float) -> int:
    """Takes it, if the file is read up to its start; returns how far it is read now. now: Unix seconds."""
    try:
        return await _book(engine, batch, now, careful=False)
    except IntegrityError:  # a row is there already, or cannot be had
        return await _book(engine, batch, now, careful=True)


async def _book(engine: AsyncEngine, batch: Batch, now: float, *, careful: bool) -> int:
    """careful: looks which rows are there."""
    async with writing(engine) as connection:
        offset = await _offset(connection, batch)
        if offset != batch.start:
            return offset
        rows = await _fresh(connection, batch.rows) if careful else batch.rows
        if rows.count:
            names = tuple([name for name in COLUMNS if name in rows.columns])
            await sums.bulk(connection, sums.plain, usage, names, list(zip(*map(rows.columns.get, names), strict=True)))
            added = sums.added_up(rows)
            await sums.add(connection, added)
            await spending.book(connection, added, int(now * 1000))
        if batch.refused:
            await _set_aside(connection, batch, now)
        place = (journal_files.c.replica == batch.replica) & (journal_files.c.name == batch.name)
        await connection.execute(update(journal_files).where(place).values(offset=batch.end, loaded=now))
    return batch.end


async def _offset(connection: AsyncConnection, batch: Batch) -> int:
    """Read under a lock, so that of two who load one file the second sees what the first did."""
    place = {"replica": batch.replica, "name": batch.name}
    await connection.execute(sums.insertion(connection, journal_files).on_conflict_do_nothing(), {**place, "offset": 0, "loaded": 0.0})
    chosen = select(journal_files.c.offset).filter_by(**place).with_for_update()
    return int((await connection.execute(chosen)).scalar_one())


async def _fresh(connection: AsyncConnection, rows: Rows) -> Rows:
    """Those that are not there yet, each once."""
    ids: Sequence[str] = rows.columns["id"] if rows.count else ()
    known: set[str] = set()
    for some in [list(ids[begin : begin + ASKED]) for begin in range(0, len(ids), ASKED)]:
        if connection.dialect.name == "postgresql":
            there = await connection.exec_driver_sql("SELECT id FROM usage WHERE id = ANY($1)", (some,))
        else:
            there = await connection.exec_driver_sql(f"SELECT id FROM usage WHERE id IN ({','.join('?' * len(some))})", tuple(some))  # noqa: S608  marks only
        known.update([found for (found,) in there])
    fresh = []
    for each in ids:
        fresh.append(each not in known)
        known.add(each)
    return rows.some(fresh)


async def _set_aside(connection: AsyncConnection, batch: Batch, now: float) -> None:
    place = {"replica": batch.replica, "name": batch.name, "at": now}
    values = [{**place, "offset": each.offset, "line": each.line, "reason": each.reason[:500]} for each in batch.refused]
    await connection.execute(sums.insertion(connection, journal_refused).on_conflict_do_nothing(), values)


async def forget(engine: AsyncEngine, replica: str, names: list[str]) -> None:
    """Files that are no more."""
    gone = (journal_files.c.replica == replica) & journal_files.c.name.in_(names)
    async with writing(engine) as connection:
        await connection.execute(delete(journal_files).where(gone))
