"""Fetching by address, against real servers on loopback: what comes, what does not, and that a name is looked up once."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from llm_gateway.policies.addresses import Rules, place
from llm_gateway.upstream.dns import Address
from llm_gateway.upstream.fetch import MOST_AT_ONCE, Failure, Fetched, Fetcher, Order
from upstream.origin import answering, pooling, serving

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"


def sized(body: bytes, kind: bytes = b"image/png") -> bytes:
    return HEAD % kind + b"content-length: %d\r\n\r\n" % len(body) + body


@asynccontextmanager
async def fetching() -> AsyncIterator[Fetcher]:
    async with pooling() as pool:
        fetcher = Fetcher(pool)
        try:
            yield fetcher
        finally:
            fetcher.close()


def own(port: int) -> Rules:
    return Rules(ports=frozenset({port}), private=True)


def order(url: str, rules: Rules, **more: Any) -> Order:
    where = place(url, rules)
    assert where is not None
    return Order(**({"place": where, "accepts": ("image/",), "most": 1 << 20, "seconds": 2.0, "room": lambda size: None} | more))


async def fetch(fetcher: Fetcher, port: int, host: str = "127.0.0.1", **more: Any) -> Fetched | Failure:
    return await fetcher.fetch(order(f"http://{host}:{port}/a.png?b=c", own(port), **more), own(port))


class Names:
    """Stands where the resolver stands; each look-up gets the next answer."""

    def __init__(self, *answers: str | tuple[str, ...]) -> None:
        self.answers = [each if isinstance(each, tuple) else (each,) for each in answers]
        self.asked: list[str] = []

    async def resolve(self, host: str) -> tuple[Address, ...]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return tuple(Address(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in found)

    def close(self) -> None:
        return


# -- what comes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "mime"),
    [
        (sized(PNG), "image/png"),
        (sized(PNG, b"Image/PNG; name=x"), "image/png"),
        (HEAD % b"image/png" + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG), "image/png"),
        (b"HTTP/1.0 200 OK\r\ncontent-type: image/png\r\n\r\n" + PNG, "image/png"),  # ends with its connection
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" + sized(PNG), "image/png"),
        (sized(PNG, b"application/octet-stream"), "image/png"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(PNG) + PNG, "image/png"),
        (sized(b"RIFF\0\0\0\0WEBPVP8 ", b"binary/octet-stream"), "image/webp"),
        (HEAD % b"image/png" + b"content-encoding: identity\r\ncontent-length: 1\r\n\r\nx", "image/png"),
    ],
)  # fmt: skip
async def test_an_image_comes_as_it_is(reply: bytes, mime: str):
    async with serving(answering(reply, close=True)) as port, fetching() as fetcher:
        got = await fetch(fetcher, port)
        assert isinstance(got, Fetched)
        assert got.mime == mime
        assert bytes(got.body) == reply[-len(got.body) :] or bytes(got.body) == PNG


async def test_text_tells_its_charset():
    async with serving(answering(sized(b"x", b'text/plain; a=b; Charset="ISO-8859-1"'))) as port, fetching() as fetcher:
        got = await fetch(fetcher, port, accepts=("text/",))
        assert isinstance(got, Fetched)
        assert (got.mime, got.charset, bytes(got.body)) == ("text/plain", "iso-8859-1", b"x")


async def test_the_request_carries_nothing_of_anybodys():
    seen: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(sized(PNG))
        seen.append(await reader.read())  # nothing more, and an end: the connection is not kept

    async with serving(play) as port, fetching() as fetcher:
        fetcher._resolver = Names("127.0.0.1")
        assert isinstance(await fetch(fetcher, port, "pictures.example"), Fetched)
        await asyncio.sleep(0.02)
        assert seen == [
            b"GET /a.png?b=c HTTP/1.1\r\nhost: pictures.example:%d\r\nuser-agent: llm-gateway\r\naccept: */*\r\n"
            b"accept-encoding: identity\r\nconnection: close\r\n\r\n" % port, b"",
        ]  # fmt: skip
        assert fetcher._pool.bays == {}


# -- what does not -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        sized(PNG, b"text/html"), sized(PNG, b"application/json"), sized(PNG, b"imaged/png"), sized(b"<html>", b"application/octet-stream"),
        sized(b""), b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.1 404 No\r\ncontent-type: image/png\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 206 Part\r\ncontent-type: image/png\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        HEAD % b"image/png" + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
        HEAD % b"image/png" + b"content-length: 99\r\n\r\ncut", HEAD % b"image/png" + b"transfer-encoding: chunked\r\n\r\n9\r\ncut",
        b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_image_is_a_failure_and_nothing_more(reply: bytes):
    async with serving(answering(reply, close=True)) as port, fetching() as fetcher:
        assert await fetch(fetcher, port) == "failed"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int):
    hits: list[bytes] = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(await reader.read(100))

    async with serving(inside) as secret:
        there = b"HTTP/1.1 %d Moved\r\nlocation: http://127.0.0.1:%d/\r\ncontent-length: 0\r\n\r\n" % (status, secret)
        async with serving(answering(there)) as port, fetching() as fetcher:
            assert await fetch(fetcher, port) == "failed"
            await asyncio.sleep(0.02)
    assert hits == []


async def test_a_closed_port_and_a_name_that_is_none_are_failures_alike():
    async with fetching() as fetcher:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            assert await fetch(fetcher, sock.getsockname()[1]) == "failed"
        assert await fetch(fetcher, 80, "no-such-name.invalid") == "failed"


@pytest.mark.parametrize("length", [b"1048577", b"0001048577", b"9223372036854775807"])
async def test_an_announced_size_ends_it_before_the_body(length: bytes):
    async with serving(answering(HEAD % b"image/png" + b"content-length: %b\r\n\r\nx" % length)) as port, fetching() as fetcher:
        assert await fetch(fetcher, port) == "too_large"


async def test_a_length_of_thousands_of_digits_is_read_all_the_same():
    """Python refuses to make a number of so many."""
    told = b"content-length: %b1\r\n\r\nx" % (b"0" * 5000)
    async with serving(answering(HEAD % b"image/png" + told)) as port, fetching() as fetcher:
        got = await fetch(fetcher, port)
        assert isinstance(got, Fetched)
        assert got.body == b"x"


async def test_an_endless_body_is_cut_at_the_limit():
    sent = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % b"image/png" + b"transfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await writer.drain()
            sent += 0x10000

    async with serving(play) as port, fetching() as fetcher:
        assert await fetch(fetcher, port, most=500_000) == "too_large"
        await asyncio.sleep(0.05)
        stopped = sent
        await asyncio.sleep(0.05)
        assert sent == stopped < 16 << 20, "the connection was closed"


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n", HEAD % b"image/png" + b"content-length: 9\r\n\r\nx"])
async def test_a_slow_server_is_given_up(reply: bytes):
    ended: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        ended.append(await reader.read())

    async with serving(play) as port, fetching() as fetcher:
        began = time.monotonic()
        assert await fetch(fetcher, port, seconds=0.2) == "timeout"
        assert time.monotonic() - began < 1.0
        await asyncio.sleep(0.02)
        assert ended == [b""]


async def test_a_drip_does_not_extend_the_time():
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % b"image/png" + b"content-length: 99999\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async with serving(play) as port, fetching() as fetcher:
        assert await fetch(fetcher, port, seconds=0.3) == "timeout"


async def test_each_piece_asks_for_room():
    asked: list[int] = []

    def room(size: int) -> Failure | None:
        asked.append(size)
        return "full" if sum(asked) > 5000 else None

    async with serving(answering(sized(PNG))) as port, fetching() as fetcher:
        assert await fetch(fetcher, port, room=room) == "full"
    assert sum(asked) > 5000


# -- who is asked --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "127.0.0.1.", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"],
)
async def test_without_leave_nothing_inside_is_connected_to(host: str):
    hits: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hits.append(b"")

    async with serving(play) as port, fetching() as fetcher:
        rules = Rules(ports=frozenset({port}))
        assert await fetcher.fetch(order(f"http://{host}:{port}/", rules), rules) == "refused"
        await asyncio.sleep(0.02)
    assert hits == []


@pytest.mark.parametrize("answers", [("169.254.169.254",), ("127.0.0.1", "169.254.169.254"), ("0.0.0.0",), ("127.0.0.1", "fe80::1%lo")])
async def test_one_forbidden_answer_forbids_the_name(answers: tuple[str, ...]):
    async with serving(answering(sized(PNG))) as port, fetching() as fetcher:
        fetcher._resolver = Names(answers)
        assert await fetch(fetcher, port, "two-faced.example") == "refused"


async def test_a_name_that_is_rebound_after_its_check_is_still_the_address_that_was_checked():
    """The second answer would be another server; nobody asks a second time, neither of our resolver nor of the system's."""
    async with fetching() as fetcher, serving(answering(sized(PNG + b"checked"))) as port:
        other = await asyncio.start_server(answering(sized(PNG + b"rebound")), "127.0.0.2", port)
        async with other:
            names = fetcher._resolver = Names("127.0.0.1", "127.0.0.2")
            fetcher._pool._resolver = Pinned()
            got = await fetch(fetcher, port, "rebinds.example")
            assert isinstance(got, Fetched)
            assert bytes(got.body).endswith(b"checked")
            assert names.asked == ["rebinds.example"]


