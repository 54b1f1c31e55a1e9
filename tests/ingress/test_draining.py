"""Going down: what was promised to a client holds until it has been told otherwise."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingress.gateway import (
    STREAM_END,
    STREAM_HEAD,
    Gateway,
    Peer,
    Scripted,
    completion,
    event,
    eventually,
    provider,
    request,
    running,
    server,
    snapshot,
)

READY = b"GET /health/ready HTTP/1.1\r\nHost: a\r\n\r\n"


class Slow:
    """An upstream that begins to answer, and goes on when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.upstream = Scripted(self.play)

    def play(self, peer: Peer) -> None:
        while b"\r\n\r\n" in (head := peer.until(b"\r\n\r\n")):
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while len(peer.rest) < length:
                peer.more()
            body, peer.rest = peer.rest[:length], peer.rest[length:]
            stream = b'"stream":true' in body.replace(b" ", b"")
            if stream:
                peer.send(STREAM_HEAD + event("hi"))
            self.go.wait(5)
            peer.send(STREAM_END if stream else completion())


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def gateway(slow: Slow, tmp_path: Path) -> Iterator[Gateway]:
    with running(snapshot(tmp_path, (provider("slow", slow.upstream.url, silence=9.0, timeout=9.0),), server=server(lame_duck=30.0))) as made:
        yield made


@pytest.mark.parametrize("stream", [True, False])
def test_a_connection_that_was_promised_to_stay_serves_once_more(gateway: Gateway, slow: Slow, stream: bool):
    """A client that sends its next request into a connection closed without a word has lost it."""
    with gateway.connect() as client:
        client.send(request("slow/m", stream=stream))
        eventually(lambda: slow.upstream.accepted)
        if stream:
            client.until(b"hi")
            client.rest = b""
        gateway.process.send_signal(signal.SIGTERM)
        eventually(lambda: gateway.ask(READY).status == 503)
        slow.go.set()
        if stream:
            client.until(b"0\r\n\r\n")
        else:
            assert "connection" not in client.reply().headers
        assert client.silent(0.2)
        client.send(request("slow/m"))
        last = client.reply()
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert client.gone()


def test_whoever_comes_during_the_lame_duck_is_served_and_sent_away(gateway: Gateway, slow: Slow):
    slow.go.set()
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: gateway.ask(READY).status == 503)
    with gateway.connect() as client:
        client.send(request("slow/m", stream=True))
        reply = client.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert client.gone()
