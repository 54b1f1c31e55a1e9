"""Time, memory and counts: every limit of a connection, with the client that runs into it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from ingress.gateway import (
    KEY,
    STREAM_HEAD,
    Gateway,
    Peer,
    Scripted,
    Upstreams,
    completion,
    event,
    eventually,
    provider,
    request,
    running,
    server,
    snapshot,
)

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n".encode()
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


class Taking:
    """An upstream that streams for ever and counts what is taken from it; `gone` when the gateway left."""

    def __init__(self) -> None:
        self.taken = 0
        self.gone = False

    def __call__(self, upstream: Peer) -> None:
        upstream.reply()
        upstream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 10)
        upstream.send(STREAM_HEAD)
        piece = event("y" * 8000)
        try:
            while True:
                upstream.send(piece)
                self.taken += len(piece)
        except ConnectionError:
            self.gone = True


LATE = [
    b"POST /v1/chat", HEAD, HEAD + b"X-A: ", HEAD + b"Content-Length: 10\r\n\r\n12345",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5",
]  # fmt: skip


def test_what_does_not_arrive_in_time_is_408(gateway: Gateway):
    """All at once, because each takes its time."""
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        for sent in LATE:
            client = stack.enter_context(gateway.connect())
            client.send(sent)
            stack.callback(lambda client=client: _late(client, began))


def _late(client: Peer, began: float) -> None:
    assert client.reply().status == 408
    assert 0.6 < time.monotonic() - began < 2.6
    assert client.all() == b""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"Content-Length: 10\r\n\r\n12345", 408), (b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-A: trailer\r\n\r\n", 400),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/messages", ["type", "error", "request_id"]), ("/model/m/converse", ["message"]), ("/v1/chat/completions", ["error"]),
        ("/v1beta/models/m:generateContent", ["error"]),
    ],
)  # fmt: skip
def test_a_body_that_does_not_come_is_told_in_the_shape_of_the_api_and_to_whom_it_belongs(gateway: Gateway, path, shape, body, status):
    """Its head was read, so that it is known who asks for what."""
    asked = f"late{path}{len(body)}".replace("/", "-").replace(":", "-")
    reply = gateway.ask(f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nX-Request-ID: {asked}\r\n".encode() + body)
    assert (reply.status, list(reply.json()), reply.headers["x-request-id"], reply.headers["connection"]) == (status, shape, asked, "close")
    if "v1beta" in path:
        assert reply.json()["error"]["code"] == status
    row = gateway.row(asked)
    assert (row["method"], row["status"], row["route"] != "other", row["tenant"]) == ("POST", status, True, "default")


def test_what_is_no_http_is_told_in_the_shape_of_its_path(gateway: Gateway):
    reply = gateway.ask(b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (reply.status, list(reply.json())) == (400, ["type", "error", "request_id"])


def test_a_dripped_head_is_408_and_a_dripped_body_is_not(gateway: Gateway):
    data = request("good")
    cut = data.index(b"\r\n\r\n") + 10
    with gateway.connect() as head, gateway.connect() as body, contextlib.suppress(ConnectionError):
        body.send(data[:cut])
        for at in range(20):
            with contextlib.suppress(ConnectionError):
                head.send(HEAD[at : at + 1])
            body.send(data[cut + at : cut + at + 1])
            time.sleep(0.12)
        body.send(data[cut + 20 :])
        assert body.reply().status == 200
        assert head.reply().status == 408


def test_the_next_heads_first_bytes_do_not_make_it_late_while_a_reply_is_served(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("faulty/fault-ok:0.4", stream=True) + HEALTH[:20])
        assert client.reply().status == 200
        time.sleep(0.7)  # a sweep comes by
        client.send(HEALTH[20:])
        assert client.reply().status == 200


def test_an_idle_connection_is_closed_quietly(gateway: Gateway):
    with gateway.connect() as fresh, gateway.connect() as used:
        used.send(HEALTH)
        used.reply()
        began = time.monotonic()
        assert fresh.all() == used.all() == b""
        assert 1.5 < time.monotonic() - began < 4


def test_a_refused_body_that_never_comes_ends_the_connection_without_another_answer(gateway: Gateway):
    with gateway.connect() as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        assert client.reply().status == 401
        with contextlib.suppress(ConnectionError):
            assert client.all() == b""


# -- slow readers and those who leave ------------------------------------------------------------------------------------


def test_a_client_that_never_reads_stops_the_upstream_costs_little_and_is_cut(gateway: Gateway, scripted: Scripted):
    scripted.play = taking = Taking()
    before = gateway.rss()
    with gateway.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(request("scripted/m", stream=True, path="/v1/chat/completions", headers=("X-Request-ID: never",)))
        eventually(lambda: taking.taken)
        time.sleep(0.8)
        assert (
            taking.taken < 12 << 20
        )  # what the kernel's buffers hold, which grow; unpaused it would be hundreds of MB
        assert gateway.rss() - before < 4 << 20
        eventually(lambda: taking.gone, 3)  # send_timeout
    assert gateway.row("never")["status"] == 499


def test_a_client_that_reads_a_large_reply_slowly_but_all_the_time_gets_it_whole(gateway: Gateway, scripted: Scripted):
    whole = completion("y" * (10 << 20))
    scripted.play = lambda upstream: (upstream.reply(), upstream.send(whole))[0]
    with gateway.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.send(request("scripted/m"))
        began, got = time.monotonic(), 0
        while not client.rest.endswith(b"}"):
            data = client.sock.recv(100_000)
            assert data, f"cut after {time.monotonic() - began:.1f} s and {got} bytes"
            got += len(data)
            client.rest = (client.rest + data)[-100:]
            time.sleep(0.03)
        assert time.monotonic() - began > 3, "much longer than send_timeout"
        assert got > len(whole)


def test_a_client_that_reads_again_gets_everything(gateway: Gateway, scripted: Scripted):
    count = 3000

    def play(upstream: Peer) -> None:
        upstream.reply()
        upstream.send(STREAM_HEAD, *[event(f"{n:05}" + "y" * 4000) for n in range(count)], b"0\r\n\r\n")

    scripted.play = play
    with gateway.connect() as client:
        client.send(request("scripted/m", stream=True))
        time.sleep(0.6)  # 12 MB do not fit any buffer: the gateway has paused
        with pytest.raises(EOFError) as ended:  # it never said that it had finished
            client.reply()
        events = ended.value.args[0].split(b"\n\n")
        texts = [json.loads(each[6:])["choices"][0]["delta"]["content"][:5] for each in events if b'"choices"' in each]
        assert texts == [f"{n:05}" for n in range(count)]


@pytest.mark.parametrize(
    ("fault", "stream"),
    [("stall", False), ("stall", True), ("stall_after_head", True), ("stall_midstream", True)],
)
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_client_that_leaves_frees_the_upstream_within_a_second(
    gateway: Gateway, upstreams: Upstreams, fault, stream, how
):
    name = f"left-{fault}-{stream}-{how}"
    upstreams.faulty.gone.clear()
    with gateway.connect() as client:
        client.send(request(f"faulty/fault-{fault}", stream=stream, headers=(f"X-Request-ID: {name}",)))
        if fault == "stall_midstream":
            client.until(b"three")
        eventually(lambda: upstreams.faulty.open)
        time.sleep(0.05)
        client.reset() if how == "rst" else client.close()
    eventually(upstreams.faulty.gone.is_set, 1.0)
    row = gateway.row(name)
    assert (row["status"], row["outcome"]) == (499, "client_closed_request")
    assert row.get("estimated", False) == (fault == "stall_midstream")  # what was sent is billed, what was not is not
    if fault == "stall_midstream":
        assert row["output"] > 0


def test_a_client_that_leaves_while_connecting_or_waiting_to_retry_is_forgotten(
    gateway: Gateway, upstreams: Upstreams, full: int
):
    """`full`: a port whose backlog is full, so that connecting hangs."""
    before = len(upstreams.faulty.received)
    for name, model in (("left-connecting", "hanging/m"), ("left-retrying", "again/fault-status:503,retry-after=1")):
        with running_hanging(gateway, upstreams, full) as other, other.connect() as client:
            client.send(request(model, headers=(f"X-Request-ID: {name}",)))
            time.sleep(0.3)
            client.close()
            assert other.row(name)["status"] == 499
            time.sleep(0.8 if model.startswith("again") else 0)
    assert len(upstreams.faulty.received) - before == 1


@contextlib.contextmanager
def running_hanging(gateway: Gateway, upstreams: Upstreams, full: int) -> Iterator[Gateway]:
    folder = gateway.folder / f"hanging{time.monotonic_ns()}"
    folder.mkdir()
    hanging = provider("hanging", f"http://127.0.0.1:{full}", connect_timeout=5.0)
    with running(snapshot(folder, (hanging, provider("again", upstreams.faulty.url, max_retries=2)))) as other:
        yield other


@pytest.fixture
def full() -> Iterator[int]:
    sock = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(4):
        each = socket.socket()
        each.setblocking(False)
        each.connect_ex(sock.getsockname())
        waiting.append(each)
    yield sock.getsockname()[1]
    for each in (*waiting, sock):
        each.close()


# -- counts and memory ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """100 connections, 300 kB of bodies."""
    folder = tmp_path_factory.mktemp("small")
    limits = server(max_connections=100, body_memory=300_000, idle_timeout=30.0, body_timeout=5.0)
    with running(snapshot(folder, (provider("faulty", upstreams.faulty.url),), server=limits)) as started:
        yield started


@pytest.fixture(scope="module")
def few(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """10 streams."""
    folder = tmp_path_factory.mktemp("few")
    with running(snapshot(folder, (provider("faulty", upstreams.faulty.url, silence=20.0),), server=server(max_streams=10))) as started:
        yield started


def test_over_92_percent_keep_alive_ends_and_over_95_connections_are_refused(small: Gateway):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(small.connect()) for _ in range(92)]
        peers[0].send(HEALTH)
        assert "connection" not in peers[0].reply().headers
        more = [stack.enter_context(small.connect()) for _ in range(3)]
        more[0].send(HEALTH)
        assert more[0].reply().headers["connection"] == "close"
        assert more[0].all() == b""
        eventually(lambda: _status(small) == 200)
        rest = [stack.enter_context(small.connect()) for _ in range(4)]
        rest[-1].send(request("faulty/m"))
        refused = rest[-1].reply()
        assert (refused.status, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
        rest[-2].send(HEALTH)
        assert rest[-2].reply().status == 200
        peers[1].send(request("faulty/m"))  # who was here before goes on
        assert peers[1].reply().status == 200
        beyond = [stack.enter_context(small.connect()) for _ in range(8)]
        assert beyond[-1].reply().status == 503  # without a word
    eventually(lambda: _status(small) == 200)


def test_streams_are_bounded_and_others_go_on(few: Gateway):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(few.connect()) for _ in range(40)]
        for peer in peers:  # at once: none is connected upstream when the last is judged
            peer.send(request("faulty/fault-stall_midstream", stream=True))
        heads = [peer.until(b"\r\n\r\n")[9:12] for peer in peers]
        assert (heads.count(b"200"), heads.count(b"503")) == (9, 31)
        refused = few.ask(request("faulty/m", stream=True))
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert few.ask(request("faulty/m")).status == 200
        eventually(lambda: few.ask(request("faulty/m")).headers.get("connection") == "close", 3)
    eventually(lambda: few.ask(request("faulty/m", stream=True)).status == 200)


def _status(gateway: Gateway) -> int:
    return gateway.ask(HEALTH).status


def test_bodies_count_until_their_reply_is_over_and_too_many_are_refused(small: Gateway):
    big = request("faulty/fault-stall:0.8", padding="x" * 200_000)
    with small.connect() as first, small.connect() as second:
        first.send(big)
        time.sleep(0.15)
        second.send(big)
        reply = second.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        first.reply()
    for _ in range(6):  # nothing leaked: bodies of refused, failed, finished and left requests are all given back
        assert small.ask(request("faulty/m", padding="x" * 200_000)).status == 200
        with small.connect() as client:
            client.send(big)
        with small.connect() as client:
            client.send(big[:150_000])
        with small.connect() as client:
            client.send(big[:100_000].replace(b"Content-Length", b"Transfer-Encoding: x\r\nContent-Length"))
            assert client.reply().status == 400
        time.sleep(0.05)


def test_long_names_of_models_stay_nowhere(gateway: Gateway):
    """A provider takes any name, and what is known of it is kept: not of one that is most of the body."""
    assert gateway.ask(request("down/x")).status == 502
    before, log = gateway.rss(), (gateway.folder / "access.log").stat().st_size
    for number in range(12):
        reply = gateway.ask(request(f"down/{'x' * (512 << 10)}{number}", headers=(f"X-Request-ID: named-{number}",)))
        assert (reply.status, reply.json()["error"]["param"]) == (400, "model")
    assert "model" not in gateway.row("named-11")
    assert gateway.rss() - before < 6 << 20
    assert (gateway.folder / "access.log").stat().st_size - log < 64 << 10


def test_what_a_refusal_repeats_and_how_an_upstream_ends_is_cut_in_rows_and_log(gateway: Gateway, scripted: Scripted):
    long = "x" * (512 << 10)

    def play(upstream: Peer) -> None:
        upstream.reply()
        body = completion().partition(b"\r\n\r\n")[2].replace(b'"stop"', b'"%b"' % (b"x" * 1000))
        upstream.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    scripted.play = play
    log = (gateway.folder / "access.log").stat().st_size
    role = [{"role": long, "content": "hi"}]
    reply = gateway.ask(request("down/x", path="/v1/messages", messages=role, headers=("X-Request-ID: said-long",)))
    assert (reply.status, reply.json()["type"]) == (400, "error")
    assert gateway.ask(request("scripted/x", headers=("X-Request-ID: ended-long",))).status == 200
    assert len(gateway.row("said-long")["error"]) == 4096
    assert gateway.row("ended-long")["finish"] == "x" * 128
    assert (gateway.folder / "access.log").stat().st_size - log < 16 << 10


def test_what_a_client_may_choose_freely_is_not_remembered_at_any_length(gateway: Gateway):
    """Keys that were found are remembered by their whole header, plans by all that was wished: 10,000 of the one, 4,096 of the other."""

    def ask(client: Peer, number: int) -> None:
        names = [f"{number} {each}".ljust(200, "\N{BOMB}") for each in range(60)]
        client.send(request("down/x", provider={"order": names, "ignore": names, "only": ["down", *names]}))
        assert client.reply().status == 502
        client.send(f"GET /v1/models HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nAuthorization: {'b' * 30_000}{number}{KEY}\r\n\r\n".encode())
        assert client.reply().status == 200

    with gateway.connect() as client:
        for number in range(20):
            ask(client, number)
        before = gateway.rss()
        for number in range(20, 420):
            ask(client, number)
    assert gateway.rss() - before < 10 << 20
