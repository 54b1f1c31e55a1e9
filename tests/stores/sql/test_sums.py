"""What rows add up to: by hour and day, by whoever and whatever they are of; nothing twice, nothing left out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from llm_gateway.stores.sql import sums
from llm_gateway.stores.sql.engine import reading, writing
from llm_gateway.stores.sql.tables import DIMENSIONS, daily, hourly, tag_sets
from stores.sql.made import line, table

LOST = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "ms": 9.0, "cost": 5, "input": 7}
HOUR = 1_795_741_200_000  # of 01:02 on 2026-11-27


def added(*lines: bytes) -> list[dict[str, Any]]:
    """The groups, by name, without what is 0."""
    found = sums.added_up(table(*lines))
    return [
        {"hour": hour, **dict(zip(DIMENSIONS, whose, strict=True)), **{name: value for name, value in zip(found.names, values, strict=True) if value}}
        for (hour, *whose), values in found.hours.items()
    ]


def test_of_one_row_everything_is_told() -> None:
    (found,) = added(line())
    assert found == {
        "hour": HOUR, "tenant": "acme", "project": "search", "user": "bob", "key_id": "k1", "key": "ci", "model": "gpt-4", "provider": "openai",
        "upstream_model": "gpt-4o", "tags": "", "requests": 1, "input": 20, "output": 5, "cost": 1000, "bytes_in": 100, "bytes_out": 200, "ms": 12.5,
    }  # fmt: skip


def test_rows_of_one_hour_and_holder_are_one_group() -> None:
    found = added(line(id="1"), line(id="2", cost=None), line(id="3", outcome="rate_limited", input=0, output=0, cost=None))
    assert [(each["requests"], each["failed"], each["unpriced"], each["cost"], each["input"]) for each in found] == [(3, 1, 1, 1000, 40)]


@pytest.mark.parametrize("other", [{"user": "eve"}, {"tags": ["x"]}, {"model": "gpt-3"}, {"ts": "2026-11-27T02:00:00.000Z"}, {"tenant": "blue"}])
def test_what_differs_in_whom_it_is_of_is_not_mixed(other: dict[str, Any]) -> None:
    assert [each["requests"] for each in added(line(id="1"), line(id="2", **other), line(id="3"))] == [2, 1]


def test_an_attempt_that_was_not_the_reply_is_paid_for_and_is_no_request() -> None:
    reply, lost = added(line(attempts=[LOST], cost=1005))
    assert (reply["requests"], reply["cost"], reply["ms"]) == (1, 1000, 12.5)
    assert {name: lost.get(name, 0) for name in ("requests", "absorbed", "cost", "input", "ms", "failed")} == {
        "requests": 0, "absorbed": 1, "cost": 5, "input": 7, "ms": 0, "failed": 0,
    }  # fmt: skip


def test_a_reply_from_the_cache_saves_what_it_would_have_cost() -> None:
    (found,) = added(line(cached=True, saved=800, cost=0))
    assert (found["cached"], found["saved"], found.get("cost", 0)) == (1, 800, 0)


def test_of_nothing_nothing_is_made() -> None:
    assert added() == []
    assert added(line(tenant=None)) == []  # the audit log's


async def kept(engine, grain) -> list[tuple[Any, ...]]:
    async with reading(engine) as connection:
        chosen = select(grain.c.start, grain.c.user, grain.c.requests, grain.c.cost).order_by(grain.c.start, grain.c.user)
        return [tuple(row) for row in await connection.execute(chosen)]


async def test_they_are_added_to_what_is_there_by_hour_and_by_day(engine) -> None:
    midnight, late = 1_795_737_600_000, "2026-11-27T23:59:59.999Z"
    for number in range(2):
        async with writing(engine) as connection:
            await sums.add(connection, sums.added_up(table(line(id=f"{number}1"), line(id=f"{number}2", ts=late), line(id=f"{number}3", user="eve"))))
    assert await kept(engine, hourly) == [(HOUR, "bob", 2, 2000), (HOUR, "eve", 2, 2000), (HOUR + 22 * 3_600_000, "bob", 2, 2000)]
    assert await kept(engine, daily) == [(midnight, "bob", 4, 4000), (midnight, "eve", 2, 2000)]


async def test_sets_of_tags_are_noted_with_the_day_they_were_met_last(engine) -> None:
    for day in ("28", "27"):
        async with writing(engine) as connection:
            await sums.add(connection, sums.added_up(table(line(tags=["a", "b"], ts=f"2026-11-{day}T01:00:00.000Z"))))
    async with reading(engine) as connection:
        found = {tuple(row) for row in await connection.execute(select(tag_sets.c.tags, tag_sets.c.tag, tag_sets.c.seen))}
    assert found == {("a,b", tag, 1_795_824_000_000) for tag in "ab"}
