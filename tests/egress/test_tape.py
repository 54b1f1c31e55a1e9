"""A tape lets everything by, and knows afterwards what the reply was."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.core.types import Usage
from llm_gateway.egress.tape import MOST, Reply, Tape, play
from llm_gateway.stores.memory import Kept
from llm_gateway.telemetry.metrics import TargetMeter

CHAT = Route("chat", "openai_chat", "/v1/chat/completions", body=True)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Client:
    alive, paused, sink = True, False, None

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.got.append(data)

    def hold(self, x: Exchange, size: int) -> bool:
        return size < 9

    def release(self, x: Exchange) -> None:
        self.got.append(b"released")

    def finish(self, x: Exchange, data: bytes) -> None:
        self.got.append(data)

    def abort(self, x: Exchange) -> None:
        self.got.append(b"aborted")


@pytest.fixture
def landed() -> list[Reply | None]:
    return []


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def tape(client: Client, landed: list[Reply | None]) -> Tape:
    return Tape(client, lambda _x, reply: landed.append(reply))


def exchange(client: Any, **more: Any) -> Exchange:
    return Exchange(id="x", client=client, route=CHAT, request_id="r", **more)


def test_the_client_is_the_same_behind_it(tape: Tape, client: Client) -> None:
    tape.sink = "somebody"
    assert (client.sink, tape.sink, tape.alive, tape.paused) == ("somebody", "somebody", True, False)
    assert (tape.hold(exchange(tape), 8), tape.hold(exchange(tape), 9)) == (True, False)
    tape.release(exchange(tape))
    assert client.got == [b"released"]


def test_a_plain_reply_is_its_body(tape: Tape, client: Client, landed: list[Reply | None]) -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\r\n\r\n  }"
    tape.finish(exchange(tape), whole)
    assert client.got == [whole]
    assert landed == [Reply(b"{\r\n\r\n  }", b"application/json")]


def test_a_stream_is_its_bytes_without_framing_and_without_its_cost(tape: Tape, client: Client, landed: list[Reply | None]) -> None:
    last = b'data: {"usage":{"cost":0.0007,"x":1}}\n\n'
    sent = [HEAD, b"3\r\na\r\n\r\n", b"2\r\nbc\r\n"]
    for each in sent:
        tape.send(each)
    end = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last)
    tape.finish(exchange(tape, cost=700_000), end)
    assert client.got == [*sent, end]
    assert landed == [Reply(b'a\r\nbcdata: {"usage":{"cost":0.0,"x":1}}\n\n', b"text/event-stream")]


def test_a_stream_that_was_played_back_is_its_bytes_too(tape: Tape, client: Client, landed: list[Reply | None]) -> None:
    for body in (b'data: {"cost":1}\r\n\r\ndata: [DONE]\n\n', b""):
        x = exchange(tape, stream=True)
        tape.finish(x, play(x, kept(body), TargetMeter("", ""), 5.5))
    assert landed == [Reply(b'data: {"cost":1}\r\n\r\ndata: [DONE]\n\n', b"text/event-stream"), Reply(b"", b"text/event-stream")]


def test_a_stream_may_end_with_nothing_more(tape: Tape, landed: list[Reply | None]) -> None:
    tape.send(HEAD)
    tape.send(b"2\r\nbc\r\n")
    tape.finish(exchange(tape), b"0\r\n\r\n")
    assert landed == [Reply(b"bc", b"text/event-stream")]


def test_what_is_too_long_or_broken_goes_by(tape: Tape, client: Client, landed: list[Reply | None]) -> None:
    piece = b"x" * (MOST // 2 + 1)
    for each in (HEAD, *[b"%x\r\n%b\r\n" % (len(piece), piece)] * 3):
        tape.send(each)
    tape.finish(exchange(tape), b"0\r\n\r\n")
    assert landed == [None]
    assert len(client.got) == 5
    tape.abort(exchange(tape))
    assert landed == [None, None]


def kept(body: bytes) -> Kept:
    lines = b"x-gateway-provider: up\r\n"
    return Kept(body, b"text/event-stream", "gpt-4", "up", "m", "0", lines, Usage(input=3), "stop", 7, frozenset(), ("x",), 1.0, 9.0)


@pytest.mark.parametrize("stream", [False, True])
def test_playing_is_free_and_says_so(stream: bool) -> None:
    x = exchange(Client(), stream=stream)
    said = play(x, kept(b"abc"), TargetMeter("", ""), 5.5)
    assert said.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n" if stream else b"\r\n\r\nabc")
    lines = [b"x-gateway-cache: hit", b"x-gateway-cost: 0", b"age: 4", b"x-gateway-provider: up", b"x-gateway-dropped-params: x"]
    for line in (*lines, b"content-type: text/event-stream", b"transfer-encoding: chunked" if stream else b"content-length: 3"):
        assert b"\r\n" + line + b"\r\n" in said
    assert (x.status, x.cost, x.cached, x.saved, x.usage, x.finish, x.bytes_out) == (200, 0, True, 7, Usage(input=3), "stop", 3)


def test_an_empty_stream_has_no_empty_chunk_in_its_middle() -> None:
    assert play(exchange(Client(), stream=True), kept(b""), TargetMeter("", ""), 5.5).endswith(b"\r\n\r\n0\r\n\r\n")
