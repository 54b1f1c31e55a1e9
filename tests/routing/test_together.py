"""Providers' limits that all workers count together: tables of two workers, and a real Redis between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import pytest
from msgspec.structs import replace

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.types import Usage
from llm_gateway.routing.plan import Course
from llm_gateway.routing.table import Table
from llm_gateway.stores.gauges import Memory
from llm_gateway.stores.redis.buckets import Line
from llm_gateway.stores.redis.gauges import Policy, Shared
from llm_gateway.stores.redis.terms import parse
from redis_server import redis_server
from routing.conftest import asked

TEXT = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k, rate_limit: {requests_per_minute: 6}}
  b: {type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k, rate_limit: {requests_per_minute: 2}, model_limits: {y: {tokens_per_minute: 6000}}}
  free: {type: openai_compatible, base_url: "http://127.0.0.1:3", api_key: k}
models: {m: [a/x], both: {targets: [a/x], fallbacks: [b/x]}, open: {targets: [a/x], fallbacks: [free/x]}, some: [b/y]}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
async def worker(url: str, table: Callable[[str], Table]) -> AsyncIterator[Callable[..., Any]]:
    """Tables as workers have them, each with a connection of its own to one emptied Redis."""
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()
    made: list[Shared] = []

    async def new(text: str = TEXT) -> Table:
        shared = Shared(replace(parse(url), timeout=2.0), Memory(), policy=Policy(shares=2))
        made.append(shared)
        async with asyncio.timeout(5):
            while not shared.ready:
                await asyncio.sleep(0.005)
        fresh = table(text)
        fresh.conditions.lines = partial(Line, shared, spare=fresh.conditions.allowance)
        return fresh

    new.shared = made  # type: ignore[attr-defined]
    yield new
    for each in made:
        await each.close()


def arrive(table: Table, model: str = "m", **body: Any) -> tuple[Exchange, Course]:
    x = asked(model, principal=Principal("k", "t"), body=body)
    x.deadline = perf_counter() + 30.0
    return x, table.course(x)[1]


async def through(table: Table, model: str = "m", **body: Any) -> Course:
    x, course = arrive(table, model, **body)
    if course.waits:
        await table.queue.wait(x, course)
    if course.asks:
        await table.secure(x, course)
    return course


async def test_two_workers_have_one_limit_and_who_is_refused_knows_when(worker: Any) -> None:
    one, two = await worker(), await worker()
    for table in (one, two) * 3:
        assert (await through(table)).target.provider == "a"
    for table in (one, two):
        with pytest.raises(Fault) as refused:
            await through(table)
        assert refused.value.kind is Kind.UPSTREAM_RATE_LIMIT
        assert 9 < refused.value.retry_after <= 10
    with pytest.raises(Fault):
        arrive(one)  # for a moment nobody asks Redis again


async def test_where_the_first_is_full_the_next_is_asked(worker: Any) -> None:
    one, two = await worker(), await worker()
    went = [await through(table, "both") for table in (one, two) * 4]
    assert [course.target.provider for course in went] == ["a"] * 6 + ["b"] * 2
    assert [course.fallbacks for course in went] == [0] * 6 + [1] * 2
    with pytest.raises(Fault) as refused:
        await through(one, "both")
    assert refused.value.retry_after <= 10, "the provider that has room first says when"


async def test_where_the_next_has_no_limits_nobody_is_asked_for_it(worker: Any) -> None:
    one = await worker()
    for _ in range(6):
        await through(one)
    course = await through(one, "open")
    assert (course.target.provider, course.asks, course.fallbacks) == ("free", False, 1)


async def test_a_plan_without_limits_asks_nobody(worker: Any) -> None:
    one = await worker()
    _, course = arrive(one, "free/x")
    assert (course.limited, course.asks) == (False, False)


async def test_a_failed_attempt_gives_its_tokens_back_and_a_good_one_what_it_did_not_need(worker: Any) -> None:
    one, two = await worker(), await worker()
    x, course = arrive(one, "some", max_tokens=5000)
    await one.secure(x, course)
    assert course.taken > 200
    taken = course.taken
    x.usage = Usage(input=10, output=20)
    one.learn(x, course)
    assert course.taken == 0
    async with asyncio.timeout(2):
        while worker.shared[0].client.waiting:
            await asyncio.sleep(0.005)
    second = await through(two, "some", max_tokens=5000)
    assert second.taken == taken
    with pytest.raises(Fault) as failed:
        second.failed(Fault(Kind.UPSTREAM_ERROR, "broke"), 0.0)
    assert (failed.value.kind, second.taken) == (Kind.UPSTREAM_ERROR, 0)


async def test_a_retry_counts_again_and_where_there_is_no_room_its_failure_is_told(worker: Any) -> None:
    one = await worker()
    course = await through(one)
    for _ in range(5):
        await through(one)
    course.failed(Fault(Kind.UPSTREAM_ERROR, "broke"), 10.0)
    assert course.asks
    with pytest.raises(Fault) as failed:
        await course.secure()
    assert failed.value.kind is Kind.UPSTREAM_ERROR
    assert failed.value.__cause__ is None


async def test_who_waits_is_served_in_turn_once_there_is_room(worker: Any) -> None:
    text = TEXT.replace("requests_per_minute: 6}", "requests_per_minute: 240}") + "resilience: {queue: {max_wait: 3}}\n"
    one, two = await worker(text), await worker(text)
    for _ in range(120):
        await through(one)
        await through(two)
    begun, order = perf_counter(), []

    async def wait(table: Table, name: str) -> None:
        await through(table)
        order.append((name, perf_counter() - begun))

    await asyncio.gather(*(wait(table, f"{who}{at}") for at in range(3) for who, table in (("one", one), ("two", two))))
    assert [name for name, _ in order if name.startswith("one")] == ["one0", "one1", "one2"]
    assert [name for name, _ in order if name.startswith("two")] == ["two0", "two1", "two2"]
    assert 1.2 < order[-1][1] < 3.0, "six at four a second"
    assert (len(one.queue), len(two.queue)) == (0, 0)


async def test_patience_is_for_all_of_the_waiting(worker: Any) -> None:
    text = TEXT.replace("requests_per_minute: 6}", "tokens_per_minute: 6000}") + "resilience: {queue: {max_wait: 1}}\n"
    one = await worker(text)
    debtor = await through(one)
    debtor.target.condition.correct(6000 - 2 * debtor.taken + 90)
    begun = perf_counter()
    waiting = asyncio.ensure_future(through(one))
    await asyncio.sleep(0.1)
    assert not waiting.done(), "it would be nine tenths of a second"
    debtor.target.condition.correct(6000)
    with pytest.raises(Fault) as refused:
        await waiting
    assert 0.9 < perf_counter() - begun < 1.9
    assert refused.value.retry_after > 30
    assert len(one.queue) == 0


async def test_without_redis_a_provider_has_one_share_whatever_its_models(worker: Any) -> None:
    one = await worker()
    await worker.shared[0].close()
    for model in ("a/one", "a/two", "a/three"):
        assert (await through(one, model)).asks is False
    with pytest.raises(Fault):
        await through(one, "a/four")