class Pinned:
    """The pool's resolver: gets literals only, which it passes on."""

    async def resolve(self, host: str) -> tuple[Address, ...]:
        assert host == "127.0.0.1"
        return (Address(socket.AF_INET, host),)

    def close(self) -> None:
        return


async def test_the_systems_resolver_is_asked_once_for_a_fetch(monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *more: Any, **options: Any) -> Any:
        if host != "rebinds.example":
            return real(host, *more, **options)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with serving(answering(sized(PNG))) as port, fetching() as fetcher:
        assert isinstance(await fetch(fetcher, port, "rebinds.example"), Fetched)
    assert asked == ["rebinds.example"]


async def test_the_next_address_is_tried_where_one_refuses():
    async with serving(answering(sized(PNG))) as port, fetching() as fetcher:
        fetcher._resolver = Names(("127.0.0.99", "127.0.0.1"))
        assert isinstance(await fetch(fetcher, port, "two.example"), Fetched)


# -- TLS -----------------------------------------------------------------------------------------------------------------


async def test_the_name_is_told_and_verified_though_the_address_is_pinned():
    authority, told, hosts = trustme.CA(), [], []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pictures.example").configure_cert(server)
    server.sni_callback = lambda _, name, __: told.append(name)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hosts.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1])
        writer.write(sized(PNG))

    async with serving(play, server) as port, fetching() as fetcher:
        fetcher._resolver = Names("127.0.0.1")
        fetcher._context = ssl.create_default_context()
        authority.configure_trust(fetcher._context)
        rules = own(port)
        assert isinstance(await fetcher.fetch(order(f"https://pictures.example:{port}/", rules), rules), Fetched)
        assert (told, hosts) == (["pictures.example"], [b"host: pictures.example:%d" % port])
        assert await fetcher.fetch(order(f"https://other.example:{port}/", rules), rules) == "failed"
        fetcher._context = None  # the system's authorities do not know this one
        assert await fetcher.fetch(order(f"https://pictures.example:{port}/", rules), rules) == "failed"
        assert len(hosts) == 1, "nothing was sent where the certificate did not verify"


