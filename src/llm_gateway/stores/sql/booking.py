"""From the journal into the database: rows, their sums, what was spent and how far the file is read, all in one transaction.

Law: a row is taken once, by its id; lines are taken in the order of their file, from where the database says the last batch ended. So it
does not matter how often, by whom, or after which crash a batch is tried again.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import astuple
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llm_gateway.stores.sql import spending, sums
from llm_gateway.stores.sql.engine import reading, writing
from llm_gateway.stores.sql.rows import Row
from llm_gateway.stores.sql.tables import journal_files, journal_refused, usage


class Entry(Struct, frozen=True, gc=False):
    """One line: from `offset` to `end` (bytes), and the rows that it says; or why nobody can read it."""

    offset: int
    end: int
    line: bytes
    rows: list[Row] = []
    refused: str = ""


class Batch(Struct, frozen=True):
    """Whole lines of a file, one after another; `start` and `end` in bytes."""

    replica: str
    name: str
    start: int
    end: int
    entries: list[Entry]

    @property
    def refused(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.refused]

    def halves(self) -> tuple[Batch, Batch]:
        middle = len(self.entries) // 2
        at = self.entries[middle].offset
        return (
            Batch(self.replica, self.name, self.start, at, self.entries[:middle]),
            Batch(self.replica, self.name, at, self.end, self.entries[middle:]),
        )

    def without(self, reason: str) -> Batch:
        """Of a single line, which is not to be had."""
        return msgspec.structs.replace(self, entries=[msgspec.structs.replace(each, rows=[], refused=reason) for each in self.entries])


async def offsets(engine: AsyncEngine, replica: str) -> dict[str, int]:
    """How far each file of that gateway is read."""
    chosen = select(journal_files.c.name, journal_files.c.offset).where(journal_files.c.replica == replica)
    async with reading(engine) as connection:
        return {str(name): int(offset) for name, offset in await connection.execute(chosen)}


async def book(engine: AsyncEngine, batch: Batch, now: float) -> int:
    """Takes it, if the file is read up to its start; returns how far it is read now. now: Unix seconds."""
    async with writing(engine) as connection:
        offset = await _offset(connection, batch)
        if offset != batch.start:
            return offset
        fresh = await _fresh(connection, [row for entry in batch.entries for row in entry.rows])
        if fresh:
            await sums.bulk(connection, sums.plain, usage, Row.__struct_fields__, list(map(astuple, fresh)))
            await sums.add(connection, fresh)
            await spending.book(connection, fresh, int(now * 1000))
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


async def _fresh(connection: AsyncConnection, rows: list[Row]) -> list[Row]:
    """Those that are not there yet, each once."""
    if not rows:
        return []
    by_id = {row.id: row for row in rows}
    ids = list(by_id)
    if connection.dialect.name == "postgresql":
        there = await connection.exec_driver_sql("SELECT id FROM usage WHERE id = ANY($1)", (ids,))
    else:
        there = await connection.exec_driver_sql(f"SELECT id FROM usage WHERE id IN ({','.join('?' * len(ids))})", tuple(ids))  # noqa: S608  marks only
    for (known,) in there:
        del by_id[known]
    return list(by_id.values())


async def _set_aside(connection: AsyncConnection, batch: Batch, now: float) -> None:
    place = {"replica": batch.replica, "name": batch.name, "at": now}
    values = [{**place, "offset": each.offset, "line": each.line, "reason": each.refused[:500]} for each in batch.refused]
    await connection.execute(sums.insertion(connection, journal_refused).on_conflict_do_nothing(), values)


async def forget(engine: AsyncEngine, replica: str, names: list[str]) -> None:
    """Files that are no more."""
    gone = (journal_files.c.replica == replica) & journal_files.c.name.in_(names)
    async with writing(engine) as connection:
        await connection.execute(delete(journal_files).where(gone))
