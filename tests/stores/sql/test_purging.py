"""Rows go after their time, sums after theirs."""

from __future__ import annotations

from calendar import timegm

from sqlalchemy import func, select

from llm_gateway.stores.sql import booking, tables
from llm_gateway.stores.sql.engine import reading
from llm_gateway.stores.sql.purging import Terms, step
from stores.sql.made import batch, line

NOW = timegm((2026, 11, 27, 1, 30, 0))


async def counts(engine) -> tuple[int, ...]:
    async with reading(engine) as connection:
        shown = (tables.usage, tables.hourly, tables.daily, tables.tag_sets)
        return tuple([int((await connection.execute(select(func.count()).select_from(table))).scalar_one()) for table in shown])


async def test_rows_are_taken_in_steps_and_their_sums_stay(engine):
    old = [line(id=str(number), ts="2026-08-01T00:00:00.000Z", tags=["a"]) for number in range(700)]
    await booking.book(engine, batch(*old, line(id="new", tags=["b"])), NOW)
    terms = Terms(rows=90, sums=731)
    assert [await step(engine, terms, NOW) for _ in range(3)] == [500, 200, 0]
    assert await counts(engine) == (1, 2, 2, 2)


async def test_a_day_goes_as_a_whole(engine):
    await booking.book(engine, batch(line(id="1", ts="2026-11-26T00:00:00.000Z"), line(id="2", ts="2026-11-25T23:59:59.999Z")), NOW)
    assert await step(engine, Terms(rows=1, sums=731), NOW) == 1
    assert (await counts(engine))[0] == 1


async def test_sums_and_tags_go_after_their_time(engine):
    await booking.book(engine, batch(line(id="1", ts="2024-11-20T00:00:00.000Z", tags=["a"]), line(id="2", tags=["b"])), NOW)
    await step(engine, Terms(rows=90, sums=731), NOW)
    assert await counts(engine) == (1, 1, 1, 1)
