"""Who runs a request with an Idempotency-Key, as all workers know it."""

from __future__ import annotations

import asyncio
from time import perf_counter

import pytest

from llm_gateway.stores.memory import Place
from llm_gateway.stores.redis import claims
from llm_gateway.stores.redis.claims import Claims, Word
from redis_server import say
from stores.redis.conftest import port_of, store, until
from stores.redis.test_replies import reply

HERE, BODY = Place("acme", b"k" * 32), b"b" * 32


async def test_one_has_it_and_the_others_hear_how_it_stands(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Claims(one.shared), Claims(two.shared)
        mine, theirs = first.claim(HERE, BODY), other.claim(HERE, BODY)
        assert [await first.take(mine), await other.take(theirs), await other.look(theirs)] == [Word.MINE, Word.RUNNING, Word.RUNNING]
        assert await first.look(mine) is Word.MINE
        assert await other.take(other.claim(HERE, b"another body")) is Word.OTHER
        assert await other.take(other.claim(Place("other", HERE.mark), BODY)) is Word.MINE, "another tenant's key"
        other.free(theirs)
        assert await other.look(theirs) is Word.RUNNING, "only its owner frees it"
        first.end(mine, reply(), 60.0, list)
        await until(lambda: not one.shared.client.waiting)
        heard = await other.take(theirs)
        assert not isinstance(heard, Word)
        assert heard.body == b"hello"
        assert 0 <= perf_counter() - heard.born < 2


async def test_what_failed_is_free_and_what_was_too_long_is_gone(fresh):
    async with store(fresh, patient=True) as one:
        made = Claims(one.shared)
        claim = made.claim(HERE, BODY)
        await made.take(claim)
        made.free(claim)
        assert await made.look(claim) is Word.FREE
        await made.take(claim)
        made.end(claim, None, 60.0, list)
        assert await made.look(claim) is Word.GONE
        assert 0 < say(port_of(fresh), "PTTL", claim.key.decode()) <= 60_000


async def test_a_claim_lasts_while_it_is_renewed(fresh, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.4)
    monkeypatch.setattr(claims, "RENEWED", 0.1)
    async with store(fresh, patient=True) as one:
        made = Claims(one.shared)
        claim, other = made.claim(HERE, BODY), made.claim(HERE, BODY)
        await made.take(claim)
        for _ in range(6):
            await asyncio.sleep(0.12)
            made.renew(claim, perf_counter())
            assert await made.look(other) is Word.RUNNING
        await asyncio.sleep(0.5)
        assert await made.take(other) is Word.MINE, "its owner is dead"
        made.renew(claim, perf_counter())
        made.end(claim, reply(), 60.0, list)
        assert await made.look(other) is Word.MINE, "who comes back writes over nobody"


async def test_where_redis_is_away_nothing_is_heard_and_nothing_raised(own):
    url, process = own
    async with store(url) as one:
        made = Claims(one.shared)
        process.kill()
        await until(lambda: not one.shared.ready)
        claim = made.claim(HERE, BODY)
        assert [await made.take(claim), await made.look(claim)] == [Word.UNHEARD] * 2
        made.renew(claim, perf_counter())
        made.end(claim, reply(), 60.0, list)


@pytest.mark.parametrize("value", [b"", b"\x91\xc4", b"\x00"])
async def test_what_cannot_be_read_is_not_sent_again(fresh, value):
    async with store(fresh, patient=True) as one:
        made = Claims(one.shared)
        claim = made.claim(HERE, BODY)
        await made.take(claim)
        import redis

        with redis.Redis.from_url(fresh) as client:
            client.set(claim.key, value)
        assert await made.look(claim) is Word.GONE


async def test_what_came_of_it_is_told_to_whoever_has_the_key_by_then(cluster):
    """A cluster's slot moves while the request is under way."""
    ports, _ = cluster
    async with store(f"redis+cluster://127.0.0.1:{ports[1]}", patient=True) as one:
        made = Claims(one.shared)
        claim = made.claim(HERE, BODY)
        assert await made.take(claim) is Word.MINE
        ids = {port: say(port, "CLUSTER", "MYID") for port in ports}
        here = next(port for port in ports if say(port, "CLUSTER", "COUNTKEYSINSLOT", claim.slot))
        there = next(port for port in ports if port != here)
        say(there, "CLUSTER", "SETSLOT", claim.slot, "IMPORTING", ids[here])
        say(here, "CLUSTER", "SETSLOT", claim.slot, "MIGRATING", ids[there])
        say(here, "MIGRATE", "127.0.0.1", there, claim.key.decode(), 0, 1000)
        for port in (there, here, *ports):
            say(port, "CLUSTER", "SETSLOT", claim.slot, "NODE", ids[there])
        made.end(claim, reply(), 60.0, list)
        await until(lambda: not one.shared.client.waiting)
        heard = await made.look(claim)
        assert not isinstance(heard, Word)
        assert heard.body == b"hello"
        await one.ready()
