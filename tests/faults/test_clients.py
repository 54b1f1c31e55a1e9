"""Rows 19 to 21: clients that leave, never read, or come one byte at a time."""

from __future__ import annotations

import json
import select
import socket
import threading
import time

import pytest

from faults.conftest import Seen
from faults.house import KEY, Gateway, House, Upstream, percentile
from processes import eventually


@pytest.fixture(scope="module")
def upstream(block: House) -> Upstream:
    return block.upstream()


@pytest.fixture(scope="module")
def gateway(block: House, upstream: Upstream) -> Gateway:
    return block.gateway({"up": upstream.url}, server={"send_timeout_seconds": 2, "header_timeout_seconds": 3, "body_timeout_seconds": 3})


@pytest.mark.row(19)
def test_a_client_gone_mid_stream_ends_the_upstream_and_is_billed_once(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """The client closes its socket after some events of a stream that goes on for long."""
    before = upstream.seen()["left"]
    sock = gateway.opened("up/fault-paced:1000,0.02", headers="X-Request-ID: row-19\r\n")
    got = b""
    while got.count(b"data: ") < 3:
        got += sock.recv(65536)
    sock.close()
    left = time.perf_counter()
    eventually(lambda: upstream.seen()["left"] == before + 1)
    took = time.perf_counter() - left
    row = gateway.row("row-19")
    time.sleep(0.3)
    assert gateway.row("row-19") == row
    assert (row["status"], row["outcome"], row["estimated"]) == (499, "client_closed_request", True)
    assert row["output"] > 0
    seen(f"the upstream's connection closed {1e3 * took:.0f} ms later; one row, status 499, {row['output']} tokens estimated from what was sent")
    assert took < 1


@pytest.mark.row(20)
@pytest.mark.slow
def test_a_client_that_never_reads_costs_nothing_and_is_cut(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """20 clients ask for streams of 400 MB each, read nothing, and hold a small receive buffer; the send limit is 2 s."""
    gateway.ask("up/ok")
    base, before = gateway.rss(), upstream.seen()
    socks = []
    for number in range(20):
        body = json.dumps({"model": "up/fault-paced:50000,0,8000", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.connect(("127.0.0.1", gateway.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nX-Request-ID: row-20-{number}\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        socks.append(sock)
    began, most = time.perf_counter(), 0.0
    while upstream.seen()["left"] < before["left"] + 20:
        most = max(most, gateway.rss() - base)
        assert time.perf_counter() - began < 20
        time.sleep(0.05)
    cut = time.perf_counter() - began
    written = upstream.seen()["written"] - before["written"]
    for sock in socks:
        sock.close()
    assert {gateway.row(f"row-20-{number}")["status"] for number in range(20)} == {499}
    seen(f"all 20 cut after {cut:.1f} s; RSS at most {most:+.1f} MB; the upstream was let write {written / 20e6:.2f} MB for each of 400")
    assert most < 20 * 0.3 + 10
    assert written < 20 * 40e6


def dripping(gateway: Gateway, count: int, stop: threading.Event, statuses: list[int]) -> None:
    """Half send their head, half their body, a byte every 200 ms, each again when it was refused."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100000\r\n\r\n".encode()
    poll, clients = select.epoll(), dict[int, tuple[socket.socket, bool, list[int]]]()

    def begin(bodily: bool) -> None:
        sock = socket.create_connection(("127.0.0.1", gateway.port))
        if bodily:
            sock.sendall(head)
        clients[sock.fileno()] = (sock, bodily, [0])
        poll.register(sock, select.EPOLLIN)

    for number in range(count):
        begin(bool(number % 2))
    while not stop.is_set():
        end = time.monotonic() + 0.2
        while (wait := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(wait):
                sock, bodily, _ = clients.pop(fd)
                poll.unregister(fd)
                try:
                    statuses.append(int(sock.recv(4096)[9:12] or b"0"))
                except OSError:
                    statuses.append(0)
                sock.close()
                if not stop.is_set():
                    begin(bodily)
        for sock, bodily, at in list(clients.values()):
            try:
                if not bodily:
                    sock.sendall(head[at[0] % 100 : at[0] % 100 + 1])
                elif at[0] < 5:  # then silent: a body may drip, a gap of 3 s may not be
                    sock.sendall(b"x")
            except OSError:
                continue
            at[0] += 1
    for sock, _, _ in clients.values():
        sock.close()


@pytest.mark.row(21)
@pytest.mark.slow
def test_five_hundred_slow_clients_are_nobody_elses_trouble(gateway: Gateway, seen: Seen) -> None:
    """500 clients whose heads and bodies come a byte every 200 ms, each back at once when refused; one other client asks as ever."""

    def others(seconds: float) -> list[float]:
        found, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            answer = gateway.ask("up/ok")
            assert answer.status == 200
            found.append(answer.seconds)
        return found

    others(2)
    rounds = []
    for _ in range(3):  # noisy machines: the best of three rounds counts, each with a quiet half beside it
        quiet = others(4)
        statuses: list[int] = []
        stop = threading.Event()
        thread = threading.Thread(target=dripping, args=(gateway, 500, stop, statuses))
        thread.start()
        eventually(lambda: gateway.metric("llm_gateway_open_connections") > 400)
        busy = others(6)
        stop.set()
        thread.join()
        eventually(lambda: gateway.metric("llm_gateway_open_connections") < 100)
        rounds.append((percentile(busy, 0.99), percentile(quiet, 0.99), percentile(busy, 0.5), percentile(quiet, 0.5), statuses))
    busy99, quiet99, busy50, quiet50, statuses = min(rounds, key=lambda each: each[0] / each[1])
    assert 408 in statuses
    assert set(statuses) <= {408, 0}
    seen(f"others' p99 {1e3 * quiet99:.1f} ms quiet, {1e3 * busy99:.1f} ms with 500 slow clients ({busy99 / quiet99:.2f} times; all rounds "
         f"{', '.join(f'{b / q:.2f}' for b, q, *_ in rounds)}), median {1e3 * quiet50:.1f} and {1e3 * busy50:.1f}; {statuses.count(408)} times 408")
    assert busy99 < 2 * quiet99 + 0.005
