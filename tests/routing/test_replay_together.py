"""Who asks while others wait, of several workers that keep replies in one Redis: as in one worker, whatever becomes of the leader or of Redis."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange
from llm_gateway.routing.replay import Replay
from llm_gateway.routing.table import Table
from llm_gateway.stores.redis import leases
from llm_gateway.stores.redis.replies import Replies
from redis_server import redis_server, say, valkey_cluster
from routing.test_replay import SHAPES, TERMS, TWO, asked, settle
from stores.redis.conftest import port_of, store, until


class Crew:
    """Workers, each with a Redis connection and a cache of its own, and an upstream that takes `seconds` and counts. `ends`: of calls, in turn."""

    def __init__(self, stores: list[Any], table: Table) -> None:
        self.stores = stores
        self.workers = [Replay(Replies(each.shared), SHAPES) for each in stores]
        self.table = table
        self.seconds = 0.3
        self.ends: list[dict[str, Any]] = []
        self.calls: list[Replay] = []
        self.open: list[Exchange] = []
        for worker in self.workers:
            worker.adopt(0, TERMS, {}, 20.0)

    async def ask(self, at: int = 0, headers: dict[bytes, bytes] | None = None) -> str:
        """One request, as the line has it: "miss", "hit" or "bypass"."""
        x, worker = asked(headers=headers), self.workers[at % len(self.workers)]
        x.started = perf_counter()
        if await worker.seek(x, self.table) is not None:
            return "hit"
        self.calls.append(worker)
        end = self.ends.pop(0) if self.ends else {}
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            settle(x, status=499)
            raise
        settle(x, **end)
        return x.extra.split()[-1].decode()

    def start(self, count: int, at: tuple[int, ...] = (0, 1, 2), headers: dict[bytes, bytes] | None = None) -> list[asyncio.Task[str]]:
        """So many, at those workers in turn."""
        return [asyncio.ensure_future(self.ask(at[number % len(at)], headers)) for number in range(count)]

    async def leading(self) -> None:
        await until(lambda: self.calls)
        await asyncio.sleep(0.05)

    def quiet(self) -> bool:
        return not any(worker._flights for worker in self.workers)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def fresh(shared: str) -> str:
    """The module's server, emptied."""
    say(port_of(shared), "FLUSHALL")
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """A server that a test may break, and its process."""
    with redis_server(tmp_path) as made:
        yield made


@pytest.fixture
def crew(table: Callable[..., Table]) -> Callable[..., Any]:
    @asynccontextmanager
    async def made(url: str, count: int = 3, *, patient: bool = True) -> AsyncIterator[Crew]:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(store(url, patient=patient)) for _ in range(count)]
            yield Crew(stores, table(TWO))

    return made


def told(answers: list[str]) -> dict[str, int]:
    return dict(Counter(answers))


async def test_a_hundred_that_miss_at_once_at_three_workers_are_one_call(crew, fresh):
    async with crew(fresh) as workers:
        assert told(await asyncio.gather(*workers.start(100))) == {"miss": 1, "hit": 99}
        assert len(workers.calls) == 1
        assert sum(each.hits for each in workers.workers) == 99
        assert workers.quiet()
        await until(lambda: say(port_of(fresh), "KEYS", "llmgw:l:*") == [], 2)


async def test_whoever_comes_while_it_is_asked_for_waits_too(crew, fresh):
    async with crew(fresh) as workers:
        workers.seconds = 0.6
        tasks = []
        for at in range(12):
            tasks += workers.start(1, (at,))
            await asyncio.sleep(0.04)
        assert told(await asyncio.gather(*tasks)) == {"miss": 1, "hit": 11}


async def test_a_call_that_takes_longer_than_a_lease_stays_one(crew, fresh, monkeypatch):
    monkeypatch.setattr(leases, "TERM", 0.5)
    monkeypatch.setattr(leases, "RENEWED", 0.1)
    async with crew(fresh) as workers:
        workers.seconds = 1.5
        assert told(await asyncio.gather(*workers.start(30))) == {"miss": 1, "hit": 29}


