"""The replay upstream gives back what was recorded, however it is cut."""

from __future__ import annotations

import asyncio
import json

import httptools
import pytest

from replay.recordings import Recordings, cut, folder, load
from replay.server import replaying

pytestmark = pytest.mark.skipif(not (folder() / "manifest.jsonl").exists(), reason="no recorded traffic beside the checkout")


@pytest.fixture(scope="module")
def recordings() -> Recordings:
    return load()


class Answer:
    """A reply as a strict parser reads it."""

    def __init__(self) -> None:
        self.body, self.headers, self.complete, self.chunks = b"", {}, False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode("utf-8")

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_chunk_header(self) -> None:
        self.chunks += 1

    def on_message_complete(self) -> None:
        self.complete = True


async def ask(port: int, path: str, body: object = None, headers: str = "") -> tuple[int, Answer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode() if body is not None else b""
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data)
    answer = Answer()
    parser = httptools.HttpResponseParser(answer)
    while not answer.complete:
        piece = await asyncio.wait_for(reader.read(65536), 5)
        assert piece, "closed before the reply was complete"
        parser.feed_data(piece)
    writer.close()
    return parser.get_status_code(), answer


@pytest.mark.parametrize("how", ["whole", "events", "bytes:7", "random:1"])
def test_no_cut_loses_a_byte(recordings: Recordings, how: str) -> None:
    for each in list(recordings.select(body_kind="sse"))[:40]:
        assert b"".join(cut(each.body, how)) == each.body


def test_events_are_cut_at_blank_lines_of_any_kind() -> None:
    assert cut(b"data: 1\n\ndata: 2\r\n\r\ndata: 3", "events") == [b"data: 1\n\n", b"data: 2\r\n\r\n", b"data: 3"]


async def test_every_recording_goes_over_the_wire_as_recorded(recordings: Recordings) -> None:
    async with replaying(recordings=recordings, cut="whole") as upstream:
        for each in recordings.interactions[::9]:
            status, answer = await ask(upstream.port, f"/replay/{each.id}/v1/anything", {})
            assert (status, answer.body) == (each.status, each.body), each.id
            assert answer.headers["x-replay-interaction"] == each.id


async def test_streams_are_chunked_by_event(recordings: Recordings) -> None:
    stream = next(recordings.select(provider="openai", api="chat_completions", streaming=True, status=200))
    async with replaying(recordings=recordings) as upstream:
        _, answer = await ask(upstream.port, "/v1/chat/completions", {"model": stream.id})
        assert answer.body == stream.body
        assert answer.chunks >= stream.body.count(b"\n\n")


async def test_a_request_finds_its_own_recording(recordings: Recordings) -> None:
    found = 0
    async with replaying(recordings=recordings, cut="whole") as upstream:
        for each in recordings.select(provider="anthropic", api="messages", status=200):
            if each.request is None:
                continue
            _, answer = await ask(upstream.port, "/v1/messages", each.request)
            twin = recordings.by_id[answer.headers["x-replay-interaction"]]
            assert twin.request == each.request or twin.id == each.id
            found += 1
    assert found > 30


async def test_header_queue_and_unknown(recordings: Recordings) -> None:
    first, second = recordings.interactions[:2]
    async with replaying(recordings=recordings) as upstream:
        upstream.queue(first.id)
        _, queued = await ask(upstream.port, "/x", {})
        _, named = await ask(upstream.port, "/x", {}, f"x-replay-id: {second.id}\r\n")
        status, _ = await ask(upstream.port, "/x", {"model": "never recorded"})
        assert [queued.body, named.body, status] == [first.body, second.body, 404]
        assert [each.path for each in upstream.received] == ["/x", "/x", "/x"]
