"""The end of a worker's patience: whoever is still being served is told, wherever its request is by then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.gateway import Gateway, Peer, Scripted, eventually, provider, request, server, snapshot, start
from llm_gateway.config.snapshot import Retry

WAIT = 0.4


def fails(peer: Peer) -> None:
    peer.until(b"\r\n\r\n")
    peer.send(b"HTTP/1.1 429 No\r\ncontent-length: 0\r\nretry-after: 5\r\n\r\n")


@pytest.fixture
def upstream() -> Scripted:
    return Scripted(fails)


@pytest.fixture
def gateway(upstream: Scripted, tmp_path: Path) -> Iterator[Gateway]:
    up = provider("up", upstream.url, max_retries=1)
    limits = server(drain_timeout=WAIT)
    retry = Retry(base=0.01, cap=0.02, wait_retry_after=9.0)
    made = start(snapshot(tmp_path, (up,), server=limits, retry=retry))
    yield made
    made.stop()


def test_one_that_waits_before_another_attempt_is_told_and_booked(gateway: Gateway, upstream: Scripted):
    with gateway.connect() as client:
        client.send(request("up/m", headers=("X-Request-ID: waits",)))
        eventually(lambda: upstream.accepted)
        assert client.silent(0.3)
        gateway.process.send_signal(signal.SIGTERM)
        reply = client.reply()
    assert (reply.status, reply.json()["error"]["code"]) == (500, "shutting_down"), reply
    assert gateway.process.wait(5) == 0
    row = gateway.row("waits")
    assert [each["outcome"] for each in row["attempts"]] == ["upstream_rate_limit"], row
    assert "Traceback" not in (gateway.folder / "stderr").read_text()
