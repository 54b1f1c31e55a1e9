"""A long prompt does not stay in memory for as long as its answer takes."""

from __future__ import annotations

import asyncio

import pytest

from ingress.test_fuzz import Wire
from ingress.test_heads import HELLO, Line
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.egress.detached import Detached
from llm_gateway.egress.hedge import Lane, Race
from llm_gateway.egress.relay import SMALL_BODY, Relay
from llm_gateway.egress.shadow import Void
from llm_gateway.formats.openai_chat import OpenAIChat
from llm_gateway.ingress.http1 import Connection
from llm_gateway.routing.target import Limits

CHUNK = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}\n\n'


class Client:
    alive, paused, sink = True, False, None

    def __init__(self) -> None:
        self.released: list[Exchange] = []

    def send(self, data: bytes) -> None: ...
    def finish(self, x: Exchange, data: bytes) -> None: ...
    def abort(self, x: Exchange) -> None: ...

    def release(self, x: Exchange) -> None:
        self.released.append(x)


class Upstream:
    def pause(self) -> None: ...
    def resume(self) -> None: ...


def streamed(body: bytes, held: int = 0) -> tuple[Exchange, Client]:
    """An exchange whose stream has just said its first word."""
    client, form = Client(), OpenAIChat()
    x = Exchange(id="1", client=client, route=Route("chat", form.name, "/"), body=body, held=held, stream=True, attempts=[])
    x.peek = form.peek(body)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    relay = Relay(x=x, passage=form.splice(x.peek), upstream=Upstream(), limits=Limits(), done=done, started=0.0)
    relay.head(200, {b"content-type": b"text/event-stream"})
    assert not client.released
    relay.data(CHUNK)
    assert x.committed
    return x, client


async def test_a_long_body_is_released_at_the_first_meaningful_event_and_still_billed() -> None:
    words = b"word " * SMALL_BODY
    x, client = streamed(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"%b"}]}' % words)
    assert client.released == [x]
    assert abs(x.prompt_estimate - len(words) / 4) < 50


async def test_a_short_body_that_names_large_media_is_released_too() -> None:
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    _, client = streamed(body, held=SMALL_BODY + 1)
    assert client.released


async def test_a_body_whose_client_has_just_left_is_released_once() -> None:
    line, form = Line(), OpenAIChat()
    connection = line.connect()
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"%b"}]}' % (b"word " * SMALL_BODY)
    request = HELLO.replace(b"5\r\n", b"%d\r\n" % len(body)).replace(b"hello", body)
    for at in range(0, len(request), 8192):
        piece = request[at : at + 8192]
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    (x,) = line.served
    x.stream, x.peek = True, form.peek(body)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    relay = Relay(x=x, passage=form.splice(x.peek), upstream=Upstream(), limits=Limits(), done=done, started=0.0)
    assert line.server.body_bytes == len(body)
    connection.connection_lost(None)
    relay.head(200, {b"content-type": b"text/event-stream"})
    relay.data(CHUNK)  # read in the same turn of the loop, before its task hears that it was cancelled
    assert line.server.body_bytes == 0


async def test_an_event_for_a_client_that_has_just_left_harms_nobody() -> None:
    """Its upstream's connection would be torn down as by an error of ours, and the log say so."""

    class Closed(Wire):
        def write(self, data: bytes) -> None:
            raise RuntimeError("unable to perform operation; the handler is closed")

    line, form = Line(), OpenAIChat()
    connection = Connection(line.server)
    connection.connection_made(Closed())  # type: ignore[arg-type]
    connection.get_buffer(-1)[: len(HELLO)] = HELLO
    connection.buffer_updated(len(HELLO))
    (x,) = line.served
    x.stream, x.peek = True, form.peek(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}')
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    relay = Relay(x=x, passage=form.splice(x.peek), upstream=Upstream(), limits=Limits(), done=done, started=0.0)
    connection.connection_lost(None)
    relay.head(200, {b"content-type": b"text/event-stream"})
    relay.data(CHUNK)
    relay.data(CHUNK)
    assert relay.fault is None


async def test_a_short_body_stays() -> None:
    x, client = streamed(b'{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}')
    assert not client.released
    assert x.body


def gone() -> Connection:
    connection = Line().connect()
    connection.connection_lost(None)
    return connection


async def unheard(_x: Exchange, _target: object) -> bytes:
    return b""


@pytest.mark.parametrize("through", ["hedge", "idempotent", "shadow"])
async def test_what_bore_marks_of_accounts_is_released_whoever_listens(through: str) -> None:
    x = Exchange(id="1", client=Client(), route=Route("chat", "openai_chat", "/"), body=b"long", attempts=[])
    x.peek = x.marked = x.call = x.filled = {"input": "what holds the body's bytes"}
    client = {"hedge": lambda: Lane(Race(x, unheard), x), "idempotent": lambda: Detached(gone()), "shadow": Void}[through]()
    client.release(x)
    assert not any((x.body, x.peek, x.marked, x.call, x.filled))
