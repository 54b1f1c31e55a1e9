"""Whose turn it is to ask for a reply, as all workers know it: one's, for as long as it lives and renews."""

from __future__ import annotations

import asyncio
import os
import signal
from math import inf
from time import perf_counter

import pytest

from llm_gateway.stores.memory import Place
from llm_gateway.stores.redis import leases
from llm_gateway.stores.redis.leases import Word
from llm_gateway.stores.redis.replies import Replies
from llm_gateway.stores.redis.slots import slot
from redis_server import say, valkey
from stores.redis.conftest import port_of, store, until
from stores.redis.test_client import acl
from stores.redis.test_replies import reply

HERE = Place("acme", b"1" * 32)


async def settled(*stores) -> None:
    await until(lambda: not sum(each.shared.client.waiting for each in stores))


async def test_one_has_it_until_it_lets_go(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        mine, theirs = first.lease(HERE), other.lease(HERE)
        assert [await first.take(HERE, mine, -inf), await other.take(HERE, theirs, -inf)] == [Word.MINE, Word.TAKEN]
        assert await first.take(HERE, mine, -inf) is Word.MINE, "asked again, it is still ours"
        assert await other.take(Place("other", HERE.mark), other.lease(Place("other", HERE.mark)), -inf) is Word.MINE, "another tenant's"
        theirs.free()
        await settled(two)
        assert await other.take(HERE, theirs, -inf) is Word.TAKEN, "only its owner frees it"
        mine.free()
        await settled(one)
        assert await other.take(HERE, theirs, -inf) is Word.MINE
        assert await first.take(HERE, mine, -inf) is Word.TAKEN


async def test_a_reply_comes_before_whose_turn_it_is(fresh):
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        lease = made.lease(HERE)
        assert await made.take(HERE, lease, -inf) is Word.MINE
        began = perf_counter()
        made.put(HERE, reply())
        lease.free()
        found = await made.take(HERE, made.lease(HERE), -inf)
        assert not isinstance(found, Word)
        assert found.body == b"hello"
        await settled(one)
        assert say(port_of(fresh), "KEYS", "llmgw:l:*") == [], "what finds a reply takes no lease"
        assert not isinstance(await made.take(HERE, made.lease(HERE), began - 1), Word)
        late = made.lease(HERE)
        assert await made.take(HERE, late, perf_counter() + 1) is Word.MINE, "a reply that is too old for it"
        made.purge(tag="red")
        assert await made.take(HERE, late, -inf) is Word.MINE, "one that was purged"
        assert await made.take(HERE, made.lease(HERE), -inf) is Word.TAKEN


async def test_a_reply_is_found_by_who_leads_for_the_second_time_and_its_lease_goes(fresh):
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        lease = made.lease(HERE)
        await made.take(HERE, lease, -inf)
        lease.hold()
        made.put(HERE, reply())
        assert not isinstance(await made.take(HERE, lease, -inf), Word)
        lease.free()
        await settled(one)
        assert say(port_of(fresh), "KEYS", "llmgw:l:*") == []
        assert repr(made.leases) == "<Leases: 0 held>"


async def test_where_the_reply_was_not_to_be_kept_all_hear_of_it_for_a_moment(fresh, monkeypatch):
    monkeypatch.setattr(leases, "MOMENT", 0.3)
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        mine, theirs = first.lease(HERE), other.lease(HERE)
        await first.take(HERE, mine, -inf)
        mine.loosen()
        mine.free()  # as whoever leaves does; it is not ours any more
        await settled(one)
        assert [await other.take(HERE, theirs, -inf) for _ in range(3)] == [Word.LOOSE] * 3
        await asyncio.sleep(0.4)
        assert await other.take(HERE, theirs, -inf) is Word.MINE


async def test_it_lasts_while_it_is_renewed_and_no_longer(fresh, monkeypatch):
    monkeypatch.setattr(leases, "TERM", 0.5)
    monkeypatch.setattr(leases, "RENEWED", 0.1)
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = Replies(one.shared), Replies(two.shared)
        places = [Place("acme", b"%d" % number) for number in range(20)]
        for place in places:
            lease = first.lease(place)
            assert await first.take(place, lease, -inf) is Word.MINE
            lease.hold()
        wanted = [other.lease(place) for place in places]
        for _ in range(6):
            await asyncio.sleep(0.2)
            assert {await other.take(place, lease, -inf) for place, lease in zip(places, wanted, strict=True)} == {Word.TAKEN}
        one.shared.client.close()  # as one that is killed: nothing is renewed or freed
        await asyncio.sleep(0.6)
        assert {await other.take(place, lease, -inf) for place, lease in zip(places, wanted, strict=True)} == {Word.MINE}


async def test_so_many_are_renewed_at_once_and_then_the_others(fresh, monkeypatch):
    monkeypatch.setattr(leases, "AT_ONCE", 5)
    monkeypatch.setattr(leases, "EVERY", 0.05)
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        held = [made.lease(Place("acme", b"%d" % number)) for number in range(12)]
        for lease in held:
            lease.asked = True
            lease.hold()
            lease.renewed -= 60.0
        began, renewed = [lease.renewed for lease in held], []
        for _ in range(4):
            made.leases._renew()
            renewed.append(sum(lease.renewed != at for lease, at in zip(held, began, strict=True)))
        assert renewed == [5, 10, 12, 12]
        await settled(one)
        assert len(say(port_of(fresh), "KEYS", "llmgw:l:*")) == 12
        for lease in held:
            lease.free()
        await until(lambda: made.leases._timer is None)
        assert say(port_of(fresh), "KEYS", "llmgw:l:*") == []


async def test_whatever_goes_wrong_is_unheard(own):
    url, process = own
    async with store(url) as one:
        made = Replies(one.shared)
        lease = made.lease(HERE)
        assert await made.take(HERE, lease, -inf) is Word.MINE
        os.kill(process.pid, signal.SIGSTOP)
        began = perf_counter()
        assert await made.take(HERE, lease, -inf) is Word.UNHEARD
        assert await made.take(HERE, made.lease(HERE), -inf) is Word.UNHEARD
        assert perf_counter() - began < 0.5
        os.kill(process.pid, signal.SIGCONT)
        await one.ready()
        assert await made.take(HERE, lease, -inf) is Word.MINE
        process.kill()
        await until(lambda: not one.shared.ready)
        failures = dict(one.shared.meter.failures)
        lease.free()
        assert one.shared.meter.failures == failures, "nobody is there to be told"
        assert await made.take(HERE, lease, -inf) is Word.UNHEARD


@pytest.mark.parametrize("how", [("CONFIG", "SET", "maxmemory", "1"), ("REPLICAOF", "127.0.0.1", "1")])
async def test_a_server_that_takes_nothing_in_still_gives_what_it_has(own, how):
    url, _ = own
    async with store(url, patient=True) as one:
        made = Replies(one.shared)
        assert await made.take(HERE, made.lease(HERE), -inf) is Word.MINE
        made.put(HERE, reply())
        await settled(one)
        say(port_of(url), *how)
        elsewhere = Place("acme", b"2" * 32)
        assert not isinstance(await made.take(HERE, made.lease(HERE), -inf), Word)
        assert await made.take(elsewhere, made.lease(elsewhere), -inf) is Word.UNHEARD
        assert await made.take(HERE, made.lease(HERE), perf_counter() + 1) is Word.TAKEN, "the first one's, which nobody can end"
        assert one.shared.ready, "a look is no reason to leave it"


async def test_scripts_that_are_lost_are_loaded(fresh):
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        say(port_of(fresh), "SCRIPT", "FLUSH")
        lease = made.lease(HERE)
        assert await made.take(HERE, lease, -inf) is Word.MINE
        say(port_of(fresh), "SCRIPT", "FLUSH")
        lease.free()
        await settled(one)
        assert say(port_of(fresh), "KEYS", "llmgw:l:*") == []
        assert one.shared.meter.failures == {}


async def test_a_user_that_may_do_what_the_documents_say_may_do_this(own):
    url, _ = own
    say(port_of(url), "ACL", "SETUSER", "gateway", "on", ">hunter2", *acl())
    async with store(url.replace("//", "//gateway:hunter2@"), patient=True) as one:
        made = Replies(one.shared)
        lease = made.lease(HERE)
        assert await made.get(HERE, perf_counter()) is None
        assert await made.take(HERE, lease, -inf) is Word.MINE
        made.put(HERE, reply())
        lease.loosen()
        assert await made.get(HERE, perf_counter()) is not None
        assert not isinstance(await made.take(HERE, made.lease(HERE), -inf), Word)
        made.purge()
        await settled(one)
        assert await made.get(HERE, perf_counter()) is None
        assert one.shared.meter.failures == {}


async def test_valkey_has_them_too(tmp_path):
    binary = valkey()
    if binary is None:
        pytest.skip("no valkey-server here")
    import redis_server as servers

    port = servers.refused_port()
    with servers._process(tmp_path, [binary, "--port", str(port), "--save", ""], port):
        async with store(f"valkey://127.0.0.1:{port}", patient=True) as one:
            made = Replies(one.shared)
            lease = made.lease(HERE)
            assert [await made.take(HERE, lease, -inf), await made.take(HERE, made.lease(HERE), -inf)] == [Word.MINE, Word.TAKEN]
            made.put(HERE, reply())
            lease.free()
            assert not isinstance(await made.take(HERE, made.lease(HERE), -inf), Word)
            assert one.shared.meter.failures == {}


async def test_in_a_cluster_it_stands_beside_its_reply(cluster):
    ports, _ = cluster
    async with store(f"redis+cluster://127.0.0.1:{ports[0]}", patient=True) as one:
        made = Replies(one.shared)
        places = [Place("acme", b"lease %d" % number) for number in range(30)]
        held = [made.lease(place) for place in places]
        assert {slot(lease.key) - slot(lease.reply) for lease in held} == {0}
        assert {await made.take(place, lease, -inf) for place, lease in zip(places, held, strict=True)} == {Word.MINE}
        assert {await made.take(place, made.lease(place), -inf) for place in places} == {Word.TAKEN}
        assert all(say(port, "KEYS", "llmgw:l:*") for port in ports)
        for place, lease in zip(places, held, strict=True):
            made.put(place, reply())
            lease.free()
        assert all([not isinstance(await made.take(place, made.lease(place), -inf), Word) for place in places])
        assert one.shared.meter.failures == {}


async def test_who_leaves_while_it_is_taken_leaves_nothing_behind(fresh):
    """Whether it was taken is not known then; it is let go all the same."""
    async with store(fresh, patient=True) as one:
        made = Replies(one.shared)
        for turns in range(1, 5):
            lease = made.lease(HERE)
            task = asyncio.ensure_future(made.take(HERE, lease, -inf))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            lease.free()
            await settled(one)
            assert say(port_of(fresh), "KEYS", "llmgw:l:*") == []
