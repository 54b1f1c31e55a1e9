"""Two gateways with one Redis: what one has kept, the other answers by; what is purged at one, is gone at both."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.steady import KEY
from e2e.whole import OPENER, TOKEN, Gateway, counting
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
        await asyncio.gather(*(each.stop(signal.SIGINT) for each in made))


async def said(gateway: Gateway, *, stream: bool = False) -> tuple[str, bytes]:
    """What the cache did, and the reply. A connection of its own: any worker may have it."""

    def ask() -> tuple[str, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
        body = json.dumps({"model": "up/m", "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
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
