"""Rows go after their time, sums after theirs."""

from __future__ import annotations

from calendar import timegm

import pytest
from sqlalchemy import func, select

from llm_gateway.core.tenancy import Key, Project, Tenant, User
from llm_gateway.stores.sql import booking, purging, tables
from llm_gateway.stores.sql.directory import BehindError, Register, Wanted
from llm_gateway.stores.sql.engine import reading
from llm_gateway.stores.sql.purging import Terms, forget, step
from stores.sql.made import batch, line

NOW = timegm((2026, 11, 27, 1, 30, 0))
DAY = 86_400


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


def key(name: str) -> Key:
    return Key(id=name, name=name, tenant="acme", digest=name.encode().ljust(32))


async def who(engine) -> tuple[int, ...]:
    """Rows of tenants, projects, users and keys, removed or not."""
    async with reading(engine) as connection:
        shown = (tables.tenants, tables.projects, tables.users, tables.keys)
        return tuple([int((await connection.execute(select(func.count()).select_from(table))).scalar_one()) for table in shown])


async def test_who_was_removed_is_forgotten_after_its_time_and_who_was_not_stays(engine):
    register = Register(engine)
    for tenant in ("acme", "other"):
        await register.create(Tenant(tenant), NOW)
        await register.create(Project(tenant, "p"), NOW)
        await register.create(User(tenant, "u"), NOW)
    for name in ("one", "two"):
        await register.add(key(name), NOW, "")
    await register.remove(Tenant, ("other",), NOW, cascade=True)
    await register.remove_key("one", NOW + DAY)
    assert await forget(engine, 30, NOW + 30 * DAY) == 0
    assert await forget(engine, 30, NOW + 30 * DAY + 1) == 3
    assert await who(engine) == (1, 1, 1, 2)
    assert [await forget(engine, 30, NOW + 60 * DAY) for _ in range(2)] == [1, 0]
    assert await who(engine) == (1, 1, 1, 1)
    assert (await register.get(Tenant, "acme")).record == Tenant("acme")
    assert [each.record for each in await register.keys(Wanted(), NOW)] == [key("two")]
    await register.create(Tenant("other"), NOW)
    assert (await register.get(Tenant, "other")).record == Tenant("other")


async def test_whoever_knows_less_than_is_forgotten_is_told_so(engine):
    register = Register(engine)
    await register.add(key("one"), NOW, "")
    await register.add(key("two"), NOW, "")
    behind = await register.serial()
    await register.remove_key("one", NOW)
    heard = await register.serial()
    await register.add(key("three"), NOW, "")
    assert await forget(engine, 1, NOW + 2 * DAY) == 1
    assert list((await register.since(heard))[1]) == [key("three").digest]
    with pytest.raises(BehindError):
        await register.since(behind)


async def test_a_secret_that_a_rotated_key_had_before_is_forgotten_once_it_is_long_over(engine):
    register = Register(engine)
    await register.add(key("one"), NOW, "")
    await register.rotate("one", key("fresh"), 3600, NOW)
    assert await forget(engine, 1, NOW + 3600 + DAY) == 0
    assert await forget(engine, 1, NOW + 3601 + DAY) == 1
    assert (await register.key("one", NOW)).record.digest == key("fresh").digest
    assert await register.owner(key("one").digest) is None


async def test_many_go_in_steps(engine, monkeypatch):
    monkeypatch.setattr(purging, "ROWS", 2)
    register = Register(engine)
    for number in range(5):
        await register.add(key(f"k{number}"), NOW, "")
        await register.remove_key(f"k{number}", NOW)
    assert [await forget(engine, 1, NOW + 2 * DAY) for _ in range(4)] == [2, 2, 1, 0]


async def test_one_that_is_made_again_is_not_forgotten(engine):
    register = Register(engine)
    await register.create(User("acme", "bob"), NOW)
    await register.remove(User, ("acme", "bob"), NOW, cascade=False)
    await register.create(User("acme", "bob"), NOW + DAY)
    assert await forget(engine, 1, NOW + 100 * DAY) == 0


async def test_the_row_of_keys_that_were_all_withdrawn_is_forgotten(engine):
    register = Register(engine)
    for tenant in ("acme", "other"):
        await register.entrust(tenant, lambda _: {"openai": "sealed"}, NOW)
    await register.entrust("acme", lambda _: {}, NOW)
    behind = await register.serial() - 1
    assert await forget(engine, 30, NOW + 30 * DAY) == 0
    assert await forget(engine, 30, NOW + 30 * DAY + 1) == 1
    assert await register.entrusted(["acme", "other"]) == {"other": {"openai": "sealed"}}
    with pytest.raises(BehindError):
        await register.since(behind)