async def test_a_leader_that_fails_is_followed_by_one_at_a_time(crew, fresh):
    async with crew(fresh) as workers:
        workers.ends = [{"status": 502}, {"status": 502}]
        assert told(await asyncio.gather(*workers.start(30))) == {"miss": 3, "hit": 27}
        assert workers.quiet()


async def test_a_leader_that_fails_alone_is_followed_by_another_worker(crew, fresh):
    async with crew(fresh) as workers:
        workers.ends = [{"status": 502}]
        first = workers.start(1)
        await workers.leading()
        others = workers.start(20, (1, 2))
        assert told(await asyncio.gather(*first, *others)) == {"miss": 2, "hit": 19}
        assert workers.calls[0] is workers.workers[0] is not workers.calls[1]
        assert workers.quiet()


@pytest.mark.parametrize("end", [{"finish": "length"}, {"finish": "content_filter"}, {"size": 2 << 20}])
async def test_a_reply_that_is_not_to_be_kept_lets_all_go(crew, fresh, end):
    async with crew(fresh, 6) as workers:
        workers.ends, workers.seconds = [end] * 30, 0.4
        began = perf_counter()
        assert told(await asyncio.gather(*workers.start(30, (0, 1, 2, 3, 4, 5)))) == {"miss": 30}
        assert perf_counter() - began < 4 * workers.seconds, "not one worker after the other"
        assert workers.quiet()


async def test_who_comes_after_a_reply_that_was_not_to_be_kept_asks_as_ever(crew, fresh):
    """One in each worker for a moment, whose reply is kept."""
    async with crew(fresh) as workers:
        workers.ends = [{"finish": "length"}]
        assert await asyncio.gather(*workers.start(1)) == ["miss"]
        await asyncio.sleep(0.05)
        answers = told(await asyncio.gather(*workers.start(30)))
        assert answers["miss"] <= 3
        assert answers["hit"] >= 27
        assert told(await asyncio.gather(*workers.start(9))) == {"hit": 9}


@pytest.mark.parametrize("named", [{"tenant": "a"}, {"model": "one"}, {}])
@pytest.mark.parametrize("by", [0, 1])
async def test_what_is_purged_while_it_is_asked_for_is_found_by_nobody(crew, fresh, named, by):
    """By the leader's worker, that then keeps nothing; by another, and then it is asked for anew."""
    async with crew(fresh) as workers:
        first = workers.start(1)
        await workers.leading()
        others = workers.start(10, (1, 2))
        await asyncio.sleep(0.1)
        workers.workers[by].store.purge(**named)
        answers = told(await asyncio.gather(*first, *others))
        assert answers == ({"miss": 11} if by == 0 else {"miss": 2, "hit": 9})
        assert workers.quiet()


@pytest.mark.parametrize("after", [0.0, 0.002, 0.1])
async def test_a_leader_that_leaves_takes_nobody_with_it(crew, fresh, after):
    """While it asks whose turn it is, and while it is asked."""
    async with crew(fresh) as workers:
        (first,) = workers.start(1)
        await asyncio.sleep(after)
        others = workers.start(20)
        await asyncio.sleep(0)
        first.cancel()
        assert told(await asyncio.gather(*others)) == {"miss": 1, "hit": 19}
        assert first.cancelled()
        assert workers.quiet()


async def test_whoever_waits_for_another_worker_may_leave(crew, fresh):
    """The first of each worker looks for the others there, too."""
    async with crew(fresh) as workers:
        first = workers.start(1)
        await workers.leading()
        others = workers.start(12, (1, 2))
        await asyncio.sleep(0.05)
        for leaver in others[:4]:
            leaver.cancel()
            await asyncio.sleep(0.01)
        assert told(await asyncio.gather(*first, *others[4:])) == {"miss": 1, "hit": 8}
        assert workers.quiet()


