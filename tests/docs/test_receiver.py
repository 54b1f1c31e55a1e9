"""The receiver that docs/events.md shows believes the gateway, and nobody else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.blocks import blocks
from docs.conftest import BIN
from processes import eventually

(RECEIVER,) = [block.text for block in blocks() if block.page == "docs/events.md" and block.language == "python"]
SECRET = re.findall(r"whsec_[\w+/=]+", RECEIVER)[0]


@pytest.fixture
def received(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert "9000" in RECEIVER
    with (tmp_path / "received").open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", RECEIVER.replace("9000", str(port))], stdout=out)
    eventually(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
    yield port, tmp_path / "received"
    process.kill()
    process.wait(5)


def plane(log: Path) -> str:
    """Where the operator answers."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"listening"' in line]
    return str(lines[0]["addresses"][-1])


def test_it_takes_what_a_gateway_posts_and_refuses_what_others_do(received: tuple[int, Path], tmp_path: Path) -> None:
    port, out = received
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    config = {
        "server": {"host": "127.0.0.1", "port": 0, "metrics_port": 0}, "data_dir": str(tmp_path / "data"), "providers": {"echo": {}},
        "events": {"webhooks": [{"url": f"http://127.0.0.1:{port}/", "secret": SECRET, "allow_private": True}]},
    }  # fmt: skip
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    environ = {name: value for name, value in os.environ.items() if not re.search(r"_API_KEY$|^LLM_GATEWAY|_(PORT|HOST|URL)$", name)}
    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen([BIN / "llm-gateway", "serve", "--config", file], stdout=log, stderr=log, env=environ)
    try:
        eventually(lambda: opener.open(f"http://{plane(tmp_path / 'log')}/health/ready", timeout=1).status == 200, 15)
        file.write_text(json.dumps({**config, "heartbeat": {"interval": 20}}))
        eventually(lambda: "config_reloaded" in out.read_text(), 15)
        forged = urllib.request.Request(f"http://127.0.0.1:{port}/", data=b"{}", headers={"webhook-id": "evt_1", "webhook-signature": "v1,AAAA"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            opener.open(forged, timeout=3)
        assert len(out.read_text().splitlines()) == 1
    finally:
        gateway.send_signal(signal.SIGINT)
        gateway.wait(10)
