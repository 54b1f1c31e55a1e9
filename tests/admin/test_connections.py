"""Strangers at the operator's port, who want nothing answered: they neither take its descriptors nor its memory, and nobody is in their way for long."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from admin.conftest import TOKEN, Plane, planes
from llm_gateway.admin.connections import HEAD_SECONDS, LONGEST_HEAD, MOST
from processes import eventually

HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with planes(tmp_path_factory.mktemp("strangers")) as start:
        yield start()


def connect(plane: Plane) -> socket.socket:
    port = int(str(plane.notices("listening")[0]["addresses"]).rstrip("']").rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), 5)


def ended(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def locally(plane: Plane, path: str, token: str) -> bytes:
    """By the socket in data_dir."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(plane.folder / "data" / "admin.sock"))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b""))


def resident(plane: Plane) -> int:
    text = Path(f"/proc/{plane.children('operator')[-1]}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


@pytest.mark.slow
def test_idle_and_dripping_strangers_take_no_more_than_their_share_and_go(plane: Plane) -> None:
    idle, dripping = [connect(plane) for _ in range(MOST - 2)], [connect(plane) for _ in range(2)]
    begun = time.monotonic()
    for sock, before in zip(dripping, (b"", HEALTH), strict=True):
        sock.sendall(before + b"GET / HTTP/1.1\r\nx: ")
    assert ended(connect(plane), 2), "one too many"
    assert locally(plane, "/admin/v1/config", TOKEN).startswith(b"HTTP/1.1 200")
    assert locally(plane, "/admin/v1/config", "wrong").startswith(b"HTTP/1.1 401")
    (line,) = [json.loads(each) for path in (plane.folder / "data" / "audit").glob("*.jsonl") for each in path.read_text().splitlines()]
    assert line["kind"] == "refused"
    for took in dripped(dripping):
        assert HEAD_SECONDS - 3 < took - begun < HEAD_SECONDS + 4
    assert ended(idle[-1], 3)
    eventually(lambda: plane.ask("/health/live")[0] == 200)
    for sock in idle:
        sock.close()
    assert "Too many open files" not in (plane.folder / "log").read_text()


def dripped(socks: list[socket.socket]) -> list[float]:
    """When each was cut off, while a byte came every quarter of a second."""
    gone: dict[socket.socket, float] = {}
    for _ in range(80):
        for sock in socks:
            if sock not in gone:
                try:
                    sock.sendall(b"y")
                except ConnectionError:
                    gone[sock] = time.monotonic()
        if len(gone) == len(socks):
            break
        time.sleep(0.25)
    return [gone[sock] for sock in socks]


@pytest.mark.parametrize("before", [b"", HEALTH])
def test_a_head_without_end_takes_no_memory(plane: Plane, before: bytes) -> None:
    eventually(lambda: plane.ask("/health/live")[0] == 200)
    memory = resident(plane)
    with connect(plane) as sock:
        sock.sendall(before + b"GET / HTTP/1.1\r\n")
        sent = 0
        try:
            for number in range(500):
                sock.sendall(b"x-%d: %b\r\n" % (number, b"y" * (64 << 10)))
                sent += 64 << 10
        except ConnectionError:
            pass
    assert sent < 16 << 20, "what a socket's buffers hold"
    assert resident(plane) - memory < 8 << 20


def test_a_large_body_is_none_of_this(plane: Plane) -> None:
    body = b'{"request": {"model": "echo/x", "messages": [{"role": "user", "content": "%b"}]}}' % (b"z" * (8 * LONGEST_HEAD))
    head = b"POST /admin/v1/explain HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n" % (TOKEN.encode(), len(body))
    with connect(plane) as sock:
        sock.sendall(head)
        for at in range(0, len(body), 100_000):
            sock.sendall(body[at : at + 100_000])
            time.sleep(0.01)
        assert sock.recv(65536).startswith((b"HTTP/1.1 200", b"HTTP/1.1 503", b"HTTP/1.1 504"))
