"""Requests with an Idempotency-Key whose clients have left: they go on, and so does what they hold of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.gateway import (
    Gateway,
    Peer,
    Scripted,
    completion,
    eventually,
    provider,
    request,
    running,
    server,
    snapshot,
)

BODY = 900_000
ROOM = 4 << 20


class Silent:
    """An upstream that takes a request, and answers when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.upstream = Scripted(self.play)
        self.asked = 0

    def play(self, peer: Peer) -> None:
        head = peer.until(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(peer.rest) < length:
            peer.more()
        self.asked += 1
        self.go.wait(5)
        peer.send(completion())


@pytest.fixture
def silent() -> Silent:
    return Silent()


@pytest.fixture
def gateway(silent: Silent, tmp_path: Path) -> Iterator[Gateway]:
    up = provider("up", silent.upstream.url, silence=9.0, timeout=9.0)
    with running(snapshot(tmp_path, (up,), server=server(body_memory=ROOM))) as made:
        yield made


def test_the_bodies_of_those_whose_clients_left_count(gateway: Gateway, silent: Silent):
    """They may be as many as anybody likes: each costs its sender one connection for a moment."""
    text = "x" * BODY
    refused = 0
    for number in range(12):
        with gateway.connect() as client:
            before = silent.asked
            client.send(request("up/m", headers=(f"Idempotency-Key: k{number}",), text=text))
            eventually(lambda: silent.asked > before or not client.silent(0))  # noqa: B023
            refused += silent.asked == before
    assert silent.asked * BODY <= ROOM + BODY
    assert refused >= 12 - 5
    silent.go.set()

    def again() -> bool:
        with gateway.connect() as client:
            client.send(request("up/m", text=text))
            return client.reply().status == 200

    eventually(again)
