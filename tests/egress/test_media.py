"""What a request names by URL, fetched side by side: its room, its time, its first failure; and where in it the client is pointed to."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from msgspec import Raw

from ingress.gateway import Gateway, Peer, Reply, Scripted, alias, provider, refused, request, running, server, snapshot
from llm_gateway.config import snapshot as snapshots
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Route
from llm_gateway.core.types import Document, Image, Media
from llm_gateway.egress.media import SLICE, Inlay, Terms, path_of
from llm_gateway.formats.by_value import Named
from llm_gateway.formats.contract import Peek
from llm_gateway.policies.addresses import Rules
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.fetch import Fetcher
from upstream.origin import answering, pooling, serving


class Client:
    """Stands where a client's connection stands, with so much room for bodies."""

    alive, paused, sink = True, False, None

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room

    def hold(self, x: Exchange, size: int) -> bool:
        self.room -= size
        return self.room >= 0

    def send(self, data: bytes) -> None: ...
    def release(self, x: Exchange) -> None: ...
    def finish(self, x: Exchange, data: bytes) -> None: ...
    def abort(self, x: Exchange) -> None: ...


def exchange(*urls: str, seconds: float = 5.0, client: Client | None = None) -> Exchange:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]
    peek = Peek({"model": Raw(b'"m"'), "messages": Raw(json.dumps(messages).encode())}, "m")
    route = Route("chat", "openai_chat", "/")
    return Exchange(id="x", client=client or Client(), route=route, peek=peek, deadline=perf_counter() + seconds)


def reply(body: bytes, kind: bytes = b"image/png") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, len(body)) + body


@asynccontextmanager
async def inlaying(port: int, **terms: Any) -> AsyncIterator[tuple[Inlay, Metrics]]:
    metrics = Metrics()
    async with pooling() as pool:
        fetcher = Fetcher(pool)
        rules = Rules(ports=frozenset({port}), private=True)
        try:
            yield Inlay(fetcher, Terms(rules, **terms), metrics), metrics
        finally:
            fetcher.close()


def images(*urls: str) -> dict[Named, str]:
    return {Named(Image, url): f"messages[0].content[{at}]" for at, url in enumerate(urls)}


async def test_all_come_at_once_and_whole():
    body = bytes(range(256)) * (SLICE // 128)  # several slices, the last one of another length

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(reply(body, b"image/jpg"))
        await writer.drain()

    async with serving(play) as port, inlaying(port) as (inlay, metrics):
        urls = [f"http://127.0.0.1:{port}/{each}" for each in range(4)]
        began = perf_counter()
        got = await inlay.fetch(exchange(*urls), images(*urls))
        assert perf_counter() - began < 0.35
    assert list(got) == list(images(*urls))
    assert set(got.values()) == {Media("image/jpeg", base64.b64encode(body).decode())}
    assert (metrics.media, metrics.media_bytes) == ({"fetched": 4}, 4 * len(body))


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        (b"text/plain", "Größe".encode(), "Größe"),
        (b"text/plain; charset=UTF-8", b"\xef\xbb\xbfx", "x"),
        (b"text/csv; charset=iso-8859-1", b"Gr\xf6\xdfe", "Größe"),
        (b"text/html; charset=windows-1252", b"\x80", "€"),
        (b"text/plain; charset=no-such", b"plain", "plain"),
        (b"text/plain", b"\xff\xfe\xfd", None),
        (b"text/plain; charset=us-ascii", b"\xf6", None),
    ],
)
async def test_a_document_of_text_becomes_text(kind: bytes, body: bytes, text: str | None):
    async with serving(answering(reply(body, kind))) as port, inlaying(port) as (inlay, metrics):
        url = f"http://127.0.0.1:{port}/a.txt"
        fetched = inlay.fetch(exchange(url), {Named(Document, url): "messages[0].content"})
        if text is None:
            with pytest.raises(Fault, match="could not be fetched"):
                await fetched
            assert metrics.media == {"failed": 1}
        else:
            assert await fetched == {Named(Document, url): text}


async def test_the_first_failure_ends_the_others():
    left: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /slow"):
            left.append(await reader.read())
        else:
            await asyncio.sleep(0.03)
            writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")

    async with serving(play) as port, inlaying(port) as (inlay, metrics):
        urls = [f"http://127.0.0.1:{port}/{each}" for each in ("slow", "absent", "slow2")]
        with pytest.raises(Fault) as failed:
            await inlay.fetch(exchange(*urls), images(*urls))
        assert (failed.value.kind, failed.value.param) == (Kind.INVALID, "messages[0].content[1].image_url.url")
        await asyncio.sleep(0.02)
        assert left == [b"", b""]
        assert metrics.media == {"failed": 1}, "what was given up for another's sake is no failure of its own"


