from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.config.snapshot import Operator
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.supervisor import boot
from llm_gateway.supervisor.plan import Address, Plan, encode
from processes import eventually

SPEAKING = str(Path(__file__).with_name("speaking_worker.py"))
TOKEN = "admin-token-of-the-tests"


@dataclass
class Plane:
    """A supervisor with the real operator and speaking workers."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def notices(self, event: str) -> list[dict[str, object]]:
        lines = (self.folder / "log").read_text().splitlines()
        return [entry for line in lines if line.startswith("{") and (entry := json.loads(line))["event"] == event]

    def children(self, name: str) -> list[int]:
        return [int(str(entry["child_pid"])) for entry in self.notices("started") if entry["child"] == name]

    def told(self, word: str) -> list[dict[str, object]]:
        path = self.folder / "worker.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [entry for entry in map(json.loads, lines) if word in entry]

    def tell(self, index: int, *changes: dict[str, object]) -> None:
        """Has worker `index` tell these changes."""
        path = self.folder / f"worker.log.tell{index}"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(changes))
        draft.rename(path)

    def events(self, query: str = "") -> list[dict[str, Any]]:
        return json.loads(self.ask(f"/admin/v1/events{query}", TOKEN)[1])["events"]

    def ask(self, path: str, token: str | None = None, method: str = "GET", **headers: str) -> tuple[int, str]:
        port = str(self.notices("listening")[0]["addresses"]).rstrip("']").rpartition(":")[2]
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=headers)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=3) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def reload(self) -> dict[str, object]:
        return json.loads(self.ask("/admin/v1/reload", TOKEN, "POST")[1])

    def metric(self, name: str) -> float:
        lines = [line for line in self.ask("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


@contextmanager
def planes(folder: Path) -> Iterator[Callable[..., Plane]]:
    """Starts one in that folder; ends it."""
    started: list[Plane] = []

    def start(text: str = "", workers: int = 1) -> Plane:
        common = f"workers: {workers}\ndata_dir: {folder / 'data'}\nadmin: {{token: {TOKEN}}}\nkeys: [{{name: a, key: sk-12345678}}]\n"
        (folder / "common").write_text(common)
        (folder / "config.yaml").write_text(common + text)
        loaded = load(str(folder / "config.yaml"), {})
        material = msgspec.structs.replace(imagined(loaded.root), secret=b"0123456789abcdef")
        compiled = compile_snapshot(loaded, {}, material, load_catalogue().resolve, 1)
        (folder / "data").mkdir()
        (folder / "data" / "secret").write_text("0123456789abcdef")
        plan = Plan(
            workers=workers,
            listeners=(Address("127.0.0.1", 0),),
            metrics=Address("127.0.0.1", 0),
            worker=(sys.executable, SPEAKING),
            operator=(sys.executable, "-P", "-m", "llm_gateway.operator"),
            snapshot=boot.create(msgspec.msgpack.encode(compiled.snapshot)),
            state=boot.create(
                msgspec.msgpack.encode(
                    Operator(str(folder / "config.yaml"), TOKEN, time.monotonic() - 60, compiled.webhooks, compiled.database)
                )
            ),
            lame_duck=0.1,
            drain_timeout=3.0,
        )
        fds = [plan.snapshot, plan.state, boot.create(encode(plan))]
        environ = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "llm_gateway.supervisor", "--plan", str(fds[2])],
                pass_fds=fds,
                stdout=log,
                stderr=log,
                env=environ | {"WORKER_LOG": str(folder / "worker.log")},
            )
        for fd in fds:
            os.close(fd)
        running = Plane(process, folder)
        started.append(running)
        eventually(lambda: running.ask("/health/ready")[0] == 200)
        return running

    yield start
    for running in started:
        running.process.send_signal(signal.SIGINT)
        try:
            running.process.wait(8)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait(5)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Callable[..., Plane]]:
    with planes(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One with two workers, for tests that leave it as it is: starting one takes two seconds of CPU."""
    with planes(tmp_path_factory.mktemp("calm")) as start:
        yield start(workers=2)
