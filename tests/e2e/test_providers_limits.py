"""Two gateways with one Redis: what a provider allows, it allows both of them together."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.steady import KEY, Connection
from e2e.whole import PATIENCE, Gateway, counting
from redis_server import redis_server
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
        more = {"providers": {"up": up}, "redis": {"url": url, "timeout_ms": 10_000}, "replicas": 2, "keys": [{"name": "e2e", "key": KEY}]}
        made = [Gateway(tmp_path / name, upstream, 2, more) for name in ("one", "two")]
        await asyncio.gather(*(each.start() for each in made))
        yield made
        await asyncio.gather(*(each.stop(signal.SIGINT) for each in made))


async def of_both_workers(gateway: Gateway) -> list[Connection]:
    """Two connections of each: who serves one is the kernel's choice, and told with any reply."""
    met: dict[int, list[Connection]] = {}
    async with asyncio.timeout(PATIENCE):
        while len(met) < 2 or min(map(len, met.values())) < 2:
            found = await Connection.to(gateway.port)
            assert "404" in await found.ask(stream=False, model="nobody")
            met.setdefault(found.worker, []).append(found)
    return [each for some in met.values() for each in some[:2]]


async def test_so_many_go_through_in_all_and_not_one_more(pair: list[Gateway], upstream: FaultyUpstream, redis_port: int) -> None:
    await counting(redis_port, 4)
    connections = [each for gateway in pair for each in await of_both_workers(gateway)]
    begun = time.monotonic()

    async def ask(connection: Connection) -> list[str]:
        return [await connection.ask(stream=False, model="up/m") for _ in range(6)]

    said = [each for some in await asyncio.gather(*map(ask, connections)) for each in some]
    trickled = int((time.monotonic() - begun) * ALLOWED / 60) + 1
    assert trickled < 12, "or nothing that was asked could have been too much"
    assert ALLOWED <= len(upstream.received) <= ALLOWED + trickled, "and what came back while this took its time"
    assert said.count("") == len(upstream.received)
    assert len({connection.worker for connection in connections}) == 4, "all workers had a part in it"
    assert all("429" in each for each in said if each)