# -- leaving -------------------------------------------------------------------------------------------------------------


async def test_cancelling_at_any_step_leaves_nothing_open():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what earlier tests of this process left is not ours to answer for
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        await cancelled_at_each_step()
        gc.collect()


async def cancelled_at_each_step() -> None:
    live: set[object] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        live.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sized(PNG)[:-1])
            await reader.read()
        finally:
            live.discard(writer)

    async with serving(play) as port, fetching() as fetcher:
        for steps in range(30):
            fetched = asyncio.create_task(fetch(fetcher, port))
            for _ in range(steps):
                await asyncio.sleep(0)
            fetched.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetched
            async with asyncio.timeout(3):  # the upstream sees the end of the connection, or never
                await asyncio.sleep(0.005)  # so that whoever was left open is
                while live:
                    await asyncio.sleep(0.005)
        assert fetcher._turns._value == MOST_AT_ONCE


async def test_more_than_may_be_fetched_at_once_wait_their_turn(monkeypatch: pytest.MonkeyPatch):
    busy, most = 0, 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.02)
        busy -= 1
        writer.write(sized(PNG))

    async with serving(play) as port, fetching() as fetcher:
        fetcher._turns = asyncio.Semaphore(2)
        got = await asyncio.gather(*(fetch(fetcher, port) for _ in range(6)))
    assert all(isinstance(each, Fetched) for each in got)
    assert most == 2




