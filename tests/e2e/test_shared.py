"""What one worker finds out about a provider, the others know: two real workers, told apart by who serves which connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from e2e.steady import Connection
from e2e.whole import Gateway
from replay.faulty import FaultyUpstream

pytestmark = pytest.mark.slow


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    made = FaultyUpstream()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def running(upstream: FaultyUpstream, tmp_path: Path) -> AsyncIterator[Gateway]:
    def provider(fault: str) -> dict[str, object]:
        quiet = {"enabled": False}  # no probes: what is asked of the upstream is all clients'
        return {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/{fault}", "api_key": "sk-a", "max_retries": 0, "health": quiet}

    places = {"broken": provider("status:500"), "lost": provider("status:401"), "fine": provider("ok")}
    models = {name: {"targets": [f"{name}/m"], "fallbacks": ["fine/m"]} for name in ("broken", "lost")}
    models["lost2"] = {"targets": ["lost/n"], "fallbacks": ["fine/m"]}
    made = Gateway(tmp_path / "gateway", upstream, 2, {"providers": places, "models": models})
    await made.start()
    yield made
    await made.stop(signal.SIGINT)


def tried(upstream: FaultyUpstream, fault: str) -> int:
    return sum(f"/fault/{fault}/" in each.path for each in upstream.received)


async def until(check: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await check():
            await asyncio.sleep(0.05)


async def connected(running: Gateway, worker: int) -> Connection:
    """A connection that this worker process serves."""
    async with asyncio.timeout(10):
        while True:
            found = await Connection.to(running.port)
            assert await found.ask(stream=False, model="fine/m") == ""
            if found.worker == worker:
                return found
            found.writer.close()


async def told(running: Gateway, kind: str) -> list[dict[str, object]]:
    return [each["data"] for each in await running.events() if each["type"] == kind]


async def test_a_breaker_that_opens_in_one_worker_is_open_in_all_also_in_those_that_come_later(running, upstream):
    pids = running.workers()
    one, other = await connected(running, pids[0]), await connected(running, pids[1])
    for _ in range(5):
        assert (await one.ask(stream=False, model="broken"), one.provider) == ("", "fine")
    assert tried(upstream, "status:500") == 5
    await until(lambda: told(running, "breaker_opened"))
    await asyncio.sleep(0.2)  # from the operator to the other one
    for _ in range(3):
        assert (await other.ask(stream=False, model="broken"), other.provider) == ("", "fine")
    assert tried(upstream, "status:500") == 5, "the other one asked nobody who is known to be broken"
    os.kill(pids[1], signal.SIGKILL)
    await until(lambda: told(running, "worker_restarted"))
    late = await connected(running, running.workers()[1])
    assert (await late.ask(stream=False, model="broken"), late.provider) == ("", "fine")
    assert tried(upstream, "status:500") == 5, "nor did its successor"
    (event,) = await told(running, "breaker_opened")
    assert (event["provider"], event["model"]) == ("broken", "m")


async def test_a_key_that_is_refused_in_one_worker_is_left_alone_by_all_whatever_the_model(running, upstream):
    pids = running.workers()
    one, other = await connected(running, pids[0]), await connected(running, pids[1])
    assert (await one.ask(stream=False, model="lost"), one.provider) == ("", "fine")
    await until(lambda: told(running, "key_disabled"))
    await asyncio.sleep(0.2)
    for connection in (one, other):
        for model in ("lost", "lost2"):
            assert (await connection.ask(stream=False, model=model), connection.provider) == ("", "fine")
    assert tried(upstream, "status:401") == 1
    (event,) = await told(running, "key_disabled")
    assert (event["provider"], event["key"]) == ("lost", "0")
    assert "model" not in event
