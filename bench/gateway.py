"""The gateway under endurance: started with a plain and a streaming upstream, its worker and its journal at hand.

Law: as a user starts it, on no core in particular; everything it leaves behind is read from its data directory.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import upstreams
from drive import Door, check
from process import Process, free_port, start, wait_for_port

KEY = "sk-endurance-0123456789"


@dataclass
class Gateway:
    process: Process
    door: Door
    metrics_port: int
    data: Path
    command: list[str]

    def again(self, tree: list[int], patience: float = 30.0) -> None:
        """Starts it anew once all of the old one, `tree`, is gone. RuntimeError if that does not end."""
        deadline = time.monotonic() + patience
        while self.process.popen.poll() is None or any(self.process.command(pid) for pid in tree):
            if time.monotonic() > deadline:
                raise RuntimeError("what was left of the gateway does not end")
            time.sleep(0.01)
        self.process = start("ours", self.command, self.data.parent, None)
        wait_for_port(self.door.port, self.process)

    def worker(self, patience: float = 10.0) -> int:
        """The process that serves. RuntimeError if there is none for so long."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for pid in self.process.pids:
                if "llm_gateway.worker" in self.process.command(pid):
                    return pid
            time.sleep(0.01)
        raise RuntimeError(f"no worker: {self.process.tail()}")

    def rss(self) -> float:
        """Of the worker, in MB."""
        return self.process.rss()[self.worker()] / 1e6

    def metrics(self) -> str:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as reply:
            text: str = reply.read().decode()
            return text

    def rows(self) -> Counter[str]:
        """Journal rows by request id; a last line that was cut is not one."""
        found: Counter[str] = Counter()
        for file in sorted((self.data / "journal").glob("*.jsonl")):  # of all its lives
            for line in file.read_bytes().split(b"\n")[:-1]:
                found[json.loads(line)["request_id"]] += 1
        return found


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Gateway]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that everything started is also stopped
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plain, streaming = upstreams.plain(folder, 1), upstreams.streaming(folder, 1)
    port, metrics_port = free_port(), free_port()
    providers = {
        name: {"type": "openai_compatible", "base_url": each.url, "api_key": "sk-upstream", "max_connections": 10_000}
        for name, each in (("mock", plain), ("stream", streaming))
    }
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port},
        "workers": 1,
        "data_dir": str(folder / "data"),
        "providers": providers,
        "keys": [{"name": "endurance", "key": KEY, "tenant": "default"}],
    }
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML
    command = [str(Path(sys.executable).parent / "llm-gateway"), "serve", "--config", str(folder / "config.json")]
    process = start("ours", command, folder, None)
    door = Door(port, model="mock/mock-100x10", headers={"Authorization": f"Bearer {KEY}"})
    gateway = Gateway(process, door, metrics_port, folder / "data", command)
    try:
        wait_for_port(port, process)
        check(door)
        yield gateway
    finally:
        gateway.process.stop(8.0)
        plain.process.stop()
        streaming.process.stop()
