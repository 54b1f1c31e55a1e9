"""Requests with an Idempotency-Key where Redis comes and goes, as each of several workers lives it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from time import perf_counter

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.egress.tape import MOST
from llm_gateway.routing.once import Once
from llm_gateway.stores.memory import Place
from llm_gateway.stores.redis.claims import Claims
from redis_server import redis_server, say
from replay.faulty import refused_port
from routing.test_once import answered, request
from stores.redis.conftest import store, until


@pytest.mark.parametrize("long", [False, True], ids=["an answer", "one that is not kept"])
async def test_what_was_answered_while_redis_was_away_all_others_get_when_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """Its key would be anybody's again else, and paid for twice."""
    port = refused_port()
    with redis_server(tmp_path, port) as (url, process):
        async with store(url) as one, store(url) as two:
            here, there = Once(), Once()
            here.claims, there.claims = Claims(one.shared), Claims(two.shared)
            x = request("a", started=perf_counter())
            assert await here.join(x) == b""
            process.send_signal(signal.SIGSTOP)
            assert here.claims is not None
            await here.claims.look(here.claims.claim(Place("t", b"other"), b""))  # nobody answers: from now on it is taken for away
            assert not one.shared.ready
            answered(x, b"x" * (MOST + 1) if long else b'{"ok":1}')
            here.sweep(perf_counter())
            process.send_signal(signal.SIGCONT)
            await one.ready()
            await two.ready()
            here.sweep(perf_counter())
            if long:
                with pytest.raises(Fault, match="too long to be kept"):
                    await asyncio.wait_for(there.join(request("a", started=perf_counter())), 5)
            else:
                assert (await asyncio.wait_for(there.join(request("a", started=perf_counter())), 5)).endswith(b'{"ok":1}')
            assert not here._untold


async def test_a_redis_that_hung_up_just_now_is_waited_for(tmp_path: Path) -> None:
    """Two who ask in the moment without a connection would both send it."""
    port = refused_port()
    with redis_server(tmp_path, port) as (url, process):
        async with store(url) as one, store(url) as two:
            here, there = Once(), Once()
            here.claims, there.claims = Claims(one.shared), Claims(two.shared)
            say(port, "CLIENT", "KILL", "TYPE", "normal")
            async with asyncio.timeout(5):
                while one.shared.ready or two.shared.ready:
                    await asyncio.sleep(0)
            x = request("a", started=perf_counter())
            assert await here.join(x) == b""
            other = asyncio.ensure_future(there.join(request("a", started=perf_counter())))
            await asyncio.sleep(0.2)
            assert not other.done()
            answered(x)
            assert (await asyncio.wait_for(other, 5)).endswith(b'{"ok":1}')
            process.kill()
            await until(lambda: not one.shared.ready)
            await asyncio.sleep(1.1)
            begun = perf_counter()
            assert await here.join(request("b", started=begun)) == b""
            assert perf_counter() - begun < 0.5, "nobody waits for one that stays away"


async def test_what_fails_at_one_is_sent_by_who_waits_at_the_other_and_waiting_has_an_end(tmp_path: Path) -> None:
    with redis_server(tmp_path) as (url, _):
        async with store(url) as one, store(url) as two:
            here, there = Once(), Once()
            here.claims, there.claims = Claims(one.shared), Claims(two.shared)
            x = request("a", started=perf_counter())
            assert await here.join(x) == b""
            there.whole_request = 0.3
            with pytest.raises(Fault) as caught:
                await asyncio.wait_for(there.join(request("a", started=perf_counter())), 5)
            assert caught.value.kind is Kind.TIMEOUT
            there.whole_request = 590.0
            left, other = (asyncio.ensure_future(there.join(request("a", started=perf_counter()))) for _ in range(2))
            await asyncio.sleep(0.2)
            left.cancel()
            await asyncio.sleep(0.2)
            assert not other.done()
            answered(x, b"{}", 502)
            assert await asyncio.wait_for(other, 5) == b""
            assert (here.running, there.running) == (0, 1)


@pytest.mark.parametrize("form", ["redis", "redis+cluster"])
async def test_a_redis_that_is_not_connected_yet_is_waited_for(cluster, form: str) -> None:
    """A worker that has just begun, and one that sends already."""
    url = f"{form}://127.0.0.1:{cluster[0][1]}"
    async with store(url, patient=True) as one:
        here, there = Once(), Once()
        here.claims = Claims(one.shared)
        x = request(form, started=perf_counter())
        assert await here.join(x) == b""
        async with store(url, patient=True, wait=False) as two:
            there.claims = Claims(two.shared)
            other = asyncio.ensure_future(there.join(request(form, started=perf_counter())))
            await asyncio.sleep(0.5)
            assert not other.done()
            answered(x)
            assert (await asyncio.wait_for(other, 5)).endswith(b'{"ok":1}')


async def test_large_answers_are_told_a_few_at_a_time(tmp_path: Path) -> None:
    """All at once they would not be taken in in time, and be sent again with each sweep, in the way of everything else."""
    with redis_server(tmp_path) as (url, process):
        async with store(url) as one:
            here = Once()
            here.claims = Claims(one.shared)
            under_way = [request(f"large {number}", started=perf_counter()) for number in range(4)]
            for x in under_way:
                assert await here.join(x) == b""
            process.send_signal(signal.SIGSTOP)
            await here.claims.look(here.claims.claim(Place("t", b"other"), b""))
            for x in under_way:
                answered(x, b"x" * 600_000)
            process.send_signal(signal.SIGCONT)
            await one.ready()
            for left in (2, 0):
                here.sweep(perf_counter())
                await until(lambda: not one.shared.client.waiting)
                assert len(here._untold) == left
