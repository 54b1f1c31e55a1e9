"""A Redis of a test's own, on a free port of loopback."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection

import pytest

from processes import eventually
from replay.faulty import refused_port


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its URL and its process."""
    command = shutil.which("redis-server") or shutil.which("valkey-server")
    if command is None:
        pytest.skip("no redis-server here")
    port = port or refused_port()
    process = subprocess.Popen(
        [command, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: create_connection(("127.0.0.1", port), 0.2).close() is None, 10)
        yield f"redis://127.0.0.1:{port}/0", process
    finally:
        process.kill()
        process.wait()
