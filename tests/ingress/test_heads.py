"""Heads that come again: served as those that are parsed, refused as those that are parsed."""

from __future__ import annotations

import pytest

from ingress.gateway import Gateway, Peer, Upstreams, request
from ingress.malformed import CASES, Case
from ingress.test_fuzz import Wire
from ingress.test_malformed import check
from llm_gateway.config.snapshot import Server as Config
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.ingress.heads import MOST_HEADS, Heads
from llm_gateway.ingress.http1 import STRANGER, Connection
from llm_gateway.ingress.server import FIRST, Server

ROUTE = Route("chat", "openai_chat", "/v1/chat/completions", body=True)
HELLO = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"


class Line:
    """A server without sockets: its gate counts whom it parsed, `again` whom it knew."""

    def __init__(self, **limits: int) -> None:
        self.parsed = self.known = 0
        self.revoked = False
        self.served: list[Exchange] = []
        config = Config(listeners=(), **limits)
        self.server = Server(config, self._start, "f")
        self.server.adopt(config, self._gate, self._again)

    def _start(self, x: Exchange) -> object:
        self.served.append(x)
        return None

    def _gate(self, x: Exchange) -> None:
        x.route = ROUTE
        self.parsed += 1
        if self.revoked:
            raise Fault(Kind.UNAUTHENTICATED, "Unknown key.")

    def _again(self, x: Exchange) -> None:
        self.known += 1
        if self.revoked:
            raise Fault(Kind.UNAUTHENTICATED, "Unknown key.")

    def connect(self) -> Connection:
        connection = Connection(self.server)
        connection.connection_made(Wire())  # type: ignore[arg-type]
        return connection

    def say(self, connection: Connection, *pieces: bytes) -> Exchange:
        for piece in pieces:
            connection.get_buffer(-1)[: len(piece)] = piece
            connection.buffer_updated(len(piece))
        x = self.served[-1]
        if connection.active is x:
            connection.finish(x, b"")
        return x


def test_a_head_is_parsed_once_whatever_the_length_of_its_bodies() -> None:
    line = Line()
    connection = line.connect()
    first = line.say(connection, HELLO)
    second = line.say(connection, HELLO.replace(b"5\r\n", b"11\r\n") + b" again")
    assert (line.parsed, line.known) == (1, 1)
    assert second.body == b"hello again"
    assert second.headers == first.headers | {b"content-length": b"11"}
    assert second.id != first.id
    assert second.request_id == second.id
    assert (second.method, second.path, second.route) == (first.method, first.path, first.route)


@pytest.mark.parametrize("at", range(1, len(HELLO)))
def test_wherever_it_is_cut_the_body_is_the_same(at: int) -> None:
    line = Line()
    connection = line.connect()
    line.say(connection, HELLO)
    x = line.say(connection, HELLO[:at], HELLO[at:])
    assert len(line.served) == 2
    assert (x.body, x.bytes_in, x.keep_alive) == (b"hello", 5, True)
    assert line.say(connection, HELLO[:at], HELLO[at:] + HELLO).body == b"hello"
    assert len(line.served) + len(connection.queue or ()) >= 3, "what follows it is the next"


def test_a_head_of_its_own_and_then_the_body_is_known_too() -> None:
    line = Line()
    connection = line.connect()
    end = HELLO.index(b"hello")
    line.say(connection, HELLO[:end], HELLO[end:])
    assert line.say(connection, HELLO[:end], b"he", b"l", b"lo").body == b"hello"
    assert (line.parsed, line.known) == (1, 1)


@pytest.mark.parametrize("digits", [b"0" * 20 + b"5", b"0" * 5000 + b"5"])
def test_a_length_with_thousands_of_zeros_is_a_length_known_or_not(digits: bytes) -> None:
    line = Line()
    connection = line.connect()
    for _ in range(2):
        x = line.say(connection, HELLO.replace(b"5\r\n", digits + b"\r\n"))
        assert (x.body, x.fault) == (b"hello", None)
        line.say(connection, HELLO)
    assert len(line.served) == 4


def test_a_known_head_with_a_length_of_thousands_of_digits_is_refused() -> None:
    line = Line()
    connection = line.connect()
    line.say(connection, HELLO)
    x = line.say(connection, HELLO.replace(b"5\r\n", b"5" * 5000 + b"\r\n"))
    assert len(line.served) == 2
    assert x.fault is not None
    assert x.fault.kind is Kind.INVALID


def test_who_may_no_longer_is_refused_although_its_head_is_known() -> None:
    line = Line()
    connection = line.connect()
    line.say(connection, HELLO)
    line.revoked = True
    x = line.say(connection, HELLO)
    assert x.fault is not None
    assert x.fault.kind is Kind.UNAUTHENTICATED


def test_a_reload_forgets() -> None:
    line = Line()
    connection = line.connect()
    line.say(connection, HELLO)
    line.server.adopt(line.server.config, line._gate, line._again)
    line.say(connection, HELLO)
    assert (line.parsed, line.known) == (2, 0)


def test_a_client_that_never_repeats_itself_is_not_looked_up_for_ever() -> None:
    line = Line()
    connection = line.connect()
    for number in range(STRANGER + 20):
        line.say(connection, HELLO.replace(b"Host: a", b"Host: a\r\ntraceparent: %d" % number))
    assert len(line.server.heads.known) <= STRANGER
    assert line.known == 0


def test_an_id_is_nobody_elses_however_many_there_were() -> None:
    server = Line().server
    first = server.next_id()
    seen = {first}
    for so_many in (1 << 32, 1 << 33, 5 << 32, 1 << 40):  # a worker of 10,000 a second has served the first of these in five days
        server._serial = FIRST + so_many
        seen.add(later := server.next_id())
        assert later > first
        assert len(later) == len(first)
    assert len(seen) == 5


def test_no_more_heads_are_kept_than_there_is_room_for() -> None:
    heads = Heads()
    for number in range(MOST_HEADS + 10):
        x = Exchange(id="x", client=None, route=ROUTE, headers={b"x": b"%d" % number, b"content-length": b"5"})  # type: ignore[arg-type]
        assert heads.learn(x, b"POST / HTTP/1.1\r\nx: %d\r\ncontent-length: 5" % number, named=False) == b"\r\ncontent-length: "
    assert len(heads.known) == 10


def test_lengths_that_are_too_long_or_no_numbers_are_the_parsers() -> None:
    line = Line(max_body=10)
    connection = line.connect()
    line.say(connection, HELLO)
    x = line.say(connection, HELLO.replace(b"5\r\n", b"11\r\n"))
    assert x.fault is not None
    assert x.fault.kind is Kind.TOO_LARGE
    for wrong in (b"+5", b"5 5", b"", b"0x5", b"-5", b"5,5", b"\xb2"):
        other = line.connect()
        line.say(other, HELLO)
        known = line.known
        other.get_buffer(-1)
        head = HELLO.replace(b": 5\r\n", b": %b\r\n" % wrong)
        refused = line.say(other, head)
        assert refused.fault is not None or refused.body != b"hello", wrong
        assert line.known == known, wrong


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_malformed_is_refused_behind_a_head_that_is_known(gateway: Gateway, upstreams: Upstreams, case: Case) -> None:
    good = request("good")
    with gateway.connect() as client:
        for _ in range(2):
            client.send(good)
            assert client.reply().status == 200
        before = len(upstreams.faulty.received)
        _send(client, case.data)
        check(client, case)
    assert len(upstreams.faulty.received) - before == (case.status == 200)


def _send(client: Peer, data: bytes) -> None:
    try:
        client.send(data)
    except ConnectionError:
        """It may be cut while we still send."""
