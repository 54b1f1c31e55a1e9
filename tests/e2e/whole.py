"""Whole gateways as processes of their own: supervisor, operator and several workers, in front of an upstream that breaks."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from e2e.conftest import free_port
from e2e.steady import KEY
from redis_server import say
from replay.faulty import FaultyUpstream

COMMAND = os.environ.get("LLM_GATEWAY", str(Path(sys.executable).parent / "llm-gateway"))
TOKEN = "admin-token-of-the-tests"
ENVIRON = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^LLM_GATEWAY|_(PORT|HOST|URL)$", name)}
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


PATIENCE = 90.0  # seconds for what takes two where nobody else uses the machine


class Gateway:
    """One gateway; its configuration is what `write` wrote last. more: sections beside what every one has."""

    def __init__(self, folder: Path, upstream: FaultyUpstream, workers: int, more: dict[str, object] | None = None) -> None:
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
        } | (more or {})
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
        async with asyncio.timeout(PATIENCE):
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

    async def events(self) -> list[dict[str, Any]]:
        return json.loads((await self.ask("/admin/v1/events"))[1])["events"]

    def workers(self) -> dict[int, int]:
        """Index -> pid, of those started last."""
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]
        return {
            int(line["child"].split()[1]): line["child_pid"]
            for line in lines
            if line["event"] == "started" and line["child"].startswith("worker")
        }


async def counting(port: int, workers: int) -> None:
    """Returns when so many workers, of all gateways, count on this Redis. Being connected is not enough: until its scripts are loaded a worker
    does without. The first thing that one says after that is what nobody says before: GET."""
    async with asyncio.timeout(PATIENCE):
        while True:
            said = bytes(await asyncio.to_thread(say, port, "CLIENT", "LIST")).decode()
            if sum(" cmd=get " in line for line in said.splitlines()) >= workers:
                return
            await asyncio.sleep(0.05)


def _ask(url: str, method: str) -> tuple[int, str]:
    request = urllib.request.Request(url, method=method, headers={"authorization": f"Bearer {TOKEN}"})
    try:
        with OPENER.open(request, timeout=3) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