async def test_each_waits_until_its_own_deadline(crew, fresh):
    async with crew(fresh) as workers:
        workers.seconds = 1.5
        first = workers.start(1)
        await workers.leading()
        began = perf_counter()
        hasty = workers.start(2, (1,), {b"x-gateway-timeout": b"0.2"})
        others = workers.start(2, (1,))
        for each in hasty:
            with pytest.raises(Fault, match="took longer"):
                await each
        assert 0.15 < perf_counter() - began < 1.3
        assert told(await asyncio.gather(*first, *others)) == {"miss": 1, "hit": 2}


async def test_who_wants_it_new_gets_the_new_one_and_others_the_old_one_meanwhile(crew, fresh):
    async with crew(fresh) as workers:
        assert await asyncio.gather(*workers.start(1)) == ["miss"]
        await asyncio.sleep(0.05)
        anew = workers.start(12, headers={b"cache-control": b"max-age=0"})
        await asyncio.sleep(0.1)
        began = perf_counter()
        assert told(await asyncio.gather(*workers.start(12))) == {"hit": 12}
        assert perf_counter() - began < workers.seconds
        assert told(await asyncio.gather(*anew)) == {"miss": 1, "hit": 11}
        assert len(workers.calls) == 2


async def test_the_leader_s_worker_is_gone(crew, fresh, monkeypatch):
    """Nothing of it is heard any more: no reply, no renewal, no word that it is over."""
    monkeypatch.setattr(leases, "TERM", 0.5)
    async with crew(fresh) as workers:
        workers.seconds = 0.4
        (first,) = workers.start(1)
        await workers.leading()
        others = workers.start(20, (1, 2))
        await asyncio.sleep(0.05)
        workers.stores[0].shared.client.close()
        assert told(await asyncio.gather(*others)) == {"miss": 1, "hit": 19}
        assert await first == "miss"


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_redis_is_gone_in_the_middle(crew, own, how):
    """Whoever waits goes on as if there were no other worker: one call in each."""
    url, process = own
    async with crew(url, patient=False) as workers:
        workers.seconds = 0.6
        first = workers.start(1)
        await workers.leading()
        others = workers.start(20, (1, 2))
        await asyncio.sleep(0.1)
        os.kill(process.pid, how)
        began = perf_counter()
        answers = told(await asyncio.gather(*first, *others))
        assert perf_counter() - began < 2.5
        assert answers == {"miss": 3, "hit": 18}
        assert workers.quiet()
        if how == signal.SIGSTOP:
            os.kill(process.pid, signal.SIGCONT)
            for each in workers.stores:
                await each.ready()
            assert "hit" in told(await asyncio.gather(*workers.start(6)))


async def test_a_full_redis_has_nobody_wait_in_turn(crew, own):
    url, _ = own
    async with crew(url) as workers:
        assert await asyncio.gather(*workers.start(1)) == ["miss"]
        await asyncio.sleep(0.05)
        say(port_of(url), "CONFIG", "SET", "maxmemory", "1")
        assert told(await asyncio.gather(*workers.start(6))) == {"hit": 6}
        assert told(await asyncio.gather(*workers.start(9, headers={b"cache-control": b"max-age=0"}))) == {"miss": 3, "hit": 6}
        assert workers.quiet()


@pytest.mark.slow
async def test_in_a_cluster(crew, tmp_path):
    with valkey_cluster(tmp_path) as (ports, _):
        async with crew(f"redis+cluster://127.0.0.1:{ports[0]}") as workers:
            assert told(await asyncio.gather(*workers.start(30))) == {"miss": 1, "hit": 29}
            workers.workers[1].store.purge()
            await until(lambda: not workers.stores[1].shared.client.waiting)
            workers.ends = [{"status": 502}]
            assert told(await asyncio.gather(*workers.start(30))) == {"miss": 2, "hit": 28}
