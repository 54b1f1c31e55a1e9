"""Two gateways with one Redis: what a provider allows, it allows both of them together."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.steady import KEY, Connection
from e2e.whole import Gateway
from redis_server import redis_server, say
from replay.faulty import FaultyUpstream, refused_port

pytestmark = pytest.mark.slow
ALLOWED = 20


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    made = FaultyUpstream()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def redis_port() -> int:
    return refused_port()


@pytest.fixture
async def pair(upstream: FaultyUpstream, redis_port: int, tmp_path: Path) -> AsyncIterator[list[Gateway]]:
    with redis_server(tmp_path, redis_port) as (url, _):
        up = {"type": "openai_compatible", "base_url": upstream.url, "api_key": "sk", "max_retries": 0, "health": {"enabled": False},
              "rate_limit": {"requests_per_minute": ALLOWED}}  # fmt: skip
        more = {"providers": {"up": up}, "redis": {"url": url, "timeout_ms": 1000}, "replicas": 2, "keys": [{"name": "e2e", "key": KEY}]}
        made = [Gateway(tmp_path / name, upstream, 2, more) for name in ("one", "two")]
        await asyncio.gather(*(each.start() for each in made))
        yield made
        await asyncio.gather(*(each.stop(signal.SIGINT) for each in made))


async def test_so_many_go_through_in_all_and_not_one_more(pair: list[Gateway], upstream: FaultyUpstream, redis_port: int) -> None:
    async with asyncio.timeout(10):  # until all workers have their Redis
        while len(bytes(say(redis_port, "CLIENT", "LIST")).splitlines()) < 7:  # and who asks
            await asyncio.sleep(0.05)
    connections = [await Connection.to(each.port) for each in pair for _ in range(4)]

    async def ask(connection: Connection) -> list[str]:
        return [await connection.ask(stream=False, model="up/m") for _ in range(6)]

    said = [each for some in await asyncio.gather(*map(ask, connections)) for each in some]
    assert len(upstream.received) in (ALLOWED, ALLOWED + 1), "within the second that this took one more may have trickled in"
    assert said.count("") == len(upstream.received)
    assert len({connection.worker for connection in connections}) > 2, "several workers had a part in it"
    assert all("429" in each for each in said if each)
