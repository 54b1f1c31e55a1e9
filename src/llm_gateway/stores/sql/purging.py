"""What is older than it has to be kept, taken out in small steps, so that nobody waits for it long.

Law: `step` is one short transaction. Sums outlive the rows they were made of.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from sqlalchemy import BigInteger, Delete, bindparam, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import writing
from llm_gateway.stores.sql.tables import daily, hourly, tag_sets, usage

ROWS = 500
DAY = 86_400_000


class Terms(Struct, frozen=True):
    """In days."""

    rows: int
    sums: int


async def step(engine: AsyncEngine, terms: Terms, now: float) -> int:
    """Takes out some hundreds of what is too old at `now` (Unix seconds); returns how many, 0 when nothing is left."""
    taken = 0
    for statement, days in _statements(terms):
        before = int(now * 1000) - days * DAY
        async with writing(engine) as connection:
            taken += (await connection.execute(statement, {"before": before - before % DAY})).rowcount
    return taken


def _statements(terms: Terms) -> Iterator[tuple[Delete, int]]:
    before = bindparam("before", type_=BigInteger)
    yield delete(usage).where(usage.c.id.in_(select(usage.c.id).where(usage.c.at < before).order_by(usage.c.at).limit(ROWS))), terms.rows
    for table in (hourly, daily):
        key = tuple_(table.c.start, table.c.place)
        chosen = select(table.c.start, table.c.place).where(table.c.start < before).order_by(table.c.start).limit(ROWS)
        yield delete(table).where(key.in_(chosen)), terms.sums
    key = tuple_(tag_sets.c.tags, tag_sets.c.tag)
    yield delete(tag_sets).where(key.in_(select(tag_sets.c.tags, tag_sets.c.tag).where(tag_sets.c.seen < before).limit(ROWS))), terms.sums
