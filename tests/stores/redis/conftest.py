"""What tests of the Redis stores share: a running server, stores on it, and a fallback that is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from llm_gateway.core.gauges import Ask
from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.gauges import Memory
from llm_gateway.stores.redis.client import Turn
from llm_gateway.stores.redis.gauges import Policy, Shared
from llm_gateway.stores.redis.terms import Terms, parse
from redis_server import redis_server, valkey_cluster

DOLLAR = 1_000_000_000
WALL = 1_795_741_200.0


class Known:
    """The spend table: amounts by a claim's name, 0 for others; `unknown`: nothing is known yet."""

    def __init__(self, **amounts: int) -> None:
        self.amounts = amounts
        self.unknown = False
        self.asked = 0

    def spent(self, claim: Claim, wall: float) -> int | None:
        self.asked += 1
        return None if self.unknown else self.amounts.get(claim.period, 0)


class Store:
    """A `Shared` and what it told."""

    def __init__(self, terms: Terms, seeds: Any = None, **policy: Any) -> None:
        self.turns: list[Turn] = []
        self.alerts: list[tuple[str, str, float, int]] = []
        self.seeds = seeds if seeds is not None else Known()
        self.fallback = Memory()
        self.shared = Shared(
            terms, self.fallback, self.seeds, self.turns.append,
            policy=Policy(**policy), alert=lambda tenant, claim, share, spent: self.alerts.append((tenant, claim.name, share, spent)),
        )  # fmt: skip

    def bind(self, *claims: Claim, tenant: str = "acme") -> Any:
        return self.shared.bind(tenant, claims)

    async def ready(self, seconds: float = 5.0) -> None:
        await until(lambda: self.shared.ready, seconds)


@asynccontextmanager
async def store(url: str | Terms, seeds: Any = None, *, wait: bool = True, patient: bool = False, **policy: Any) -> AsyncIterator[Store]:
    """patient: a busy machine is no reason to do without Redis; where a test is not about time."""
    terms = parse(url) if isinstance(url, str) else url
    made = Store(replace(terms, timeout=2.0) if patient else terms, seeds, **policy)
    try:
        if wait:
            await made.ready()
        yield made
    finally:
        await made.shared.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def ask(request: str, tokens: int = 0, cost: int = 0, least: int | None = None, seconds: float = 600.0, now: float = 0.0) -> Ask:
    import time

    return Ask(request, tokens, cost, cost if least is None else least, seconds, now or time.perf_counter(), time.time_ns() / 1e9)


def budget(amount: int = DOLLAR, period: str = "month", **more: Any) -> Claim:
    return Claim("tenant:acme", "budget", amount, period, **more)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def fresh(url: str) -> str:
    """The module's server, emptied."""
    import redis

    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[int], Any]]:
    """Ports and processes, for tests that leave it whole."""
    with valkey_cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """A server that a test may break, and its process."""
    with redis_server(tmp_path) as made:
        yield made


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])
