"""A row is taken once, whoever tries, however often."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from llm_gateway.stores.sql import booking, tables
from llm_gateway.stores.sql.engine import reading, unfit
from stores.sql.made import batch, line

LINES = [line(id=str(number)) for number in range(5)]


async def figures(engine) -> tuple[int, int, int, int]:
    """Rows, requests by the hour and by the day, what the tenant spent in all."""
    async with reading(engine) as connection:
        rows = (await connection.execute(select(func.count()).select_from(tables.usage))).scalar_one()
        hours = (await connection.execute(select(func.sum(tables.hourly.c.requests)))).scalar_one() or 0
        days = (await connection.execute(select(func.sum(tables.daily.c.requests)))).scalar_one() or 0
        chosen = select(tables.spend.c.amount).where(tables.spend.c.holder == "tenant:acme", tables.spend.c.period == "total")
        return int(rows), int(hours), int(days), int((await connection.execute(chosen)).scalar_one_or_none() or 0)


async def test_rows_sums_spending_and_place_come_together(engine):
    taken = batch(*LINES)
    assert await booking.book(engine, taken, 1.0) == taken.end
    assert await figures(engine) == (5, 5, 5, 5000)
    assert await booking.offsets(engine, "here") == {taken.name: taken.end}
    assert await booking.offsets(engine, "elsewhere") == {}


async def test_the_same_batch_again_changes_nothing_and_says_how_far_the_file_is_read(engine):
    taken = batch(*LINES)
    await booking.book(engine, taken, 1.0)
    assert await booking.book(engine, taken, 2.0) == taken.end
    assert await booking.book(engine, batch(*LINES[:2]), 2.0) == taken.end
    assert await figures(engine) == (5, 5, 5, 5000)


async def test_a_row_that_is_there_already_is_not_added_up_again(engine):
    await booking.book(engine, batch(*LINES[:3]), 1.0)
    assert await booking.book(engine, batch(*LINES, LINES[4], name="2-0-1-0.jsonl"), 1.0) > 0
    assert await figures(engine) == (5, 5, 5, 5000)


@pytest.mark.parametrize("there", [0, 1, 600, 1199])
async def test_wherever_it_stands_in_a_batch(engine, there):
    lines = [line(id=f"{number:04}", tags=["a"] * (number % 2)) for number in range(1200)]
    await booking.book(engine, batch(lines[there], name="2-0-1-0.jsonl"), 1.0)
    await booking.book(engine, batch(*lines), 1.0)
    assert await figures(engine) == (1200, 1200, 1200, 1_200_000)


async def test_rows_that_differ_in_what_they_say_come_together(engine):
    lost = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "ms": 9.0, "cost": 5}
    await booking.book(engine, batch(line(id="1")), 1.0)
    await booking.book(engine, batch(line(id="2", cached=True, searches=3), line(id="3", cost=None), line(id="4", attempts=[lost]), name="b"), 1.0)
    async with reading(engine) as connection:
        found = (await connection.execute(select(tables.usage).order_by(tables.usage.c.id))).mappings().all()
        (hour,) = (await connection.execute(select(tables.hourly).where(tables.hourly.c.provider == "openai"))).mappings().all()
    assert [(each["id"], each["cached"], each["searches"], each["cost"], each["parent"]) for each in found] == [
        ("1", False, 0, 1000, ""), ("2", True, 3, 1000, ""), ("3", False, 0, None, ""), ("4", False, 0, 995, ""), ("4.0", False, 0, 5, "4"),
    ]  # fmt: skip
    assert (hour["requests"], hour["cached"], hour["searches"], hour["unpriced"], hour["cost"]) == (4, 1, 3, 1, 2995)


async def test_several_gateways_book_the_same_sums_at_once(engine):
    async def gateway(number: int) -> None:
        start = 0
        for step in range(4):
            taken = batch(*(line(id=f"{number}-{step}-{each}", key_id=f"k{each}") for each in range(6)), start=start, replica=f"r{number}")
            start = await booking.book(engine, taken, 1.0)

    await asyncio.gather(*(gateway(number) for number in range(3)))
    assert await figures(engine) == (72, 72, 72, 72_000)


async def test_two_who_load_one_file_take_it_once(engine):
    taken = batch(*LINES)
    assert await asyncio.gather(*(booking.book(engine, taken, 1.0) for _ in range(4))) == [taken.end] * 4
    assert await figures(engine) == (5, 5, 5, 5000)


async def test_a_batch_that_fails_leaves_nothing_of_itself(engine):
    broken = batch(*LINES)
    broken.rows.columns["at"][3] = None
    with pytest.raises(DBAPIError) as found:
        await booking.book(engine, broken, 1.0)
    assert unfit(found.value)
    assert await figures(engine) == (0, 0, 0, 0)
    assert await booking.offsets(engine, "here") == {}


async def test_lines_that_nobody_can_read_are_kept_as_they_were(engine):
    broken = [line(ts=f"{number} o'clock") for number in range(3)]
    taken = batch(broken[0], LINES[0], *broken[1:])
    await booking.book(engine, taken, 7.0)
    async with reading(engine) as connection:
        kept = (await connection.execute(select(tables.journal_refused).order_by(tables.journal_refused.c.offset))).mappings().all()
    assert [(each["line"], each["at"]) for each in kept] == [(each, 7.0) for each in broken]
    assert kept[2]["reason"] == """no time: "2 o'clock\""""
    assert (await figures(engine))[0] == 1
    assert await booking.offsets(engine, "here") == {taken.name: taken.end}


async def test_files_that_are_gone_are_forgotten(engine):
    await booking.book(engine, batch(*LINES), 1.0)
    await booking.forget(engine, "here", [batch().name])
    assert await booking.offsets(engine, "here") == {}
