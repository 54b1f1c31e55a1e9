"""What is older than it has to be kept, taken out in small steps, so that nobody waits for it long.

Law: `step` and `forget` are short transactions. Sums outlive the rows they were made of. What is forgotten of who there was is said in
`revision.purged`, in the same transaction: a gateway that was away for so long then knows that it missed something.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from sqlalchemy import BigInteger, Delete, and_, bindparam, delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import writing
from llm_gateway.stores.sql.tables import (
    daily,
    hourly,
    keys,
    projects,
    revision,
    secrets,
    tag_sets,
    tenants,
    usage,
    users,
)

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


async def forget(engine: AsyncEngine, days: int, now: float) -> int:
    """Takes out some hundreds of the tenants, projects, users and keys that were removed that long before `now` (Unix seconds), of the rows of
    tenants whose provider keys were all withdrawn, and of the secrets that rotated keys had before; returns how many, 0 when nothing is left."""
    before = now - days * DAY / 1000
    async with writing(engine) as connection:
        gone: list[int] = []
        for table in (tenants, projects, users, keys, secrets):
            over = table.c.removed < before
            if table is keys:
                over = or_(over, and_(keys.c.successor.is_not(None), keys.c.expires > 0, keys.c.expires < before))
            key = tuple_(*table.primary_key.columns)
            chosen = select(*table.primary_key.columns).where(over).limit(ROWS)
            # Said twice: one that was made again meanwhile is not taken.
            gone += (await connection.execute(delete(table).where(key.in_(chosen), over).returning(table.c.changed))).scalars()
        if gone:
            most = max(gone)
            await connection.execute(update(revision).where(revision.c.id == 1, revision.c.purged < most).values(purged=most))
    return len(gone)


def _statements(terms: Terms) -> Iterator[tuple[Delete, int]]:
    before = bindparam("before", type_=BigInteger)
    yield delete(usage).where(usage.c.id.in_(select(usage.c.id).where(usage.c.at < before).order_by(usage.c.at).limit(ROWS))), terms.rows
    for table in (hourly, daily):
        key = tuple_(table.c.start, table.c.place)
        chosen = select(table.c.start, table.c.place).where(table.c.start < before).order_by(table.c.start).limit(ROWS)
        yield delete(table).where(key.in_(chosen)), terms.sums
    key = tuple_(tag_sets.c.tags, tag_sets.c.tag)
    yield delete(tag_sets).where(key.in_(select(tag_sets.c.tags, tag_sets.c.tag).where(tag_sets.c.seen < before).limit(ROWS))), terms.sums
