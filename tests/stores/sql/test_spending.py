"""What was spent in the present window of each period, by whoever's money it was."""

from __future__ import annotations

from calendar import timegm

from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.spending import holders, spent
from stores.sql.made import batch, line, rows


def _whose(said: bytes) -> list[str]:
    (row,) = rows(said)
    return holders(row.tenant, row.project, row.user, row.key_id)


NOW = timegm((2026, 11, 27, 1, 30, 0))


async def book(engine, *lines: bytes, name: str) -> None:
    await booking.book(engine, batch(*lines, name=name), NOW)


def test_whose_money_it_is():
    assert _whose(line()) == ["key:k1", "user:acme/bob", "project:acme/search", "tenant:acme"]
    assert _whose(line(user=None, project=None, key_id=None)) == ["tenant:acme"]


async def test_every_holder_has_every_window(engine):
    await book(engine, line(id="1"), line(id="2", user=None), line(id="3", tenant="other", key_id="k2", cost=7), name="a")
    found = await spent(engine, NOW)
    assert found["tenant:acme budget month"] == ("2026-11", 2000)
    assert found["tenant:acme budget hour"] == ("2026-11-27T01", 2000)
    assert found["user:acme/bob budget day"] == ("2026-11-27", 1000)
    assert found["key:k2 budget week"] == ("2026-W48", 7)
    assert found["tenant:other budget total"] == ("", 7)
    assert "user:other/bob budget total" in found


async def test_a_window_that_is_over_gives_way(engine):
    await book(engine, line(id="1", ts="2026-11-27T00:59:59.999Z"), name="a")
    assert "tenant:acme budget hour" not in await spent(engine, NOW)
    await book(engine, line(id="2"), name="b")
    found = await spent(engine, NOW)
    assert (found["tenant:acme budget hour"], found["tenant:acme budget day"]) == (("2026-11-27T01", 1000), ("2026-11-27", 2000))


async def test_what_comes_late_for_a_window_that_is_over_changes_no_other(engine):
    await book(engine, line(id="1"), name="a")
    await book(engine, line(id="2", ts="2026-10-31T23:59:59.000Z", cost=5), name="b")
    found = await spent(engine, NOW)
    assert found["tenant:acme budget month"] == ("2026-11", 1000)
    assert found["tenant:acme budget total"] == ("", 1005)


async def test_rows_of_several_windows_in_one_batch(engine):
    await book(engine, line(id="1", ts="2026-11-27T00:10:00.000Z", cost=1), line(id="2", cost=2), line(id="3", ts="2026-11-27T00:20:00.000Z", cost=4), name="a")
    assert (await spent(engine, NOW))["tenant:acme budget hour"] == ("2026-11-27T01", 2)
    assert (await spent(engine, NOW))["tenant:acme budget day"] == ("2026-11-27", 7)


async def test_attempts_that_were_not_the_reply_were_paid_for_too(engine):
    lost = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "status": 0, "ms": 9.0, "input": 20, "cost": 50}
    await book(engine, line(attempts=[lost], cost=None, outcome="timeout"), line(id="b", attempts=[lost], cost=1050), name="a")
    assert (await spent(engine, NOW))["tenant:acme budget total"] == ("", 1100)
