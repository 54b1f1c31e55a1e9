"""What requests have cost reaches Redis once, however often it had to be sent, and in whatever order Redis comes and goes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis import link, outbox
from llm_gateway.stores.redis.scripts import keys
from redis_server import redis_server, say
from stores.redis.conftest import DOLLAR, Known, ask, budget, port_of, store, until


def booked(url: str) -> int:
    from llm_gateway.stores.redis.scripts import tag

    return int(say(port_of(url), "HGET", "llmgw:{" + tag("acme") + "}:tenant:acme budget month", "s") or 0)


async def test_settled_while_frozen_it_counts_once(own):
    """Redis carries out what nobody heard the answer to, and gets it again."""
    url, process = own
    async with store(url) as one:
        account = one.bind(budget())
        for number in range(20):
            assert (await account.reserve(ask(str(number), cost=100))).refused is None
        os.kill(process.pid, signal.SIGSTOP)
        for number in range(20):
            account.settle(ask(str(number), cost=100), 0, 60)
        await until(lambda: len(one.shared.outbox) == 20)
        assert not one.shared.ready
        os.kill(process.pid, signal.SIGCONT)
        await one.ready()
        await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
        assert booked(url) == 20 * 60
        assert one.shared.meter.booked >= 20


async def test_slots_are_freed_when_redis_is_back(own):
    url, process = own
    async with store(url) as one:
        slots = Claim("key:1", "concurrent", 1)
        account = one.bind(slots)
        await account.reserve(ask("a"))
        os.kill(process.pid, signal.SIGSTOP)
        await account.reserve(ask("b"))  # by this worker's own share, and it finds the connection stuck
        account.settle(ask("a"), 0, 0)
        account.settle(ask("b"), 0, 0)
        os.kill(process.pid, signal.SIGCONT)
        await one.ready()
        await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
        assert (await account.reserve(ask("c"))).refused is None


async def test_tokens_alone_are_not_worth_keeping(own):
    url, process = own
    async with store(url) as one:
        account = one.bind(Claim("key:1", "tokens", 6000))
        process.kill()
        await until(lambda: not one.shared.ready)
        account.settle(ask("a", tokens=100), 50, 0)
        assert len(one.shared.outbox) == 0


async def test_more_than_are_kept_one_by_one_are_added_up(own, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "MOST", 10)
    url, process = own
    async with store(url, loss=lambda _: "open") as one:
        account = one.bind(budget())
        await account.reserve(ask("first", cost=1))
        process.kill()
        await until(lambda: not one.shared.ready)
        for number in range(300):
            assert (await account.reserve(ask(str(number), cost=50))).cost == 50
            account.settle(ask(str(number), cost=50), 0, 7)
        assert len(one.shared.outbox) == 11
        with redis_server(tmp_path, port_of(url)):
            await one.ready()
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
            assert booked(url) == 300 * 7


async def test_what_the_seeds_know_already_is_not_booked_again(own, tmp_path, monkeypatch):
    """Redis comes back empty after long: what was spent meanwhile is in the spend table it is seeded from."""
    from llm_gateway.stores.redis.gauges import Shared

    url, process = own
    async with store(url, loss=lambda _: "open") as one:
        account = one.bind(budget())
        await account.reserve(ask("first", cost=1))
        process.kill()
        await until(lambda: not one.shared.ready)
        account.settle(ask("long ago", cost=50), 0, 7)
        account.settle(ask("just now", cost=50), 0, 5)
        assert isinstance(one.shared, Shared)
        one.shared.outbox._kept[0].at -= 60.0
        one.seeds.amounts["month"] = 1000
        one.shared.outbox._reaches = lambda _: False  # until the first request has had it seeded
        with redis_server(tmp_path, port_of(url)):
            await one.ready()
            await account.reserve(ask("seeds it", cost=1))
            one.shared.outbox._reaches = one.shared.client.reaches
            one.shared.outbox.resume()
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
            assert booked(url) == 1005


class Killing(Known):
    """Redis dies just when it is told what was spent before."""

    process: subprocess.Popen[bytes] | None = None

    def spent(self, claim: Claim, wall: float) -> int | None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
        return super().spent(claim, wall)


async def test_a_settlement_that_was_lost_on_its_way_with_seeds_is_sent_with_them_again(own, tmp_path):
    url, process = own
    seeds = Killing(month=1000)
    async with store(url, seeds) as one:
        seeds.process = process
        one.bind(budget()).settle(ask("a"), 0, 7)
        await until(lambda: not one.shared.ready)
        with redis_server(tmp_path, port_of(url)):
            await one.ready()
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
            assert booked(url) == 1007


@pytest.mark.row(26)
async def test_what_was_settled_just_before_redis_was_emptied_is_not_lost(own, monkeypatch):
    """The spend table does not know it yet; two stores, of which only one seeds."""
    monkeypatch.setattr(link, "BEAT", 0.3)
    url, _ = own
    async with store(url, Known(month=1000), patient=True) as one, store(url, Known(month=1000), patient=True) as two:
        accounts = one.bind(budget()), two.bind(budget())
        for number in range(10):
            account = accounts[number % 2]
            await account.reserve(ask(str(number), cost=100))
            account.settle(ask(str(number), cost=100), 0, 7)
        await until(lambda: not one.shared.client.waiting + two.shared.client.waiting)
        one.shared.outbox._recent[0].at -= 60.0  # one of them is old: seeds know it
        say(port_of(url), "FLUSHALL")
        await accounts[0].reserve(ask("seeds it", cost=1))
        assert booked(url) == 1000
        await until(lambda: booked(url) == 1000 + 9 * 7, 8)
        await asyncio.sleep(0.1)
        assert booked(url) == 1000 + 9 * 7


async def test_what_no_attempt_will_cure_is_given_up(own):
    from llm_gateway.stores.redis.scripts import tag

    url, _ = own
    async with store(url, patient=True) as one:
        account = one.bind(budget())
        say(port_of(url), "SET", "llmgw:{" + tag("acme") + "}:tenant:acme budget month", "not a hash")
        account.settle(ask("a"), 0, 7)
        await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
        assert one.shared.meter.failures["error"] == outbox.MOST_ERRORS


async def test_ten_thousand_are_delivered_in_no_time_and_requests_find_their_way_between(own, tmp_path):
    url, process = own
    async with store(url, loss=lambda _: "open", patient=True) as one:
        account = one.bind(budget(10 * DOLLAR))
        await account.reserve(ask("first", cost=1))
        process.kill()
        await until(lambda: not one.shared.ready)
        for number in range(10_000):
            account.settle(ask(str(number)), 0, 3)
        with redis_server(tmp_path, port_of(url)):
            await one.ready()
            waits = []
            import time

            while len(one.shared.outbox):
                begun = time.perf_counter()
                assert (await account.reserve(ask(f"between {len(waits)}", cost=1))).refused is None
                waits.append(time.perf_counter() - begun)
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting, 20)
            assert booked(url) == 30_000
            assert sorted(waits)[len(waits) // 2] < 0.2


async def test_however_slow_redis_is_no_more_than_so_many_are_under_way(own, tmp_path, monkeypatch):
    """What is sent faster than it is answered stalls the connection in the end, and is all sent again."""
    monkeypatch.setattr(outbox, "AT_ONCE", 20)
    monkeypatch.setattr(outbox, "EVERY", 0.0)
    url, process = own
    async with store(url, loss=lambda _: "open", patient=True) as one:
        account = one.bind(budget())
        await account.reserve(ask("first", cost=1))
        process.kill()
        await until(lambda: not one.shared.ready)
        for number in range(2000):
            account.settle(ask(str(number)), 0, 3)
        most = 0
        with redis_server(tmp_path, port_of(url)):
            await one.ready()
            while len(one.shared.outbox):
                most = max(most, one.shared.client.waiting)
                await asyncio.sleep(0)
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
            assert booked(url) == 6000
        assert 20 <= most <= 22, "beside them only the look at the server's mark"
        assert one.shared.outbox.under_way == 0


async def test_what_is_not_told_yet_is_told_before_the_end(tmp_path):
    """A worker that ends in the moment in which its Redis hung up."""
    with redis_server(tmp_path) as (url, _):
        async with store(url) as one:
            claim = budget(period="total")
            account = one.bind(claim)
            assert (await account.reserve(ask("a", cost=5))).refused is None
            say(port_of(url), "CLIENT", "KILL", "TYPE", "normal")
            await until(lambda: not one.shared.ready)
            account.settle(ask("a", cost=5), 0, 7)
        assert say(port_of(url), "HGET", keys("acme", claim)[0], "s") == b"7"
