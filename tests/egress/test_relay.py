"""One reply on its way through, without sockets: what is kept back, when it begins, and how it may end."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from typing import Any

import pytest

from egress.test_cancel import Browser
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.core.types import Usage
from llm_gateway.egress import relay as module
from llm_gateway.egress.relay import Relay
from llm_gateway.routing.target import Limits

SSE, JSON = {b"content-type": b"text/event-stream"}, {b"content-type": b"application/json"}
CUT = Fault(Kind.UPSTREAM_CUT, "cut")


class Said:
    """A passage in which `+` means something, `.` nothing yet, `$` ends, `!` fails, and `(` opens an event that `)` closes."""

    def __init__(self) -> None:
        self.meaningful = self.ended = False
        self.failed: Fault | None = None
        self.between = True
        self.usage, self.finish, self.characters = None, None, 0

    def feed(self, data: bytes) -> bytes:
        self.meaningful |= b"+" in data
        self.ended |= b"$" in data
        if b"!" in data:
            self.failed = Fault(Kind.OVERLOADED, "said so")
        self.between = data.rfind(b")") >= data.rfind(b"(")
        return data.partition(b"$")[0]

    def close(self, *, whole: bool = True) -> bytes:
        if not self.ended:
            self.failed = CUT
        return b""

    def tail(self, cost: float | None) -> bytes:
        return b""

    def fail(self, fault: Fault) -> bytes:
        return b"failed"

    def heartbeat(self) -> bytes:
        return b"~"

    def follow(self) -> None:
        raise AssertionError("nobody asked for it")

    def curtail(self, usage: Usage) -> bool:
        raise AssertionError("nobody asked for it")


class Tap:
    def __init__(self) -> None:
        self.turned: list[str] = []

    def pause(self) -> None:
        self.turned.append("pause")

    def resume(self) -> None:
        self.turned.append("resume")


@pytest.fixture
async def made() -> Any:
    def make(*, stream: bool = True, http10: bool = False, **limits: float) -> tuple[Relay, Browser, Tap]:
        client, tap = Browser(), Tap()
        x = Exchange(
            id="x",
            request_id="x",
            client=client,
            route=Route("chat", "openai_chat", "c"),
            http10=http10,
            stream=stream,
            deadline=100.0,
            attempts=[],
        )
        relay = Relay(x=x, passage=Said() if stream else None, upstream=tap, limits=Limits(**limits), started=0.0,
                      done=asyncio.get_running_loop().create_future(), parts=[])  # type: ignore[arg-type]  # fmt: skip
        return relay, client, tap

    return make


def body(client: Browser) -> bytes:
    return client.sent.partition(b"\r\n\r\n")[2]


async def test_nothing_is_sent_before_something_is_meant(made):
    relay, client, _ = made()
    relay.head(200, SSE)
    relay.data(b"..")
    assert client.sent == b""
    relay.data(b".+")
    assert body(client) == b"4\r\n...+\r\n"
    relay.data(b"+")
    assert body(client) == b"4\r\n...+\r\n1\r\n+\r\n"
    assert (relay.x.committed, relay.done.done()) == (True, False)


async def test_the_end_mark_ends_and_later_bytes_do_not_count(made):
    relay, client, _ = made()
    relay.head(200, SSE)
    relay.data(b"+$")
    assert relay.done.done()
    assert relay.fault is None
    sent = client.sent
    relay.end(delimited=True)
    relay.lost(CUT)
    relay.fail(CUT)
    assert (relay.fault, client.sent) == (None, sent)


async def test_an_error_before_meaning_fails_the_attempt_unseen(made):
    relay, client, _ = made()
    relay.head(200, SSE)
    relay.data(b"..!")
    assert relay.done.done()
    assert client.sent == b""
    assert relay.passage.failed.message == "said so"


@pytest.mark.parametrize("cut", [True, False])
async def test_an_end_without_end_mark_is_a_failure_however_it_came(made, cut):
    relay, _, _ = made()
    relay.head(200, SSE)
    relay.data(b"+")
    relay.lost(CUT) if cut else relay.end(delimited=True)
    assert relay.done.done()
    assert (relay.fault or relay.passage.failed) is CUT


async def test_what_comes_after_giving_up_is_not_passed_on(made):
    relay, client, _ = made(first_chunk=1.0)
    relay.head(200, SSE)
    relay.tick(2.0, 15.0)
    assert relay.fault.code == "first_chunk_timeout"
    relay.data(b"+")
    assert (client.sent, relay.x.committed) == (b"", False)


async def test_http10_gets_no_chunks(made):
    relay, client, _ = made(http10=True)
    relay.head(200, SSE)
    relay.data(b"+")
    assert body(client) == b"+"
    assert b"connection: close" in client.sent


async def test_too_much_of_no_meaning_is_a_failure(made, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 100)
    relay, _, _ = made()
    relay.head(200, SSE)
    relay.data(b"." * 101)
    assert relay.fault.kind is Kind.UPSTREAM_BROKEN


# -- plain replies -------------------------------------------------------------------------------------------------------


async def test_a_plain_reply_is_collected(made):
    relay, client, _ = made(stream=False)
    relay.head(200, JSON)
    relay.data(b"one")
    relay.data(b"two")
    relay.end(delimited=False)
    assert (relay.body, relay.fault, client.sent) == (b"onetwo", None, b"")


async def test_an_error_to_a_streams_request_is_collected(made):
    relay, _, _ = made()
    relay.head(429, JSON)
    relay.data(b"{}")
    relay.end(delimited=True)
    assert (relay.streaming, relay.body) == (False, b"{}")


async def test_a_reply_has_a_limit_and_so_has_an_error_of_which_the_beginning_is_enough(made, monkeypatch):
    monkeypatch.setattr(module, "MOST_REPLY", 10)
    monkeypatch.setattr(module, "MOST_ERROR", 10)
    for status, fault in ((200, True), (500, False)):
        relay, _, _ = made(stream=False)
        relay.head(status, JSON)
        relay.data(b"x" * 8)
        relay.data(b"x" * 8)
        relay.end(delimited=True)
        assert (relay.fault is not None) == fault
        assert fault or relay.body == b"x" * 8


# -- compressed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress(b"+" * 50, mtime=0)),
        (b"X-GZIP", gzip.compress(b"+" * 50, mtime=0)),
        (b"deflate", zlib.compress(b"+" * 50)),
    ],
)
async def test_what_was_compressed_is_read(made, encoding, packed):
    relay, client, _ = made()
    relay.head(200, SSE | {b"content-encoding": encoding})
    for byte in packed:
        relay.data(bytes([byte]))
    assert body(client).replace(b"\r\n1\r\n", b"").count(b"+") == 50


@pytest.mark.parametrize(
    ("encoding", "data"),
    [(b"br", b"x"), (b"gzip, gzip", b"x"), (b"gzip", b"no gzip at all"), (b"gzip", gzip.compress(bytes(4 << 20), mtime=0)),
     (b"deflate", zlib.compress(bytes(4 << 20)))],
)  # fmt: skip
async def test_what_cannot_be_read_or_grows_without_measure_is_a_failure(made, encoding, data):
    for size in (len(data), 7):
        relay, _, _ = made(stream=False)
        relay.head(200, JSON | {b"content-encoding": encoding})
        for at in range(0, len(data), size):
            relay.data(data[at : at + size])
        assert relay.fault.kind is Kind.UPSTREAM_BROKEN
        assert relay.size <= max(20 * len(data), module.MOST_ERROR)


@pytest.mark.parametrize(("encoding", "packed"), [(b"gzip", gzip.compress(b"+" * 50, mtime=0)), (b"deflate", zlib.compress(b"+" * 50))])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_was_compressed_and_then_cut_is_not_whole_whatever_http_says(made, encoding, packed, stream):
    for data, kind in ((packed[:-3], Kind.UPSTREAM_CUT), (packed + packed, Kind.UPSTREAM_BROKEN), (packed, None), (b"", None)):
        relay, _, _ = made(stream=stream)
        whole: list[bool] = []
        if stream:
            relay.passage.close = lambda *, whole, told=whole: told.append(whole) or b""
        relay.head(200, (SSE if stream else {b"content-type": b"text/plain"}) | {b"content-encoding": encoding})
        relay.data(data)
        relay.end(delimited=True)
        if stream and not relay.fault:
            assert whole == [kind is None]
        else:
            assert (relay.fault and relay.fault.kind) is kind


# -- pausing, time, heartbeats -------------------------------------------------------------------------------------------


async def test_the_clients_pause_is_the_upstreams(made):
    relay, _, tap = made()
    relay.pause()
    relay.resume()
    assert tap.turned == ["pause", "resume"]


async def test_a_reply_that_begins_while_the_client_is_paused_is_paused(made):
    relay, client, tap = made()
    client.paused = True
    relay.head(200, SSE)
    assert tap.turned == ["pause"]


async def test_silence_is_no_byte_at_all_and_a_paused_client_is_not_the_upstreams_silence(made):
    relay, client, _ = made(silence=10.0)
    relay.head(200, SSE)
    relay.data(b"+")
    for now in (1.0, 9.0, 10.5):
        relay.tick(now, 1e9)
    assert relay.fault is None
    client.paused = True
    relay.tick(15.0, 1e9)
    client.paused = False
    relay.tick(24.0, 1e9)
    assert relay.fault is None
    relay.tick(25.1, 1e9)
    assert relay.fault.code == "silence_timeout"


@pytest.mark.parametrize(
    ("stream", "limits", "late", "code"),
    [(True, {}, 100.1, "request_timeout"), (False, {}, 100.1, "request_timeout"),
     (False, {"attempt": 5.0}, 5.1, "timeout"), (True, {"first_chunk": 5.0}, 5.1, "first_chunk_timeout")],
)  # fmt: skip
async def test_limits_are_kept_and_not_before(made, stream, limits, late, code):
    relay, _, _ = made(stream=stream, **limits)
    relay.tick(late - 0.2, 1e9)
    assert relay.fault is None
    relay.tick(late, 1e9)
    assert relay.fault.code == code


async def test_a_heartbeat_comes_after_silence_between_events_and_after_the_upstreams_head(made):
    relay, client, _ = made()
    relay.tick(20.0, 15.0)
    assert client.sent == b""  # the upstream has not answered yet
    relay.head(200, SSE)
    relay.data(b"(")
    relay.tick(40.0, 15.0)
    assert client.sent == b""  # inside an event
    relay.data(b")")
    relay.tick(41.0, 15.0)
    assert body(client) == b"1\r\n~\r\n"
    relay.tick(50.0, 15.0)
    assert body(client) == b"1\r\n~\r\n"
    relay.data(b"+")
    assert client.sent.count(b"HTTP/1.1 200") == 1
    assert body(client) == b"1\r\n~\r\n3\r\n()+\r\n"
