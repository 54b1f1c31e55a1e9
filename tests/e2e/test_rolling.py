"""Changing everything under load: configurations, workers, whole gateways; and nobody's request but a killed worker's own is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from e2e.steady import Steady
from e2e.whole import Gateway
from replay.faulty import FaultyUpstream

pytestmark = pytest.mark.slow


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Callable[..., Gateway]]:
    upstream = FaultyUpstream()
    await upstream.start()
    made: list[Gateway] = []

    def make(workers: int = 1) -> Gateway:
        made.append(Gateway(tmp_path / f"gateway{len(made)}", upstream, workers))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            await each.stop(signal.SIGINT)
    await upstream.stop()


async def test_a_configuration_that_changes_five_times_costs_nobody_anything(gateway):
    running = gateway(workers=2)
    await running.start()
    changes: list[tuple[dict[str, object], int]] = [
        ({"heartbeat": {"interval": 20}}, 200),
        ({"heartbeat": {"interval": "nonsense"}}, 422),
        ({"models": {"other": "lab/m"}}, 200),
        ({"serverr": {}, "keys": []}, 422),
        ({"prices": {"lab/m": {"input": 1, "output": 2}}}, 200),
    ]
    times = []
    async with Steady(lambda: running.port) as load:
        await load.more()
        for changed, expected in changes:
            times.append(await load.streaming())
            running.write(**changed)
            status, text = await running.ask("/admin/v1/reload", "POST")
            assert status == expected, text
            await load.more()
    assert load.failed == []
    assert all(load.good(streamed=True, across=at) for at in times), "streams were under way each time"
    assert {each.worker for each in load.outcomes} == set(running.workers().values()), "both workers served, and nobody was replaced"
    assert {"config_reloaded", "config_refused"} <= {each["type"] for each in await running.events()}
    async with asyncio.timeout(10):
        while json.loads((await running.ask("/admin/v1/config"))[1])["workers"] != [4, 4]:
            await asyncio.sleep(0.05)


async def test_a_killed_worker_takes_its_own_requests_along_and_no_others(gateway):
    running = gateway(workers=2)
    await running.start()
    async with Steady(lambda: running.port, clients=24) as load:
        await load.more(100)
        before = running.workers()
        killed = await load.streaming()
        os.kill(before[0], signal.SIGKILL)
        await load.more(200)
    assert load.failed, "it had some"
    for each in load.failed:
        assert each.worker in (before[0], 0), each
        assert each.connected < killed < each.ended, each  # of a connection that it had; new ones wait for its successor
    assert len(load.failed) <= load.clients
    after = running.workers()
    assert after[1] == before[1]
    assert {each.worker for each in load.outcomes if each.started > killed + 0.5 and not each.fault} <= set(after.values())
    assert load.good(streamed=True, across=killed), "streams of the other one went on"
    async with asyncio.timeout(10):
        while "worker_restarted" not in (await running.ask("/admin/v1/events"))[1]:
            await asyncio.sleep(0.05)


async def test_gateways_replaced_one_by_one_behind_a_balancer_cost_nobody_anything(gateway):
    """As a rolling update has it: two of them, new connections go to whoever says that it is ready."""
    first, second = gateway(), gateway()
    ready: list[Gateway] = []

    async def watch() -> None:
        while True:
            ready[:] = [each for each in (first, second) if await each.ready() == 200]
            await asyncio.sleep(0.1)

    turn = 0

    def choose() -> int:
        nonlocal turn
        turn += 1
        return ready[turn % len(ready)].port

    await asyncio.gather(first.start(), second.start())
    watching = asyncio.create_task(watch())
    try:
        async with asyncio.timeout(10):
            while len(ready) < 2:
                await asyncio.sleep(0.02)
        told = []
        async with Steady(choose) as load:
            for leaving in (first, second):
                await load.more()
                told.append((leaving.port, time.monotonic()))
                assert await leaving.stop(signal.SIGTERM) == 0
                await leaving.start()
                async with asyncio.timeout(10):
                    while len(ready) < 2:
                        await asyncio.sleep(0.02)
            await load.more()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    assert load.failed == []
    for port, at in told:
        assert [each for each in load.good(streamed=True, across=at) if each.port == port], "streams on the one that left went on"
    assert {each.port for each in load.outcomes} == {first.port, second.port}
