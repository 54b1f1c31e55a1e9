"""Connections kept, bounded, raced and opened; certificates verified; tunnels through outbound proxies."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import gc
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.upstream.dns import Address
from llm_gateway.upstream.http1 import Connection
from llm_gateway.upstream.pool import Origin, Pool, Tls
from upstream.origin import OK, REQUEST, Told, answering, ask, connection, local, pooling, serving, unused_port

SLOW = "127.0.0.77"


# -- keeping -------------------------------------------------------------------------------------------------------------


async def test_the_connection_used_last_is_taken_first_and_origins_share_none():
    async with serving(answering(OK, OK, OK)) as port, pooling() as pool:
        bay = pool.bay(local(port))
        one, two = await connection(pool, local(port)), await connection(pool, local(port))
        for each in (one, two):
            told = Told()
            each.send(REQUEST, told)
            await told.over()
        assert repr(bay) == f"<Bay 127.0.0.1:{port} 2 open, 2 idle, 0 waiting>"
        assert pool.take(bay) is two
        assert pool.take(bay) is one
        assert pool.take(bay) is None
        assert pool.bay(local(port, proxy="http://p")) is not bay


async def test_idle_connections_expire_and_left_ones_are_not_waited_for():
    async with serving(answering(OK, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")) as port, pooling() as pool:
        origin = local(port, idle_timeout=10.0)
        used, _ = await ask(pool, origin)
        pool.sweep(1000.0)
        pool.sweep(1009.0)
        assert used.state == "idle"
        again = await connection(pool, origin)
        again.send(REQUEST, Told())
        await asyncio.sleep(0.02)
        again.leave()
        pool.sweep(1020.0)  # left just now, however long it was idle before
        assert again.state == "left"
        pool.sweep(1026.0)
        assert again.state == "closed"
    async with serving(answering(OK)) as port, pooling() as pool:
        used, _ = await ask(pool, local(port, idle_timeout=10.0))
        pool.sweep(1000.0)
        pool.sweep(1011.0)
        assert used.state == "closed"


async def test_what_no_configuration_names_any_more_is_closed_also_when_it_comes_back_later():
    async with serving(answering(OK, OK)) as port, pooling() as pool:
        origin = local(port)
        idle, _ = await ask(pool, origin)
        busy, told = await pool.open(pool.bay(origin)), Told()
        assert isinstance(busy, Connection)
        busy.send(REQUEST, told)
        pool.forget(set())
        assert idle.state == "closed"
        await told.over()
        await asyncio.sleep(0.01)
        assert (told.body, busy.state) == (b"ok", "closed")


@pytest.mark.parametrize("before", [True, False])
async def test_what_was_left_and_does_not_end_is_closed_also_after_a_reload(before: bool):
    async with serving(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")) as port, pooling() as pool:
        busy = await connection(pool, local(port))
        busy.send(REQUEST, Told())
        await asyncio.sleep(0.02)
        if before:
            busy.leave()
        pool.forget(set())
        busy.leave()
        pool.sweep(1000.0)
        pool.sweep(1006.0)
        assert busy.state == "closed"
        await asyncio.sleep(0.01)
        pool.sweep(1007.0)
        assert not pool.retired


# -- the bound -----------------------------------------------------------------------------------------------------------


async def test_at_the_bound_requests_wait_and_are_served_first_come_first_served():
    async with serving(answering(*[OK] * 20)) as port, pooling() as pool:
        origin = local(port, max_connections=1)
        held = await connection(pool, origin)
        order = []

        async def wait(number: int) -> None:
            got = await connection(pool, origin)
            order.append(number)
            told = Told()
            got.send(REQUEST, told)
            await told.over()

        waiting = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0.02)
        assert order == []
        told = Told()
        held.send(REQUEST, told)
        await told.over()
        newcomer = asyncio.create_task(wait(9))  # the connection that came back is not his
        await asyncio.gather(*waiting, newcomer)
        assert order == [0, 1, 2, 9]
        assert pool.opened == 1


async def test_a_turn_that_is_given_to_someone_who_leaves_goes_to_the_next():
    for finish in (True, False):  # the connection comes back, or is lost
        async with serving(answering(*[OK] * 5)) as port, pooling() as pool:
            origin = local(port, max_connections=1)
            held = await connection(pool, origin)
            first = asyncio.create_task(connection(pool, origin))
            second = asyncio.create_task(connection(pool, origin))
            await asyncio.sleep(0.01)
            if finish:
                told = Told()
                held.send(REQUEST, told)
                await told.over()
            else:
                held.close()
                while pool.bay(origin).open:
                    await asyncio.sleep(0)
            first.cancel()
            async with asyncio.timeout(1):
                got = await second
            assert (got is held) == finish


async def test_cancelling_at_any_step_of_opening_leaks_nothing():
    """Cancelled after N steps of the loop, for every N until it is through."""
    async with serving(answering(OK)) as port, pooling() as pool:
        origin = local(port, max_connections=1)
        for steps in range(40):
            opening = asyncio.create_task(connection(pool, origin))
            for _ in range(steps):
                await asyncio.sleep(0)
            opening.cancel()
            try:
                got = await opening
            except asyncio.CancelledError:
                pass
            else:
                got.close()
            await asyncio.sleep(0.002)
            assert repr(pool.bay(origin)).endswith("0 open, 0 idle, 0 waiting>"), steps
        gc.collect()  # an unclosed transport would warn here, which fails the test


# -- opening -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port on SLOW whose backlog is full: connecting to it hangs."""
    sock = socket.socket()
    sock.bind((SLOW, 0))
    sock.listen(0)
    crowd = []
    for _ in range(4):
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex(sock.getsockname())
        crowd.append(each)
    yield sock.getsockname()[1]
    for each in (*crowd, sock):
        each.close()


