"""Replies that all workers share: found by all, each for its time, and by nobody any more once they were purged."""

from __future__ import annotations

import asyncio
from time import perf_counter, time_ns
from typing import Any

import pytest

from llm_gateway.core.types import Usage
from llm_gateway.stores.memory import Kept, Place
from llm_gateway.stores.redis import replies
from llm_gateway.stores.redis.leases import Word
from llm_gateway.stores.redis.replies import Replies
from redis_server import say
from stores.redis.conftest import port_of, store, until

MINE, THEIRS = Place("acme", b"1" * 32), Place("other", b"1" * 32)


def reply(body: bytes = b"hello", ttl: float = 60.0, age: float = 0.0, **more: Any) -> Kept:
    born = perf_counter() - age
    said = {"name": "gpt", "provider": "openai", "model": "gpt-4o", "tags": frozenset({"red"})} | more
    return Kept(
        body=body, content_type=b"application/json", key_id="0", lines=b"x-gateway-provider: openai\r\n", usage=Usage(input=3, output=4),
        finish="stop", cost=7, dropped=("seed",), born=born, until=born + ttl, **said,
    )  # fmt: skip


async def kept(at: Replies, place: Place = MINE, **more: Any) -> None:
    assert await at.get(place, perf_counter()) is None
    at.put(place, reply(**more))
    await until(lambda: not at.shared.client.waiting)


async def found(at: Replies, place: Place = MINE) -> bool:
    return await at.get(place, perf_counter()) is not None


async def test_what_one_keeps_all_find_as_it_was(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        await kept(first)
        made = await other.get(MINE, perf_counter())
        assert made is not None
        assert (made.body, made.usage, made.tags, made.cost, made.dropped) == (b"hello", Usage(input=3, output=4), frozenset({"red"}), 7, ("seed",))
        assert 0 <= perf_counter() - made.born < 2
        assert not await found(other, THEIRS), "the same request of another tenant"


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_how_old_it_is_no_replica_s_wall_clock_tells(fresh, monkeypatch, minutes):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        with monkeypatch.context() as skewed:
            skewed.setattr(replies, "time_ns", lambda: time_ns() + minutes * 60 * 10**9)
            await kept(first)
        await asyncio.sleep(0.2)
        made = await other.get(MINE, perf_counter())
        assert made is not None
        assert 0.2 <= perf_counter() - made.born < 2
        assert 55 < made.until - perf_counter() < 60


async def test_it_goes_when_its_time_is_over(fresh):
    async with store(fresh, patient=True) as one:
        replies = Replies(one.shared)
        await kept(replies, ttl=0.3)
        assert await found(replies)
        await asyncio.sleep(0.4)
        assert not await found(replies)
        assert say(port_of(fresh), "KEYS", "llmgw:c:*") == []


@pytest.mark.parametrize(
    ("named", "gone"),
    [
        ({}, True), ({"tenant": "acme"}, True), ({"model": "gpt"}, True), ({"model": "openai/gpt-4o"}, True), ({"tag": "red"}, True),
        ({"tenant": "acme", "model": "gpt-4o", "tag": "red"}, True), ({"tenant": "other"}, False), ({"model": "gpt-4"}, False), ({"tag": "blue"}, False),
        ({"tenant": "acme", "tag": "blue"}, False),
    ],
)  # fmt: skip
async def test_what_is_purged_by_one_nobody_finds(fresh, named, gone):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        await kept(first)
        assert await found(other)
        first.purge(**named)
        await until(lambda: not one.shared.client.waiting)
        assert [await found(first), await found(other)] == [not gone] * 2
        first.put(MINE, reply())
        await until(lambda: not one.shared.client.waiting)
        assert await found(other), "what comes later is kept again"


async def test_what_was_asked_for_before_a_purge_that_was_not_heard_of_is_not_found(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        asking, purging = Replies(one.shared), Replies(two.shared)
        assert not await found(asking)
        purging.purge(tag="red")
        await until(lambda: not two.shared.client.waiting)
        asking.put(MINE, reply())
        await until(lambda: not one.shared.client.waiting)
        assert not await found(purging)


async def test_a_purge_is_told_until_it_is_heard(own):
    url, _ = own
    async with store(url, patient=True) as one, store(url, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        await kept(first)
        one.shared.client.close()
        first.purge(tenant="acme")
        assert await found(other), "Redis has not heard of it"
        async with store(url, patient=True) as again:
            first.shared = again.shared
            assert not await found(first), "but whoever was told finds nothing"
            first.sweep(perf_counter())
            await until(lambda: not again.shared.client.waiting)
            assert not await found(other)


async def test_purges_are_bounded_by_purging_all(fresh, monkeypatch):
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        await kept(made)
        for number in range(1002):
            made._pending.clear()
            made.purge(tag=f"t{number}")
        await until(lambda: not one.shared.client.waiting)
        assert not await found(made)
        assert say(port_of(fresh), "HLEN", "llmgw:{c}:purged") < 10
    monkeypatch.setattr(replies, "MOST_PENDING", 3)
    for number in range(5):
        made.purge(tag=f"t{number}")
    assert len(made._pending) <= 3


async def test_without_the_numbers_nothing_from_before_is_found(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        await kept(first)
        say(port_of(fresh), "DEL", "llmgw:{c}:purged")
        assert not await found(other)
        assert not await found(first)
        first.put(MINE, reply())
        await until(lambda: not one.shared.client.waiting)
        assert await found(other)


async def test_whatever_goes_wrong_is_a_miss(own):
    url, process = own
    async with store(url) as one:
        made = Replies(one.shared)
        await kept(made)
        (key,) = say(port_of(url), "KEYS", "llmgw:c:*")
        say(port_of(url), "SET", key.decode(), b"\x93\x01\x02".decode("latin-1"))
        assert not await found(made)
        process.kill()
        await until(lambda: not one.shared.ready)
        made.put(MINE, reply())
        assert not await found(made)


async def test_a_cluster_spreads_them(cluster):
    ports, _ = cluster
    async with store(f"redis+cluster://127.0.0.1:{ports[0]}", patient=True) as one:
        made = Replies(one.shared)
        places = [Place("acme", b"%d" % number) for number in range(30)]
        for place in places:
            await kept(made, place)
        assert all([await found(made, place) for place in places])
        assert all(say(port, "KEYS", "llmgw:c:*") for port in ports)
        made.purge(model="gpt")
        await until(lambda: not one.shared.client.waiting)
        assert not any([await found(made, place) for place in places])


@pytest.mark.parametrize("written", [("#", "nonsense"), ("#", ""), ("#", "9" * 5000), ("nonsense", "1"), ("[1]", "1"), ('["acme",null,null]', "x")])
async def test_purges_that_nobody_can_read_are_a_miss_for_as_long_as_they_stand_there(fresh, written):
    """Whatever else has been writing to that Redis."""
    async with store(fresh, patient=True) as one:
        first = Replies(one.shared)
        await kept(first)
        say(port_of(fresh), "HSET", "llmgw:{c}:purged", *written)
        later = Replies(one.shared)
        assert not await found(later)
        assert await later.take(MINE, later.lease(MINE), 0.0) is Word.UNHEARD
        say(port_of(fresh), "DEL", "llmgw:{c}:purged")
        assert not await found(later)
        later.put(MINE, reply())
        await until(lambda: not one.shared.client.waiting)
        assert await found(later)
