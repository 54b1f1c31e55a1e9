"""Listeners: TLS and mTLS whose certificates change, PROXY heads, trusted proxies, a Unix socket."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from ingress.gateway import (
    STREAM_HEAD,
    Gateway,
    Peer,
    Scripted,
    Upstreams,
    alias,
    event,
    eventually,
    provider,
    request,
    running,
    server,
    snapshot,
    start,
)
from llm_gateway.config.snapshot import Listener, ListenerTls
from llm_gateway.ingress import proxy
from llm_gateway.ingress.server import Server

PLAIN, TLS, MTLS, PROXY, PROXY_TLS, UNIX = range(6)
V2 = proxy.SIGNATURE
ADDRESSES = socket.inet_aton("203.0.113.7") + socket.inet_aton("10.0.0.1") + struct.pack(">HH", 1234, 443)
ADDRESSES6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack(">HH", 1234, 443)


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2 + bytes([0x20 | command, family]) + struct.pack(">H", len(body)) + body


GOOD = {
    "v1 TCP4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 1234 443\r\n", "203.0.113.7"),
    "v1 TCP6": (b"PROXY TCP6 2001:db8::7 ::1 1234 443\r\n", "2001:db8::7"),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1 UNKNOWN with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
    "v2 TCP4": (v2(1, 0x11, ADDRESSES), "203.0.113.7"),
    "v2 TCP4 with a TLV": (v2(1, 0x11, ADDRESSES + b"\x04\0\3abc"), "203.0.113.7"),
    "v2 TCP6": (v2(1, 0x21, ADDRESSES6), "2001:db8::7"),
    "v2 LOCAL": (v2(0, 0x00, b""), "127.0.0.1"),
    "v2 LOCAL with addresses": (v2(0, 0x11, ADDRESSES), "127.0.0.1"),
}
BAD = {
    "none": b"POST / HTTP/1.1\r\n",
    "v1 with a bad address": b"PROXY TCP4 203.0.113.777 10.0.0.1 1 2\r\n",
    "v1 with a missing word": b"PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
    "v1 of another family": b"PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
    "v1 without end": b"PROXY TCP4 " + b"1" * 200,
    "v2 of version 1": V2 + bytes([0x11, 0x11]) + struct.pack(">H", 12) + ADDRESSES,
    "v2 with command 5": v2(5, 0x11, ADDRESSES),
    "v2 too short for its family": v2(1, 0x21, ADDRESSES),
    "v2 too long": v2(1, 0x11, b"\0" * 5000),
    "v2 signature broken at its end": V2[:-1] + b"X" + bytes(20),
}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("pki")
    authority, clients = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    clients.cert_pem.write_to_path(folder / "clients.pem")
    issue(authority, folder, "gateway.test")
    return SimpleNamespace(folder=folder, authority=authority, clients=clients, own=clients.issue_cert("client@x"))


def issue(authority: trustme.CA, folder: Path, name: str) -> None:
    certificate = authority.issue_cert(name, "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")


@pytest.fixture(scope="module")
def listening(
    upstreams: Upstreams, scripted: Scripted, pki: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("listening")
    files = (str(pki.folder / "cert.pem"), str(pki.folder / "key.pem"))
    listeners = (
        Listener(host="127.0.0.1", port=1),
        Listener(host="127.0.0.1", port=1, tls=ListenerTls(*files)),
        Listener(host="127.0.0.1", port=1, tls=ListenerTls(*files, str(pki.folder / "clients.pem"))),
        Listener(host="127.0.0.1", port=1, proxy_protocol=True),
        Listener(host="127.0.0.1", port=1, proxy_protocol=True, tls=ListenerTls(*files)),
        Listener(port=None, path=str(folder / "gateway.sock")),
    )
    told = snapshot(
        folder,
        (provider("faulty", upstreams.faulty.url), provider("scripted", scripted.url, silence=30.0)),
        aliases=(alias("good", "faulty/m"),),
        server=server(listeners=listeners, trusted_proxies=("127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32")),
    )
    with running(told) as started:
        yield started


def secured(peer: Peer, pki: SimpleNamespace, *, certificate: bool = False) -> Peer:
    context = ssl.create_default_context(cafile=str(pki.folder / "ca.pem"))
    if certificate:
        pki.own.configure_cert(context)
    return Peer(context.wrap_socket(peer.sock, server_hostname="127.0.0.1"))


def name(peer: Peer) -> str:
    names: list[tuple[str, str]] = peer.sock.getpeercert()["subjectAltName"]  # type: ignore[attr-defined]
    return next(value for kind, value in names if kind == "DNS")


def peer_of(gateway: Gateway, client: Peer, request_id: str, *headers: str) -> str:
    """Which client address a request was booked under."""
    client.send(request("good", headers=(f"X-Request-ID: {request_id}", *headers)))
    assert client.reply().status == 200
    return str(gateway.row(request_id)["peer"])


# -- TLS -----------------------------------------------------------------------------------------------------------------


def test_tls_serves_plain_and_streams(listening: Gateway, pki: SimpleNamespace):
    with secured(listening.connect(TLS), pki) as client:
        for stream in (False, True, True):
            client.send(request("good", stream=stream))
            assert client.reply().status == 200


def test_a_tls_client_can_read_its_413_while_it_still_sends(listening: Gateway, pki: SimpleNamespace):
    with secured(listening.connect(TLS), pki) as client:
        client.send(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: sk-wire\r\nContent-Length: 9000000\r\n\r\n")
        client.send(*[b"x" * 1_000_000] * 9)
        assert client.reply().status == 413
        assert client.gone()


def test_a_tls_client_that_never_reads_is_paused_and_cut(listening: Gateway, pki: SimpleNamespace, scripted: Scripted):
    taken = []

    def play(upstream: Peer) -> None:
        upstream.reply()
        upstream.send(STREAM_HEAD)
        for _ in range(20_000):
            upstream.send(event("y" * 8000))
            taken.append(8000)

    scripted.play = play
    before = listening.rss()
    with secured(listening.connect(TLS), pki) as client:
        client.send(request("scripted/m", stream=True, headers=("X-Request-ID: tls-never",)))
        time.sleep(0.8)
        assert 0 < sum(taken) < 16 << 20
        assert listening.rss() - before < 6 << 20
        assert listening.row("tls-never")["status"] == 499  # send_timeout


def test_plain_bytes_on_a_tls_port_get_no_answer_and_harm_nobody(listening: Gateway, pki: SimpleNamespace):
    with listening.connect(TLS) as client:
        client.send(request("good"))
        with contextlib.suppress(ConnectionError):
            assert b"HTTP/1.1" not in client.all()
    test_tls_serves_plain_and_streams(listening, pki)


def test_a_new_certificate_is_served_without_restart_and_open_connections_live(
    listening: Gateway, pki: SimpleNamespace
):
    with secured(listening.connect(TLS), pki) as old:
        assert name(old) == "gateway.test"
        # A certificate without its key first, as when files are written one after the other.
        fresh = pki.authority.issue_cert("renewed.test", "127.0.0.1")
        fresh.cert_chain_pems[0].write_to_path(pki.folder / "cert.pem")
        time.sleep(1.2)
        with secured(listening.connect(TLS), pki) as meanwhile:
            assert name(meanwhile) == "gateway.test"
        fresh.private_key_pem.write_to_path(pki.folder / "key.pem")

        def renewed() -> bool:
            with secured(listening.connect(TLS), pki) as new:
                return name(new) == "renewed.test"

        eventually(renewed)
        old.send(request("good"))
        assert old.reply().status == 200


def test_mtls_wants_a_client_certificate_of_its_own_authority(listening: Gateway, pki: SimpleNamespace):
    with secured(listening.connect(MTLS), pki, certificate=True) as client:
        client.send(request("good"))
        assert client.reply().status == 200
    with secured(listening.connect(MTLS), pki) as client:  # TLS 1.3: the refusal comes after the client's handshake
        assert client.gone()


def test_a_tls_handshake_that_never_comes_is_ended(listening: Gateway):
    with listening.connect(TLS) as client, listening.connect(PROXY_TLS) as other, listening.connect(PROXY) as third:
        other.send(GOOD["v2 TCP4"][0])
        third.send(b"PROXY ")
        assert client.gone()
        assert other.gone()
        assert third.gone()


@pytest.fixture(scope="module")
def crowded(upstreams: Upstreams, pki: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """100 connections."""
    tls = ListenerTls(str(pki.folder / "cert.pem"), str(pki.folder / "key.pem"))
    kinds: list[dict[str, Any]] = [{}, {"tls": tls}, {"proxy_protocol": True}, {"proxy_protocol": True, "tls": tls}]
    listeners = tuple(Listener(host="127.0.0.1", port=1, **kind) for kind in kinds)
    limits = server(listeners=listeners, max_connections=100, header_timeout=3.0, idle_timeout=30.0)
    told = snapshot(tmp_path_factory.mktemp("crowded"), (provider("faulty", upstreams.faulty.url),), server=limits)
    with running(told) as started:
        yield started


@pytest.mark.parametrize(("listener", "said"), [(1, b""), (1, b"\x16"), (2, b"PROXY "), (3, b""), (3, GOOD["v2 TCP4"][0])])
def test_connections_that_are_none_yet_count_as_connections(crowded: Gateway, pki: SimpleNamespace, listener: int, said: bytes):
    before = crowded.descriptors()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(crowded.connect())
        first.send(request("faulty/m"))
        assert first.reply().status == 200
        peers = [stack.enter_context(crowded.connect(listener)) for _ in range(400)]
        for peer in peers:
            with contextlib.suppress(ConnectionError):
                peer.send(said)
        eventually(lambda: crowded.descriptors() - before <= 100 + 32 + 4, 2)
        first.send(request("faulty/m"))
        assert first.reply().status == 200
        eventually(lambda: crowded.descriptors() - before <= 10, 6)  # header_timeout
        with secured(crowded.connect(1), pki) as client:
            client.send(request("faulty/m"))
            assert client.reply().status == 200
    refused = crowded.ask(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert refused.status == 200


@pytest.mark.parametrize("listener", [0, 1])
def test_a_listener_without_descriptors_waits_for_some_and_does_not_spin(upstreams: Upstreams, pki: SimpleNamespace, tmp_path: Path, listener: int):
    tls = ListenerTls(str(pki.folder / "cert.pem"), str(pki.folder / "key.pem"))
    listeners = (Listener(host="127.0.0.1", port=1), Listener(host="127.0.0.1", port=1, tls=tls))
    gateway = start(snapshot(tmp_path, (provider("faulty", upstreams.faulty.url),), server=server(listeners=listeners)))
    try:
        pid, before = gateway.process.pid, resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
        time.sleep(0.5)  # for what it imports beside serving
        taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(1000)) - taken), before[1]))
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(gateway.connect(listener)) for _ in range(3)]
            time.sleep(0.2)
            used = cpu(pid)
            time.sleep(1.0)
            assert cpu(pid) - used < 0.3
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            with secured(peers[-1], pki) if listener else gateway.connect() as client:
                client.send(request("faulty/m"))
                assert client.reply().status == 200
        assert (tmp_path / "stderr").read_text().count("Error") <= 5, "it says so once a second"
    finally:
        gateway.stop()


def cpu(pid: int) -> float:
    """Seconds of user and system time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


