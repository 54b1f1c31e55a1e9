"""One request, of which the status is all that matters."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from llm_gateway.policies.addresses import Place, Rules
from llm_gateway.upstream.call import Answer, Caller
from llm_gateway.upstream.pool import Origin, Tls
from upstream.origin import answering, local, serving, unused_port

GET = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n"


@contextlib.asynccontextmanager
async def calling() -> AsyncIterator[Caller]:
    caller = Caller()
    yield caller
    caller.close()
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("status", [200, 204, 301, 404, 500])
async def test_the_status_is_told_and_nothing_followed(status: int) -> None:
    reply = b"HTTP/1.1 %d X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 9\r\n\r\n" % status
    async with serving(answering(reply)) as port, calling() as caller:
        answer = await caller.ask(local(port), GET, 3)
        assert (answer.status, answer.error) == (status, "")
        assert 0 <= answer.ms < 3000


async def test_the_rest_of_a_reply_is_not_waited_for_and_its_connection_is_closed() -> None:
    closed = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\nbeginning")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        closed.set()

    async with serving(play) as port, calling() as caller:
        assert (await caller.ask(local(port), GET, 3)).status == 200
        async with asyncio.timeout(3):
            await closed.wait()


async def test_each_call_has_a_connection_of_its_own() -> None:
    connections = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")(reader, writer)

    async with serving(play) as port, calling() as caller:
        for _ in range(3):
            assert (await caller.ask(local(port), GET, 3)).status == 200
    assert connections == 3


async def test_ways_to_fail_are_words() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port, calling() as caller:
        assert await caller.ask(local(port), GET, 0.1) == Answer(error="no answer within 0.1 s")
    async with serving(answering(close=True)) as port, calling() as caller:
        assert "closed the connection" in (await caller.ask(local(port), GET, 3)).error
    async with serving(answering(b"SSH-2.0\r\n\r\n")) as port, calling() as caller:
        assert "not valid HTTP" in (await caller.ask(local(port), GET, 3)).error
    async with calling() as caller:
        assert "Could not connect" in (await caller.ask(local(unused_port()), GET, 3)).error
        missing = Origin("https", "127.0.0.1", 1, tls=Tls(ca="/nowhere/ca.pem"))
        assert "TLS cannot be set up" in (await caller.ask(missing, GET, 3)).error


async def test_a_post_goes_only_where_its_rules_allow() -> None:
    async with serving(answering(b"HTTP/1.1 204 X\r\n\r\n")) as port, calling() as caller:
        place = Place("http", "localhost", port, "/")
        refused = await caller.post(place, Rules(frozenset({port})), GET, 3)
        assert (refused.status, refused.error) == (0, "its name leads into a network of one's own")
        assert (await caller.post(place, Rules(frozenset({port}), private=True), GET, 3)).status == 204
    async with calling() as caller:
        nobody = Place("http", "127.0.0.1", unused_port(), "/")
        assert "Could not connect" in (await caller.post(nobody, Rules(private=True), GET, 3)).error


async def test_a_certificate_is_checked_for_the_name_that_was_asked_for(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    seen = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 X\r\n\r\n")
        await writer.drain()

    async with serving(play, context) as port, calling() as caller:
        trusted = Tls(ca=str(tmp_path / "ca.pem"))
        assert (await caller.ask(Origin("https", "localhost", port, tls=trusted), GET, 3)).status == 204
        assert "TLS" in (await caller.ask(Origin("https", "127.0.0.1", port, tls=trusted), GET, 3)).error
        assert "TLS" in (await caller.post(Place("https", "localhost", port, "/"), Rules(private=True), GET, 3)).error
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))  # from now on another is trusted
        assert "TLS" in (await caller.ask(Origin("https", "localhost", port, tls=trusted), GET, 3)).error
    assert len(seen) == 1
