"""Row 17: upstreams whose certificate is nobody's, expired or another's."""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from faults.conftest import Seen
from faults.house import Gateway, House, Upstream

WRONG = ["untrusted", "expired", "another"]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def upstreams(block: House, authority: trustme.CA) -> dict[str, Upstream]:
    day = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    leaves = {
        "good": authority.issue_cert("localhost"),
        "untrusted": trustme.CA().issue_cert("localhost"),
        "expired": authority.issue_cert("localhost", not_before=day, not_after=day + dt.timedelta(days=30)),
        "another": authority.issue_cert("another.example"),
    }
    made = {}
    for name, leaf in leaves.items():
        chain = block.folder / f"{name}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(str(chain))
        made[name] = block.upstream(cert=chain)
    return made


class Plain:
    """Listens where https is expected, speaks none, and keeps what it was sent."""

    def __init__(self) -> None:
        self.heard = b""
        self.server = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            with sock:
                self.heard += sock.recv(65536)
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.fixture(scope="module")
def plain() -> Plain:
    return Plain()


@pytest.fixture(scope="module")
def gateway(block: House, authority: trustme.CA, upstreams: dict[str, Upstream], plain: Plain) -> Gateway:
    ca: Path = block.folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    ports = {name: each.port for name, each in upstreams.items()} | {"plain": plain.server.getsockname()[1]}
    return block.gateway(
        {name: {"base_url": f"https://localhost:{port}", "tls": {"ca": str(ca)}} for name, port in ports.items()},
        models={f"{name}-first": {"targets": [f"{name}/ok"], "fallbacks": ["good/ok"]} for name in [*WRONG, "plain"]},
    )


@pytest.mark.row(17)
@pytest.mark.parametrize("wrong", [*WRONG, "plain"])
def test_what_cannot_be_verified_gets_no_request(
    gateway: Gateway, upstreams: dict[str, Upstream], plain: Plain, seen: Seen, wrong: str
) -> None:
    """https upstreams: signed by an unknown CA, expired, for another name, and one that speaks no TLS at all."""
    answer = gateway.ask(f"{wrong}/ok")
    assert answer.status == 502
    assert answer.code in ("upstream_tls", "upstream_connect")
    over = gateway.ask(f"{wrong}-first")
    assert (over.status, over.headers["x-gateway-provider"]) == (200, "good")
    if wrong == "plain":
        assert b"sk-upstream" not in plain.heard
        assert b"POST" not in plain.heard
    seen(f"`{wrong}`: 502 `{answer.code}` after {1e3 * answer.seconds:.0f} ms, no byte of the request sent; the fallback answers")


@pytest.mark.row(17)
def test_no_request_went_to_any_of_them(gateway: Gateway, upstreams: dict[str, Upstream], seen: Seen) -> None:
    """Their own logs, read by a client that verifies nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name in WRONG:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", upstreams[name].port), 5)) as sock:
            sock.sendall(b"GET /seen HTTP/1.1\r\nHost: a\r\n\r\n")
            reply = b""
            while b"}" not in reply.partition(b"\r\n\r\n")[2] or not reply.endswith(b"}"):
                reply += sock.recv(65536)
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["models"] == {}, name
    seen("the three upstreams were asked afterwards: not one request reached them")