HELLO = b"\x16\x03\x01"
LEFT = [(1, b""), (1, HELLO), (1, b"GET / HTTP/1.1\r\n\r\n"), (2, b"PROXY"), (3, b""), (3, GOOD["v2 TCP4"][0]), (3, GOOD["v2 TCP4"][0] + HELLO)]


@pytest.mark.parametrize(("listener", "said"), LEFT)
def test_who_leaves_before_anything_was_said_is_no_error(crowded: Gateway, listener: int, said: bytes):
    with crowded.connect(listener) as client:
        client.send(said)
        time.sleep(0.05)
    time.sleep(0.1)
    assert (crowded.folder / "stderr").read_text() == ""


def test_who_was_accepted_while_draining_may_end_its_handshake(upstreams: Upstreams, pki: SimpleNamespace, tmp_path: Path):
    tls = ListenerTls(str(pki.folder / "cert.pem"), str(pki.folder / "key.pem"))
    limits = server(listeners=(Listener(host="127.0.0.1", port=1, tls=tls),), lame_duck=0.2, header_timeout=5.0)
    gateway = start(snapshot(tmp_path, (provider("faulty", upstreams.faulty.url),), server=limits))
    try:
        with gateway.connect() as client:
            gateway.process.send_signal(signal.SIGTERM)
            time.sleep(0.6)
            with secured(client, pki) as peer:
                peer.send(request("faulty/m"))
                assert peer.reply().status == 200
        assert gateway.process.wait(5) == 0
    finally:
        gateway.stop()


