"""Requests damaged at random, against one connection without sockets: nothing escapes, and no cut changes what is understood.

FUZZ=20000 asks for more examples (`make fuzz`).
"""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_gateway.config.snapshot import Server as Config
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.ingress.http1 import STRANGER, Connection
from llm_gateway.ingress.server import Server

EXAMPLES = int(os.environ.get("FUZZ", "300"))
CONFIG = Config(listeners=(), max_body=4096, max_header_bytes=2048, max_uri=512, max_headers=20)
ROUTE = Route("chat", "openai_chat", "/v1/chat/completions", body=True)

PLAIN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
GET = b"GET /health?x=1 HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"
KNOWN = (PLAIN, PLAIN.replace(b"Content-Length", b"content-length"), PLAIN.replace(b"Host: a\r\n", b"Host: a\r\nX: y\r\n"))
WORDS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"0", b"-1", b"+5", b"ffffffffffffffff", b"chunked", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n",
    b"Host: b\r\n", b"X: " + b"y" * 3000 + b"\r\n", b"HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b";ext=1", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"\xff",
)  # fmt: skip


class Task:
    def cancel(self) -> None:
        """Nobody runs."""


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing is ever held."""

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    write_eof = abort = close

    def pause_reading(self) -> None:
        self.closed = True

    def resume_reading(self) -> None:
        """It reads on."""

    def is_closing(self) -> bool:
        return self.closed


def understood(data: bytes, cuts: list[int], before: tuple[bytes, ...] = ()) -> list[tuple[Any, ...]]:
    """What one connection makes of the bytes: requests as they would be served, and refusals. before: requests of another
    connection, whose heads are then known; without any, no head is ever taken for known."""
    found: list[tuple[Any, ...]] = []

    def start(x: Exchange) -> Any:
        told = x.fault.kind.status if x.fault is not None else (x.method, x.path, x.query, tuple(sorted(x.headers.items())), x.body, x.http10)
        found.append((told, x.keep_alive))
        return Task()

    def gate(x: Exchange) -> None:
        x.route = ROUTE

    server = Server(CONFIG, start, "f")
    server.adopt(CONFIG, gate)
    for request in before:
        other = Connection(server)
        other.connection_made(Wire())  # type: ignore[arg-type]
        other.get_buffer(-1)[: len(request)] = request
        other.buffer_updated(len(request))
        other.connection_lost(None)
    found.clear()
    assert bool(server.heads.known) == bool(before)
    connection, wire = Connection(server), Wire()
    connection.strange = 0 if before else STRANGER
    connection.connection_made(wire)  # type: ignore[arg-type]
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    for begin, end in pairwise(bounds):
        if wire.closed:
            break
        piece = data[begin:end]
        buffer = connection.get_buffer(-1)
        assert len(piece) <= len(buffer)
        buffer[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    while connection.active is not None and not wire.closed:
        connection.finish(connection.active, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    connection.connection_lost(None)
    assert server.body_bytes == 0, "every byte that was held is let go"
    return found


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from((PLAIN, CHUNKED, GET, OLD)), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("insert", "delete", "flip", "repeat"))):
            case "insert":
                data[at:at] = draw(st.sampled_from(WORDS))
            case "delete":
                del data[at : at + draw(st.integers(1, 12))]
            case "flip":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case _:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data[:12_000])


@settings(max_examples=EXAMPLES, deadline=None)
@given(damaged(), st.lists(st.integers(1, 12_000), max_size=12))
@example(PLAIN + PLAIN + PLAIN.replace(b"POST ", b"POST  "), [len(PLAIN)])
def test_no_cut_changes_what_is_understood(data: bytes, cuts: list[int]) -> None:
    """But for a request line with more spaces than one, which refuses all that came in one read with it (strict.check_line): then fewer are served."""
    some, all_at_once = sorted((understood(data, cuts), understood(data, [])), key=len, reverse=True)
    if len(some) > len(all_at_once):
        assert b"  " in data
        assert all_at_once[-1] == some[-1] == (400, False)
        some = [*some[: len(all_at_once) - 1], some[-1]]
    assert some == all_at_once


@settings(max_examples=EXAMPLES, deadline=None)
@given(damaged(), st.lists(st.integers(1, 12_000), max_size=12))
def test_a_head_that_is_known_changes_nothing(data: bytes, cuts: list[int]) -> None:
    assert understood(data, cuts, KNOWN) == understood(data, cuts)


@settings(max_examples=EXAMPLES, deadline=None)
@given(damaged())
def test_nothing_is_served_behind_what_was_refused_for_its_framing(data: bytes) -> None:
    """A refusal that closes is the last word: whatever follows it on the wire may be a smuggled request."""
    told = understood(data, [])
    for place, (said, keep_alive) in enumerate(told[:-1]):
        assert keep_alive or isinstance(told[place + 1][0], int), (said, told)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=3000), st.lists(st.integers(1, 3000), max_size=8))
def test_rubbish_is_refused_once_or_waited_for(data: bytes, cuts: list[int]) -> None:
    told = understood(data, cuts)
    assert len([said for said, _ in told if isinstance(said, int)]) <= 1