async def test_nothing_is_fetched_where_one_may_not_be():
    async with serving(answering(reply(b"x"))) as port, inlaying(port) as (inlay, metrics):
        urls = [f"http://127.0.0.1:{port}/", "http://127.0.0.1:22/"]
        with pytest.raises(Fault) as failed:
            await inlay.fetch(exchange(*urls), images(*urls))
        assert (failed.value.code, failed.value.param) == ("media_unavailable", "messages[0].content[1].image_url.url")
        assert metrics.media == {"refused": 1}


async def test_no_room_for_bodies_is_overload_and_not_the_clients_mistake():
    async with serving(answering(reply(b"x" * 5000))) as port, inlaying(port) as (inlay, metrics):
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(Fault) as failed:
            await inlay.fetch(exchange(url, client=Client(room=4999)), images(url))
        assert (failed.value.kind, failed.value.retry_after) == (Kind.OVERLOADED, 1.0)
        assert metrics.media == {"full": 1}


async def test_sizes_are_each_and_together():
    async with serving(answering(reply(b"x" * 1000))) as port, inlaying(port, most=1000) as (inlay, _):
        urls = [f"http://127.0.0.1:{port}/{each}" for each in range(3)]
        assert len(await inlay.fetch(exchange(*urls[:2]), images(*urls[:2]))) == 2
        with pytest.raises(Fault, match="over 1000 bytes, or all that the request names are over 2000 bytes") as failed:
            await inlay.fetch(exchange(*urls), images(*urls))
        assert failed.value.code == "media_too_large"
    async with serving(answering(reply(b"x" * 1001))) as port, inlaying(port, most=1000) as (inlay, _):
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(Fault, match="over 1000 bytes"):
            await inlay.fetch(exchange(url), images(url))


async def test_the_request_ends_before_the_fetch_may():
    async with serving(answering()) as port, inlaying(port, seconds=5.0) as (inlay, metrics):
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(Fault) as failed:
            await inlay.fetch(exchange(url, seconds=0.1), images(url))
        assert (failed.value.kind, failed.value.code) == (Kind.TIMEOUT, "request_timeout")
        with pytest.raises(Fault, match=r"within 0\.1 s") as slow:
            await Inlay(inlay._fetcher, Terms(inlay._terms.rules, seconds=0.1), metrics).fetch(exchange(url), images(url))
        assert slow.value.code == "media_timeout"


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_cancelling_at_any_step_closes_everything():
    live: set[object] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        live.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply(b"x" * 100)[:-1])
            await reader.read()
        finally:
            live.discard(writer)

    async with serving(play) as port, inlaying(port) as (inlay, metrics):
        urls = [f"http://127.0.0.1:{port}/{each}" for each in range(2)]
        for steps in range(40):
            fetched = asyncio.create_task(inlay.fetch(exchange(*urls), images(*urls)))
            for _ in range(steps):
                await asyncio.sleep(0)
            fetched.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetched
            await asyncio.sleep(0.005)
            assert not live, steps
        assert metrics.media == {}


URL = "https://x.example/a"


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"messages": [{"content": [{"type": "image_url", "image_url": URL}]}]}, "messages[0].content[0].image_url"),
        ({"messages": [{"content": URL}, {"content": [{"text": URL}, {"url": URL}]}]}, "messages[1].content[1].url"),
        ({"input": URL, "more": {"b": [[{"uri": URL}]]}}, "more.b[0][0].uri"),
        ({"messages": [{"content": [{"url": f"{URL}b"}]}]}, None),
        ({"messages": "x" * (1 << 20) + URL}, None),
        ({"metadata": {"k" * 2000: URL}}, None),
    ],
)
def test_an_address_is_found_where_the_client_wrote_it(members: dict[str, Any], path: str | None):
    assert path_of({name: Raw(json.dumps(value).encode()) for name, value in members.items()}, URL) == path


def test_fields_that_make_no_sense_do_not_hide_the_one_that_does():
    deep = b"[" * 5000 + b"]" * 5000
    assert path_of({"a": Raw(b"{"), "b": Raw(deep), "c": Raw(b'{"url":"%b"}' % URL.encode())}, URL) == "c.url"


def test_looking_for_an_address_takes_no_more_memory_than_there_is_to_look_at():
    """Long keys above many values: a path for each of these would take a hundred gigabytes."""
    members = {"metadata": Raw(json.dumps({"k" * 200_000: [0] * 20_000}).encode()), "messages": Raw(b'[{"url":"%b"}]' % URL.encode())}
    tracemalloc.start()
    try:
        assert path_of(members, URL) == "messages[0].url"
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


# -- through a worker ----------------------------------------------------------------------------------------------------

ANSWER = json.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": "a dot"}]}, "finishReason": "STOP"}]}).encode()


