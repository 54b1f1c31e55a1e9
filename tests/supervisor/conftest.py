from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from llm_gateway.supervisor import boot
from llm_gateway.supervisor.plan import Address, Plan, encode
from processes import eventually

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


@dataclass
class Answer:
    name: str
    index: int
    pid: int
    payload: str
    heard: list[str]
    links: list[str]
    said: list[str]


@dataclass
class Running:
    """A supervisor process with stand-in children."""

    process: subprocess.Popen[bytes]
    log_path: Path
    snapshot: int
    pids: set[int] = field(default_factory=set)

    def log(self) -> list[dict[str, object]]:
        lines = [line for line in self.log_path.read_text().splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines]

    def events(self, name: str) -> list[dict[str, object]]:
        return [entry for entry in self.log() if entry["event"] == name]

    def address(self, which: int) -> str:
        return str(eventually(lambda: self.events("listening")[0]["addresses"][which]))  # type: ignore[index]

    def ask(self, which: int = 0) -> Answer:
        """Listener `which`, in the plan's order; the metrics address is last (-1)."""
        address = self.address(which)
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(3)
            sock.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            sock = socket.create_connection((host, int(port)), timeout=3)
        with sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            data = b""
            while piece := sock.recv(4096):
                data += piece
        fields = data.decode().partition("\r\n\r\n")[2].split("|")
        words = [part.split(",") if part else [] for part in fields[4:]]
        answer = Answer(fields[0], int(fields[1]), int(fields[2]), fields[3], *words)
        self.pids.add(answer.pid)
        return answer

    def workers(self) -> dict[int, int]:
        """index -> pid of those that the log says were started last."""
        started = [entry for entry in self.events("started") if str(entry["child"]).startswith("worker")]
        return {int(str(entry["child"]).split()[1]): int(str(entry["child_pid"])) for entry in started}

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(payload: str = "one", workers: int = 1, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None, **options: object) -> Running:
        snapshot, state = boot.create(payload.encode()), boot.create(b"{}")
        fields = {
            "workers": workers,
            "listeners": (Address("127.0.0.1", 0, None, "server.port"),),
            "metrics": Address("127.0.0.1", 0, None, "server.metrics_port"),
            "worker": (sys.executable, STAND_IN, "worker"),
            "operator": (sys.executable, STAND_IN, "operator"),
            "snapshot": snapshot,
            "state": state,
            "lame_duck": 0.1,
            "drain_timeout": 3.0,
            "banner": "READY\n",
        }
        plan = boot.create(encode(Plan(**(fields | options))))
        log_path = tmp_path / f"log{len(started)}"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "llm_gateway.supervisor", "--plan", str(plan)],
                pass_fds=[snapshot, state, plan],
                stdout=stdout or log,
                stderr=stderr or log,
            )
        os.close(plan)
        os.close(state)
        running = Running(process, log_path, snapshot)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(5)
        for entry in running.events("started"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(str(entry["child_pid"])), signal.SIGKILL)
        os.close(running.snapshot)
