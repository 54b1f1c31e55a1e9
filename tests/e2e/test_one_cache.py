"""Two gateways with one Redis: what one has kept, the other answers by; what is purged at one, is gone at both."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.steady import KEY
from e2e.whole import OPENER, TOKEN, Gateway, counting
from faults.house import descendants
from redis_server import redis_server
from replay.faulty import FaultyUpstream, refused_port

pytestmark = pytest.mark.slow


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    made = FaultyUpstream()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def pair(upstream: FaultyUpstream, tmp_path: Path) -> AsyncIterator[list[Gateway]]:
    port = refused_port()
    with redis_server(tmp_path, port) as (url, _):
        up = {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk", "max_retries": 0, "health": {"enabled": False}}
        more = {"providers": {"up": up}, "redis": {"url": url, "timeout_ms": 10_000}, "cache": {"enabled": True, "backend": "redis"}}
        made = [Gateway(tmp_path / name, upstream, 2, more) for name in ("one", "two")]
        await asyncio.gather(*(each.start() for each in made))
        await counting(port, 4)
        yield made
        await asyncio.gather(*(each.stop(signal.SIGINT) for each in made if each.process is not None and each.process.poll() is None))


async def said(gateway: Gateway, *, stream: bool = False, model: str = "m") -> tuple[str, bytes]:
    """What the cache did, and the reply. A connection of its own: any worker may have it."""

    def ask() -> tuple[str, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        body = json.dumps({"model": f"up/{model}", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
        client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}", "x-gateway-tags": "batch"})
        reply = client.getresponse()
        return str(reply.headers["x-gateway-cache"]), reply.read()

    return await asyncio.to_thread(ask)


async def purge(gateway: Gateway, **named: str) -> None:
    url = f"http://127.0.0.1:{gateway.metrics_port}/admin/v1/cache/purge"
    request = urllib.request.Request(url, json.dumps(named).encode(), {"authorization": f"Bearer {TOKEN}"})
    assert json.loads(await asyncio.to_thread(lambda: OPENER.open(request, timeout=5).read()))["workers"] == 2


async def test_one_asks_and_all_know(pair: list[Gateway], upstream: FaultyUpstream) -> None:
    one, two = pair
    for stream in (False, True):
        upstream.forget()
        first = await said(one, stream=stream)
        assert first[0] == "miss"
        await asyncio.sleep(0.1)
        again = [await said(gateway, stream=stream) for gateway in (one, two) * 4]
        assert {answer for answer, _ in again} == {"hit"}
        assert len({body for _, body in again}) == 1
        assert len(upstream.received) == 1
    await purge(two, tag="other")
    await asyncio.sleep(0.2)
    assert (await said(one))[0] == "hit"
    await purge(two, model="up/m", tag="batch")
    await asyncio.sleep(0.2)
    assert [(await said(one))[0], (await said(two, stream=True))[0]] == ["miss"] * 2


async def test_a_hundred_that_miss_at_once_at_both_are_one_call(pair: list[Gateway], upstream: FaultyUpstream) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(100))
    for stream in (False, True):
        upstream.forget()
        answers = await asyncio.gather(*(said(pair[at % 2], stream=stream, model="fault-slow_ok:1") for at in range(100)))
        assert sorted(answer for answer, _ in answers) == ["hit"] * 99 + ["miss"]
        assert len({body for _, body in answers}) == 1
        assert len(upstream.received) == 1


async def test_the_gateway_that_asks_is_killed_and_the_other_asks_once(pair: list[Gateway], upstream: FaultyUpstream) -> None:
    """With SIGKILL, with all its processes; nobody is left to say that its request is over."""
    one, two = pair
    first = asyncio.ensure_future(said(one, model="fault-slow_ok:2"))
    async with asyncio.timeout(10):
        while not upstream.received:
            await asyncio.sleep(0.01)
    others = [asyncio.ensure_future(said(two, model="fault-slow_ok:2")) for _ in range(20)]
    await asyncio.sleep(0.3)
    assert one.process is not None
    for pid in (one.process.pid, *descendants(one.process.pid)):
        os.kill(pid, signal.SIGKILL)
    one.process.wait()
    with pytest.raises(OSError, match=r"reset|closed"):
        await first
    answers = await asyncio.gather(*others)
    assert sorted(answer for answer, _ in answers) == ["hit"] * 19 + ["miss"]
    assert len({body for _, body in answers}) == 1
    assert len(upstream.received) == 2
