"""A gateway as `make run` starts it where no provider has a key, for the documents' blocks to talk to."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from processes import eventually

BIN = Path(sys.executable).parent


@dataclass
class Place:
    """Where blocks run: the gateway's own folder, so that `./data` is its data."""

    folder: Path
    port: int
    metrics_port: int
    environ: dict[str, str]

    def here(self, text: str) -> str:
        """A block with the documents' names replaced by what they stand for here."""
        key = (self.folder / "data" / "dev.key").read_text().strip()
        for name, real in (
            ("https://api.llmgateway.example.com", f"http://127.0.0.1:{self.port}"),
            ("localhost:8080", f"127.0.0.1:{self.port}"),
            ("localhost:9090", f"127.0.0.1:{self.metrics_port}"),
            ("YOUR_API_KEY", key),
        ):
            text = text.replace(name, real)
        return text


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("documents")
    ports = [_free_port(), _free_port()]
    kept = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^LLM_GATEWAY|_(PORT|HOST|URL|TOKEN)$", name)}
    environ = kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*", "no_proxy": "*"}
    own = {"SERVER_PORT": str(ports[0]), "METRICS_PORT": str(ports[1]), "SERVER_HOST": "127.0.0.1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([BIN / "llm-gateway", "serve"], cwd=folder, stdout=log, stderr=log, env=environ | own)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    eventually(lambda: opener.open(f"http://127.0.0.1:{ports[0]}/health/live", timeout=1).status == 200, 15)
    eventually(lambda: opener.open(f"http://127.0.0.1:{ports[1]}/health/ready", timeout=1).status == 200, 15)
    yield Place(folder, *ports, environ)
    process.send_signal(2)
    process.wait(10)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