class Both:
    """An upstream that answers every POST the same, and pictures of as many bytes as a GET's path says. `posted`: the bodies."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        self.posted: list[Any] = []
        self.pictures, self.upstream = Scripted(self.play), Scripted(self.play)

    def play(self, peer: Peer) -> None:
        while True:
            head = peer.until(b"\r\n\r\n")
            if head.startswith(b"GET"):
                peer.send(reply(b"x" * int(head.split(b" ")[1][1:])))
                return
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(peer.rest) < length:
                peer.more()
            self.posted.append(json.loads(peer.rest[:length]))
            peer.rest = peer.rest[length:]
            peer.send(reply(self.said, b"application/json"))

    def image(self, size: int) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{self.pictures.port}/{size}"}}

    @property
    def media(self) -> snapshots.Media:
        return snapshots.Media(private=True, ports=(self.pictures.port,))


def test_what_is_fetched_counts_as_body_for_as_long_as_its_request(tmp_path: Path):
    """Ten of two thirds of the memory, one after the other; one that does not fit is 503, and holds nothing afterwards."""
    both = Both(ANSWER)
    told = snapshot(
        tmp_path, (provider("gemini", both.upstream.url, type="gemini"),), server=server(body_memory=300_000), media=both.media
    )  # fmt: skip

    def ask(gateway: Gateway, size: int) -> Reply:
        return gateway.ask(request("gemini/gemini-3-pro", messages=[{"role": "user", "content": [both.image(size)]}]))

    with running(told) as gateway:
        for _ in range(5):
            assert ask(gateway, 200_000).status == 200
        full = ask(gateway, 310_000)
        assert (full.status, full.json()["error"]["code"]) == (503, "overloaded")
        for _ in range(5):
            assert ask(gateway, 200_000).json()["choices"][0]["message"]["content"] == "a dot"


def test_claude_on_vertex_follows_no_urls_in_either_clients_shape(tmp_path: Path):
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [{"type": "text", "text": "a dot"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    both = Both(json.dumps(message).encode())
    told = snapshot(tmp_path, (provider("vertex", both.upstream.url, type="vertex"),), media=both.media)
    own = {"type": "image", "source": {"type": "url", "url": both.image(3)["image_url"]["url"]}}
    with running(told) as gateway:
        for path, part in (("/v1/chat/completions", both.image(3)), ("/v1/messages", own)):
            got = gateway.ask(request("vertex/claude-sonnet-4-5", path=path, messages=[{"role": "user", "content": [part]}]))
            assert got.status == 200, got
    for body in both.posted:
        assert body["messages"][0]["content"] == [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eHh4"}}
        ]
    assert len(both.posted) == 2


def test_a_second_target_gets_what_was_fetched_for_the_first(tmp_path: Path):
    both = Both(ANSWER)
    told = snapshot(
        tmp_path, (provider("down", refused(), type="gemini"), provider("gemini", both.upstream.url, type="gemini")),
        aliases=(alias("two", "down/gemini-3-pro", "gemini/gemini-3-pro"),), media=both.media,
    )  # fmt: skip
    with running(told) as gateway:
        got = gateway.ask(request("two", messages=[{"role": "user", "content": [both.image(3)]}]))
        assert (got.status, got.headers["x-gateway-provider"]) == (200, "gemini")
    assert both.pictures.accepted == 1
    assert both.posted[0]["contents"][0]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "eHh4"}}]


def test_a_client_that_leaves_while_pictures_come_finds_its_reply_when_it_asks_again(tmp_path: Path):
    both = Both(ANSWER)
    slow = Scripted(lambda peer: (peer.until(b"\r\n\r\n"), time.sleep(0.5), peer.send(reply(b"xxx")))[0])
    media = snapshots.Media(private=True, ports=(slow.port,))
    told = snapshot(tmp_path, (provider("gemini", both.upstream.url, type="gemini"),), media=media)
    part = {"type": "image_url", "image_url": {"url": f"{slow.url}/a.png"}}
    asked = request("gemini/gemini-3-pro", messages=[{"role": "user", "content": [part]}], headers=("Idempotency-Key: one",))
    with running(told) as gateway:
        with gateway.connect() as client:
            client.send(asked)
            time.sleep(0.2)
        got = gateway.ask(asked)
        assert (got.status, got.headers.get("idempotent-replayed")) == (200, "true"), got
    assert (slow.accepted, len(both.posted)) == (1, 1)


def test_nothing_is_fetched_where_the_configuration_says_so(tmp_path: Path):
    pictures = Scripted(lambda peer: peer.send(reply(b"x")))
    told = snapshot(
        tmp_path, (provider("bedrock", refused(), type="bedrock"),),
        media=snapshots.Media(fetch=False, private=True, ports=(pictures.port,)),
    )  # fmt: skip
    part = {"type": "image_url", "image_url": {"url": pictures.url}}
    with running(told) as gateway:
        got = gateway.ask(request("bedrock/m", messages=[{"role": "user", "content": [part]}]))
    assert (got.status, got.json()["error"]["param"]) == (400, "messages[0].content")
    assert pictures.accepted == 0