# -- PROXY ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOOD)
def test_a_proxy_head_says_who_the_client_is(listening: Gateway, case: str):
    head, address = GOOD[case]
    with listening.connect(PROXY) as client:
        client.send(head)
        assert peer_of(listening, client, f"head-{case.replace(' ', '-')}") == address


def test_a_proxy_head_may_be_cut_anywhere_and_come_with_the_request(listening: Gateway):
    for case, (head, address) in GOOD.items():
        for at in range(0, len(head) + 1, 1 if case in ("v1 TCP4", "v2 TCP4 with a TLV") else 7):
            with listening.connect(PROXY) as client:
                data = head + b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
                client.drip(data, at)
                assert client.reply().status == 200, (case, at, address)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_proxy_head_ends_the_connection(listening: Gateway, case: str):
    with listening.connect(PROXY) as client:
        client.send(BAD[case])
        assert client.gone()


def test_tls_begins_behind_the_proxy_head(listening: Gateway, pki: SimpleNamespace):
    for at in (0, 5, 20):
        head = GOOD["v2 TCP4"][0]
        with listening.connect(PROXY_TLS) as raw:
            raw.send(head[:at])
            time.sleep(0.01)
            raw.send(head[at:])
            with secured(raw, pki) as client:
                assert peer_of(listening, client, f"tls-behind-{at}") == "203.0.113.7"
                client.send(request("good", stream=True))
                assert client.reply().status == 200