class Names:
    """Stands where the resolver stands."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def resolve(self, host: str) -> tuple[Address, ...]:
        return tuple(Address(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in self.hosts)

    def close(self) -> None:
        return


async def test_an_unresponsive_address_costs_a_quarter_second(hanging: int):
    server = await asyncio.start_server(answering(OK), "127.0.0.1", hanging)
    async with server, pooling() as pool:
        pool._resolver = Names(SLOW, "127.0.0.1")
        began = time.monotonic()
        _, told = await ask(pool, Origin("http", "name", hanging))
        assert told.body == b"ok"
        assert 0.2 < time.monotonic() - began < 0.6


async def test_a_refused_address_costs_nothing_and_the_last_failure_is_told():
    async with serving(answering(OK)) as port, pooling() as pool:
        pool._resolver = Names("127.0.0.99", "127.0.0.98", "127.0.0.1")
        began = time.monotonic()
        _, told = await ask(pool, Origin("http", "name", port))
        assert told.body == b"ok"
        assert time.monotonic() - began < 0.2
        pool._resolver = Names("127.0.0.99", "127.0.0.98")
        with pytest.raises(Fault, match="Connection refused") as failed:
            await connection(pool, Origin("http", "other", unused_port()))
        assert failed.value.kind is Kind.UPSTREAM_CONNECT


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_two_addresses_that_answer_at_once_leave_one_connection():
    accepted = []

    async def play(reader, writer):
        accepted.append(writer)
        await reader.read()
        accepted.remove(writer)

    async with serving(play) as port, pooling() as pool:
        pool._resolver = Names("127.0.0.1", "127.0.0.1")
        dial, started = pool._race, []

        async def wait(attempts, **options):
            started.append(attempts)
            await asyncio.sleep(0.02)
            return await original(attempts, **options)

        original, asyncio.wait = asyncio.wait, wait
        try:
            sock = await dial("name", port)
        finally:
            asyncio.wait = original
        sock.close()
        await asyncio.sleep(0.02)
        assert accepted == []


async def test_connecting_is_given_up_in_time(hanging: int):
    async with pooling() as pool:
        with pytest.raises(Fault, match=r"within 0\.1 s") as failed:
            await connection(pool, Origin("http", SLOW, hanging, connect_timeout=0.1))
        assert failed.value.code == "upstream_connect_timeout"
        assert repr(pool.bay(Origin("http", SLOW, hanging, connect_timeout=0.1))).endswith("0 open, 0 idle, 0 waiting>")


async def test_without_a_descriptor_it_is_our_fault_and_not_the_upstreams():
    async with pooling() as pool, serving(answering(OK)) as port:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(Fault) as failed:
                await connection(pool, local(port))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (failed.value.kind, failed.value.code, failed.value.retry_after) == (Kind.UNAVAILABLE, "no_descriptors", 1.0)
        assert isinstance(await connection(pool, local(port)), Connection)


# -- TLS -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder: Path = tmp_path_factory.mktemp("pki")
    authority, clients = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own = clients.issue_cert("gateway@x")
    own.private_key_pem.write_to_path(folder / "key.pem")
    own.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return SimpleNamespace(
        authority=authority,
        clients=clients,
        ca=str(folder / "ca.pem"),
        cert=str(folder / "cert.pem"),
        key=str(folder / "key.pem"),
    )


def serves(pki: SimpleNamespace, *names: str, by: trustme.CA | None = None, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    more = {"not_after": past, "not_before": past - dt.timedelta(days=1)} if expired else {}
    (by or pki.authority).issue_cert(*names, **more).configure_cert(context)
    return context


def secure(port: int, pki: SimpleNamespace, **more: object) -> Origin:
    return Origin("https", "127.0.0.1", port, tls=Tls(**({"ca": pki.ca} | more)))  # type: ignore[arg-type]


async def test_tls_is_verified_against_the_configured_authority_and_reused(pki: SimpleNamespace):
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
    async with serving(answering(OK, big, OK), serves(pki, "127.0.0.1")) as port, pooling() as pool:
        for size in (2, 300_000, 2):
            _, told = await ask(pool, secure(port, pki))
            assert len(told.body) == size
        assert pool.opened == 1


async def test_a_server_name_may_differ_from_the_host(pki: SimpleNamespace):
    async with serving(answering(OK), serves(pki, "llm.test")) as port, pooling() as pool:
        _, told = await ask(pool, secure(port, pki, server_name="llm.test"))
        assert told.body == b"ok"


@pytest.mark.parametrize(
    "wrong", ["expired", "another name", "another authority", "the system's authorities", "plain text"]
)
async def test_what_cannot_be_verified_gets_no_request(pki: SimpleNamespace, wrong: str):
    received = []

    async def play(reader, writer):
        received.append(await reader.read(100))

    context = serves(
        pki,
        "other.test" if wrong == "another name" else "127.0.0.1",
        by=trustme.CA() if wrong == "another authority" else None,
        expired=wrong == "expired",
    )
    async with serving(play, None if wrong == "plain text" else context) as port, pooling() as pool:
        origin = secure(port, pki, **({"ca": None} if wrong.startswith("the system") else {}))
        with pytest.raises(Fault) as failed:
            await connection(pool, origin)
        assert failed.value.kind in (Kind.UPSTREAM_TLS, *([Kind.UPSTREAM_CONNECT] if wrong == "plain text" else []))
        assert "127.0.0.1" in failed.value.message
        await asyncio.sleep(0.02)
        assert not any(b"POST" in each for each in received)


async def test_verification_is_off_only_where_configured(pki: SimpleNamespace):
    async with serving(answering(OK), serves(pki, "x", by=trustme.CA())) as port, pooling() as pool:
        _, told = await ask(pool, secure(port, pki, verify=False))
        assert told.body == b"ok"


async def test_the_gateway_shows_its_own_certificate_where_configured(pki: SimpleNamespace):
    context = serves(pki, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    pki.clients.configure_trust(context)
    async with serving(answering(OK), context) as port, pooling() as pool:
        _, told = await ask(pool, secure(port, pki, cert=pki.cert, key=pki.key))
        assert told.body == b"ok"
        refused, told = await connection(pool, secure(port, pki)), Told()
        refused.send(REQUEST, told)  # TLS 1.3: the server's refusal comes after our handshake
        assert (await told.over()).fault is not None


async def test_certificates_that_were_renewed_are_used_by_the_next_connection(pki: SimpleNamespace, tmp_path: Path):
    """As those are that live for hours; while they are half-written the ones of before serve."""
    shown: list[object] = []

    async def play(reader, writer):
        shown.append(writer.get_extra_info("peercert")["subjectAltName"])
        await answering(OK)(reader, writer)

    def issue(name: str) -> None:
        made = pki.clients.issue_cert(name)
        made.private_key_pem.write_to_path(tmp_path / "key.pem")
        made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")

    context = serves(pki, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    pki.clients.configure_trust(context)
    issue("first@x")
    async with serving(play, context) as port, pooling() as pool:
        origin = secure(port, pki, cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))
        for step in (lambda: None, lambda: (tmp_path / "cert.pem").write_text("half of"), lambda: issue("second@x")):
            step()
            pool.sweep(0.0)
            _, told = await ask(pool, origin)
            assert told.body == b"ok"
            for connection in list(pool.bays[origin].idle):
                connection.close()
    assert shown == [(("email", name),) for name in ("first@x", "first@x", "second@x")]


# -- outbound proxies ----------------------------------------------------------------------------------------------------


def tunnelling(answer: bytes, seen: list[bytes], port: int = 0):
    async def play(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if not port:
            await writer.drain()
            return
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)

        async def copy(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))

    return play


async def test_an_outbound_proxy_is_asked_to_connect_with_its_credentials(pki: SimpleNamespace):
    seen: list[bytes] = []
    established = b"HTTP/1.1 200 Connection established\r\nx: y\r\n\r\n"
    async with serving(answering(OK, OK), serves(pki, "llm.test")) as port, pooling() as pool:
        async with serving(tunnelling(established, seen, port)) as through:
            tls = Tls(ca=pki.ca)
            origin = Origin("https", "llm.test", port, tls=tls, proxy=f"http://me:p%40ss@127.0.0.1:{through}")
            for _ in range(2):
                _, told = await ask(pool, origin)
                assert told.body == b"ok"
            pool.close()
        assert len(seen) == 1
        assert seen[0].startswith(f"CONNECT llm.test:{port} HTTP/1.1\r\nHost: llm.test:{port}\r\n".encode())
        assert base64.b64encode(b"me:p@ss") in seen[0]


async def test_an_ipv6_origin_is_named_in_brackets():
    seen: list[bytes] = []
    async with serving(tunnelling(b"HTTP/1.1 403 No\r\n\r\n", seen)) as through, pooling() as pool:
        with pytest.raises(Fault):
            await connection(pool, Origin("http", "2001:db8::1", 8000, proxy=f"http://127.0.0.1:{through}"))
        assert seen[0].startswith(b"CONNECT [2001:db8::1]:8000 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/1.1 502 No\r\ncontent-length: 2\r\n\r\nno", b"SSH-2.0\r\n\r\n", b"",
     b"x" * 20_000, b"HTTP/1.1 200", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n"],
)  # fmt: skip
async def test_a_proxy_that_refuses_or_babbles_is_a_failed_connect(answer: bytes):
    seen: list[bytes] = []
    async with serving(tunnelling(answer, seen)) as through, pooling() as pool:
        with pytest.raises(Fault, match="proxy") as failed:
            await connection(pool, local(1, proxy=f"http://127.0.0.1:{through}"))
        assert failed.value.kind is Kind.UPSTREAM_CONNECT
        assert repr(pool.bay(local(1, proxy=f"http://127.0.0.1:{through}"))).endswith("0 open, 0 idle, 0 waiting>")


async def test_tls_inside_a_tunnel_is_verified_all_the_same(pki: SimpleNamespace):
    seen: list[bytes] = []
    async with (
        serving(answering(OK), serves(pki, "other.test")) as port,
        serving(tunnelling(b"HTTP/1.1 200 OK\r\n\r\n", seen, port)) as through,
        pooling() as pool,
    ):
        with pytest.raises(Fault) as failed:
            await connection(
                pool, Origin("https", "llm.test", port, tls=Tls(ca=pki.ca), proxy=f"http://127.0.0.1:{through}")
            )
        assert failed.value.kind is Kind.UPSTREAM_TLS


async def test_a_pool_that_closes_ends_everything():
    async with serving(answering(OK)) as port:
        pool = Pool(memoryview(bytearray(16 << 10)))
        used, _ = await ask(pool, local(port))
        pool.close()
        assert used.state == "closed"
        await asyncio.sleep(0.01)
