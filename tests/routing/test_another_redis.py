"""A reload that changes how Redis is reached, while requests are under way: what they took there is settled there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from msgspec.structs import replace

from ingress.gateway import provider, snapshot
from llm_gateway.config.snapshot import Caching
from llm_gateway.core.gauges import Verdict
from llm_gateway.core.tenancy import Claim
from llm_gateway.routing.once import Once
from llm_gateway.stores.redis.claims import LEASE, Claims
from llm_gateway.stores.redis.replies import Replies
from llm_gateway.stores.redis.terms import Terms, parse
from llm_gateway.worker import Worker
from redis_server import Process, redis_server
from replay.faulty import refused_port
from routing.test_once import answered, request
from stores.redis.conftest import DOLLAR, ask, budget, store, until
from stores.redis.test_replies import found, kept

CLOSED = 1.2  # seconds until what is left behind has been closed


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Process]]:
    with redis_server(tmp_path) as made:
        yield made


@pytest.fixture
def url(server: tuple[str, Process]) -> str:
    return server[0]


@pytest.fixture
async def worker(url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    told = snapshot(tmp_path / "data", (provider("up", "http://127.0.0.1:1"),), redis=terms(url), cache=Caching(enabled=True), cache_shared=True)
    made = Worker(0, told, asyncio.get_running_loop())
    await ready(made)
    yield made
    assert made._shared is not None
    await made._shared.close()
    made.pool.close()
    made.journal.close()


def terms(url: str, patience: float = 2.0) -> Terms:
    return replace(parse(url), timeout=patience)


async def ready(worker: Worker) -> None:
    await until(lambda: worker._shared is not None and worker._shared.ready)


async def moved(worker: Worker, url: str = "", *, wait: float = CLOSED) -> None:
    """The operator changes an option of Redis: its password, or how long it may take."""
    assert worker.snapshot.redis is not None
    worker.adopt(replace(worker.snapshot, redis=terms(url or f"redis://127.0.0.1:{worker.snapshot.redis.nodes[0][1]}/0", 1.5)))
    await ready(worker)
    await asyncio.sleep(wait)


async def reserved(bound: Any, name: str, cost: int = 0) -> Verdict:
    return await bound.reserve(ask(name, cost=cost))


async def test_a_slot_that_was_taken_before_is_given_back_after(worker: Worker) -> None:
    claim = Claim("tenant:acme", "concurrent", 1)
    before = worker._gauges.bind("acme", (claim,))
    stream = ask("a")
    assert (await before.reserve(stream)).refused is None
    await moved(worker)
    after = worker._gauges.bind("acme", (claim,))
    assert after is not before
    assert (await reserved(after, "b")).refused is claim
    before.settle(stream, 0, 0)
    await asyncio.sleep(0.1)
    assert (await reserved(after, "c")).refused is None


async def test_a_stream_is_granted_more_after_a_second_change_too(worker: Worker, url: str) -> None:
    """It is ended else, as if its money were spent."""
    claim = budget()
    worker.spend.spent = lambda claim, wall: 0  # type: ignore[method-assign]
    before = worker._gauges.bind("acme", (claim,))
    assert (await before.reserve(ask("a", cost=DOLLAR // 4))).refused is None
    for patience in (1.5, 2.5):
        worker.adopt(replace(worker.snapshot, redis=terms(url, patience)))
        await ready(worker)
    await asyncio.sleep(CLOSED)
    assert (await before.extend(ask("a", cost=DOLLAR // 4))).refused is None


async def test_what_a_stream_costs_that_began_before_is_booked(worker: Worker) -> None:
    claim = budget()
    worker.spend.spent = lambda claim, wall: 0  # type: ignore[method-assign]  nothing, before
    before = worker._gauges.bind("acme", (claim,))
    stream = ask("a", cost=DOLLAR)
    assert (await before.reserve(stream)).refused is None
    await moved(worker)
    before.settle(stream, 0, DOLLAR)
    await asyncio.sleep(0.1)
    verdict = await reserved(worker._gauges.bind("acme", (claim,)), "b", DOLLAR // 2)
    assert (verdict.refused, verdict.held) == (claim, False), "spent, not just held until the reservation ends"


async def test_what_waited_for_one_that_is_gone_is_booked_at_the_next(worker: Worker, server: tuple[str, Process], tmp_path: Path) -> None:
    claim = budget()
    worker.spend.spent = lambda claim, wall: 0  # type: ignore[method-assign]
    before = worker._gauges.bind("acme", (claim,))
    stream = ask("a", cost=DOLLAR)
    assert (await before.reserve(stream)).refused is None
    (folder := tmp_path / "next").mkdir()
    with redis_server(folder) as (url, _):
        server[1].kill()
        await until(lambda: not worker._shared.ready)
        before.settle(stream, 0, DOLLAR)
        await moved(worker, url)
        verdict = await reserved(worker._gauges.bind("acme", (claim,)), "b", DOLLAR // 2)
        assert (verdict.refused, verdict.held) == (claim, False)


async def test_a_purge_that_redis_has_not_heard_of_is_told_to_it_once_it_is_reached(worker: Worker, url: str) -> None:
    """Its password was changed; what is purged before the gateway knows the new one must not be found after."""
    assert worker.replay is not None
    store = worker.replay.store
    assert isinstance(store, Replies)
    await kept(store)
    worker.adopt(replace(worker.snapshot, redis=terms(f"redis://127.0.0.1:{refused_port()}/0")))
    worker.replay.store.purge("acme", None, None)
    await asyncio.sleep(0.1)
    await moved(worker, url, wait=0.0)
    worker.replay.store.sweep(perf_counter())
    await asyncio.sleep(0.1)
    assert isinstance(worker.replay.store, Replies)
    assert not await found(worker.replay.store)


@pytest.mark.slow
async def test_a_key_under_way_is_not_sent_by_another_worker(worker: Worker, url: str) -> None:
    async with store(url, patient=True) as other:
        there = Once()
        there.claims = Claims(other.shared)
        x = request("a", started=perf_counter())
        assert await worker.once.join(x) == b""
        await moved(worker, wait=0.0)
        waiting = asyncio.ensure_future(there.join(request("a", started=perf_counter())))
        end = perf_counter() + LEASE + 1
        while perf_counter() < end:
            worker.once.sweep(perf_counter())
            await asyncio.sleep(0.5)
        assert not waiting.done(), "it is under way here, and would be paid for twice"
        answered(x)
        assert (await asyncio.wait_for(waiting, 5)).endswith(b'{"ok":1}')
