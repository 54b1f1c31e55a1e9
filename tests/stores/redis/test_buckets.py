"""What providers allow is counted once for all workers, and by each for its share while Redis is away."""

from __future__ import annotations

import pytest

from llm_gateway.policies.bucket import Allowance, Rate
from llm_gateway.stores.redis.buckets import Line
from llm_gateway.stores.redis.slots import slot
from redis_server import say
from stores.redis.conftest import store, until

PROVIDER = (("openai",), Rate(requests=6, tokens=60_000))
MODEL = (("openai", "key-1", "gpt-4o"), Rate(tokens=6000))


def line(one, *rated) -> Line:
    names, rates = zip(*(rated or (PROVIDER, MODEL)), strict=True)
    return Line(one.shared, "openai", names, rates)


async def test_all_or_none_of_them(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, other = line(one), line(two, PROVIDER)
        for _ in range(2):
            assert (await first.take(3000)).wait == 0
        short = await first.take(1000)
        assert 9 < short.wait <= 10
        assert short.tokens == 0
        for _ in range(4):
            assert (await other.take(10)).wait == 0
        assert 9 < (await other.take(10)).wait <= 10, "the provider's six are gone: the refused one took none"


async def test_an_estimate_takes_no_more_than_a_bucket_and_is_corrected(fresh):
    async with store(fresh, patient=True) as one:
        target = line(one, MODEL)
        assert (await target.take(1_000_000)).tokens == 6000
        target.correct(-5900)
        await until(lambda: not one.shared.client.waiting)
        assert (await target.take(5000)).wait == 0
        target.correct(6000)
        await until(lambda: not one.shared.client.waiting)
        assert 59 < (await target.take(1000)).wait <= 61, "a debt is waited for"


@pytest.mark.parametrize("tokens", [10, 2500, 9000])
async def test_as_in_memory(fresh, tokens):
    async with store(fresh, patient=True) as one:
        target, allowance = line(one, MODEL), Allowance()
        allowance.adopt(MODEL[1])
        for _ in range(4):
            cut = min(tokens, 6000)
            wait = allowance.wait(cut, 1.0)
            taken = await target.take(tokens)
            assert abs(taken.wait - wait) < 0.5
            if not wait:
                allowance.take(cut, 1.0)


async def test_without_redis_each_worker_has_its_share(own):
    url, process = own
    async with store(url, shares=3) as one:
        target = line(one)
        process.kill()
        await until(lambda: not one.shared.ready)
        assert [(await target.take(10)).wait > 0 for _ in range(3)] == [False, False, True]
        target.correct(-10)
        assert one.shared.meter.local == {"granted": 2, "refused": 1}


async def test_no_limits_are_no_work(fresh):
    async with store(fresh) as one:
        assert (await line(one, (("openai",), Rate())).take(10)).wait == 0


async def test_a_providers_buckets_are_in_one_slot(cluster):
    ports, _ = cluster
    async with store(f"redis+cluster://127.0.0.1:{ports[0]}", patient=True) as one:
        for provider in range(20):
            names = ((f"p{provider}",), (f"p{provider}", "key"), (f"p{provider}", "key", "model"))
            made = Line(one.shared, f"p{provider}", names, (Rate(requests=9), Rate(tokens=900), Rate(1, 100)))
            assert (await made.take(10)).wait == 0
            made.correct(5)
        await until(lambda: not one.shared.client.waiting)
        assert one.shared.meter.failures == {}
    found = [key for port in ports for key in say(port, "KEYS", "*provider:p0*")]
    assert len(found) == 4
    assert len({slot(key) for key in found}) == 1
