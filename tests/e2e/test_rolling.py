"""Changing everything under load: configurations, workers, whole gateways; and nobody's request but a killed worker's own is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from e2e.conftest import free_port
from e2e.steady import KEY, Steady
from replay.faulty import FaultyUpstream

pytestmark = pytest.mark.slow
COMMAND = os.environ.get("LLM_GATEWAY", str(Path(sys.executable).parent / "llm-gateway"))
TOKEN = "admin-token-of-the-tests"
ENVIRON = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^LLM_GATEWAY|_(PORT|HOST|URL)$", name)}
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Gateway:
    """One gateway; its configuration is what `write` wrote last."""

    def __init__(self, folder: Path, upstream: FaultyUpstream, workers: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.port, self.metrics_port = free_port(), free_port()
        self._config = {
            "server": {"host": "127.0.0.1", "port": self.port, "metrics_port": self.metrics_port},
            "workers": workers,
            "data_dir": str(folder / "data"),
            # Five events of a stream, 50 ms apart.
            "providers": {"lab": {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/ok:0.05"}},
            "keys": [{"name": "e2e", "key": KEY}],
            "admin": {"token": TOKEN},
            "drain": {"lame_duck": 1.5, "timeout": 20},
            "logging": {"access": False},
        }
        self.write()
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, **changed: object) -> None:
        draft = self.folder / "draft.json"
        draft.write_text(json.dumps(self._config | changed))
        draft.rename(self.folder / "config.json")

    async def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            command = [COMMAND, "serve", "--config", str(self.folder / "config.json")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRON)
        async with asyncio.timeout(30):
            while await self.ready() != 200 or (await self.ask("/health/ready"))[0] != 200:
                await asyncio.sleep(0.05)

    async def ready(self) -> int:
        """0: nobody answers."""
        return (await asyncio.to_thread(_ask, f"http://127.0.0.1:{self.port}/health/ready", "GET"))[0]

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """The operator plane."""
        return await asyncio.to_thread(_ask, f"http://127.0.0.1:{self.metrics_port}{path}", method)

    async def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 30)

    def workers(self) -> dict[int, int]:
        """Index -> pid, of those started last."""
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]
        return {
            int(line["child"].split()[1]): line["child_pid"]
            for line in lines
            if line["event"] == "started" and line["child"].startswith("worker")
        }


def _ask(url: str, method: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers={"authorization": f"Bearer {TOKEN}"})
    try:
        with OPENER.open(request, timeout=3) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


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
            running.write(**changed)
            times.append(time.monotonic())
            status, text = await running.ask("/admin/v1/reload", "POST")
            assert status == expected, text
            await load.more()
    assert load.failed == []
    assert all(load.good(streamed=True, across=at) for at in times), "streams were under way each time"
    assert {each.worker for each in load.outcomes} == set(running.workers().values()), "both workers served, and nobody was replaced"
    events = json.loads((await running.ask("/admin/v1/events"))[1])["events"]
    assert {"config_reloaded", "config_refused"} <= {each["type"] for each in events}
    async with asyncio.timeout(10):
        while json.loads((await running.ask("/admin/v1/config"))[1])["workers"] != [4, 4]:
            await asyncio.sleep(0.05)


async def test_a_killed_worker_takes_its_own_requests_along_and_no_others(gateway):
    running = gateway(workers=2)
    await running.start()
    async with Steady(lambda: running.port, clients=24) as load:
        await load.more(100)
        before = running.workers()
        killed = time.monotonic()
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
