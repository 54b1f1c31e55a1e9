"""An upstream behind TLS, through a real worker: plain, streamed, slow readers, and never unverified."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ingress.gateway import (
    STREAM_END,
    STREAM_HEAD,
    Gateway,
    Upstreams,
    completion,
    event,
    provider,
    request,
    running,
    snapshot,
)
from llm_gateway.config.snapshot import ProviderTls

EVENTS = 1500


async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if b'"stream":true' in body.replace(b" ", b""):
                writer.write(STREAM_HEAD)
                for n in range(EVENTS):
                    writer.write(event(f"{n:05}" + "x" * 4000))
                    await writer.drain()
                writer.write(STREAM_END)
            else:
                writer.write(completion("x" * 100_000))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@pytest.fixture(scope="module")
def secured(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = upstreams.run(asyncio.start_server(play, "127.0.0.1", 0, ssl=context))
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    told = snapshot(
        folder,
        (
            provider("good", url, tls=ProviderTls(ca=str(folder / "ca.pem")), timeout=10.0, silence=10.0),
            provider("stranger", url),
            provider("misnamed", url, tls=ProviderTls(ca=str(folder / "ca.pem"), server_name="other.test")),
        ),
    )
    with running(told) as started:
        yield started
    upstreams.loop.call_soon_threadsafe(server.close)


def test_plain_and_streamed_replies_come_whole_on_one_connection(secured: Gateway):
    with secured.connect() as client:
        for _ in range(3):
            client.send(request("good/m"))
            assert len(client.reply().body) > 100_000
            client.send(request("good/m", stream=True))
            assert client.reply().body.count(b"data: ") == EVENTS + 2


def test_a_slow_reader_pauses_a_tls_upstream_and_gets_everything(secured: Gateway):
    secured.ask(request("good/m"))
    before = secured.rss()
    with secured.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(request("good/m", stream=True))
        time.sleep(0.7)
        assert secured.rss() - before < 6 << 20
        assert client.reply().body.count(b"data: ") == EVENTS + 2


@pytest.mark.parametrize("name", ["stranger", "misnamed"])
def test_what_is_not_verified_is_502(secured: Gateway, name: str):
    reply = secured.ask(request(f"{name}/m"))
    assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_tls")
    assert "secure connection" in reply.json()["error"]["message"]