@pytest.mark.parametrize("case", GOOD)
def test_reading_a_proxy_head_never_asks_for_more_than_its_end(case: str):
    head, _ = GOOD[case]
    for size in range(len(head)):
        assert 1 <= proxy.needed(head[:size]) <= len(head) - size
    assert proxy.needed(head) == 0


def test_a_proxy_head_of_a_stranger_says_nothing(upstreams: Upstreams, tmp_path: Path):
    """Else whoever reaches the port is whom he says he is, also for keys that are bound to addresses."""
    limits = server(listeners=(Listener(host="127.0.0.1", port=1, proxy_protocol=True),), trusted_proxies=("10.0.0.1/8",))
    with running(snapshot(tmp_path, (provider("faulty", upstreams.faulty.url),), aliases=(alias("good", "faulty/m"),), server=limits)) as gateway:
        for at, case in enumerate(("v1 TCP4", "v2 TCP4")):
            with gateway.connect() as client:
                client.send(GOOD[case][0])
                assert peer_of(gateway, client, f"stranger-{at}", "X-Forwarded-For: 198.51.100.9") == "127.0.0.1"


# -- who is asking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "address"),
    [
        ("198.51.100.9", "198.51.100.9"), ("198.51.100.9, 10.1.2.3", "198.51.100.9"), ("1.1.1.1, 198.51.100.9, 10.1.2.3, 127.0.0.1", "198.51.100.9"),
        ("garbage", "127.0.0.1"), ("198.51.100.9, garbage, 10.1.2.3", "10.1.2.3"), ("", "127.0.0.1"), ("10.9.9.9", "10.9.9.9"),
        ("2001:db9::1", "2001:db9::1"), ("198.51.100.9:4711", "127.0.0.1"),
    ],
)  # fmt: skip
def test_forwarded_for_is_read_from_the_right_as_far_as_we_trust(listening: Gateway, header: str, address: str):
    with listening.connect() as client:
        assert peer_of(listening, client, f"forwarded-{abs(hash(header))}", f"X-Forwarded-For: {header}") == address


def test_forwarded_for_of_a_stranger_is_ignored(gateway: Gateway):
    with gateway.connect() as client:
        assert peer_of(gateway, client, "stranger", "X-Forwarded-For: 198.51.100.9") == "127.0.0.1"


def test_forwarded_for_behind_a_proxy_head_counts_only_if_that_client_is_trusted(listening: Gateway):
    with listening.connect(PROXY) as client:
        client.send(GOOD["v1 TCP4"][0])
        assert peer_of(listening, client, "proxied-stranger", "X-Forwarded-For: 198.51.100.9") == "203.0.113.7"


def test_an_ipv4_peer_of_a_dual_stack_socket_is_trusted_like_itself():
    """Such a socket names it ::ffff:10.0.0.1."""
    trusting = Server(
        server(trusted_proxies=("10.0.0.0/8",)), start=lambda _: pytest.fail("nothing to start"), prefix="x"
    )
    assert trusting.forwarded(b"198.51.100.9, ::ffff:10.0.0.1", "x") == "198.51.100.9"
    assert trusting.forwarded(b"198.51.100.9, ::ffff:11.0.0.1", "x") == "::ffff:11.0.0.1"


def test_a_unix_socket_serves_and_is_trusted(listening: Gateway):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(listening.folder / "gateway.sock"))
    with Peer(sock) as client:
        assert peer_of(listening, client, "unix") == "unix"
        assert peer_of(listening, client, "unix-forwarded", "X-Forwarded-For: 198.51.100.9") == "198.51.100.9"
