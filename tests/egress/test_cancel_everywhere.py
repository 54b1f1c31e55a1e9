"""Requests of many kinds, each left by its client after any number of loop steps: nothing is held on to, and each is booked once."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingress.gateway import DONE, FINISH, STREAM_HEAD, alias, completion, event, provider, request, snapshot
from llm_gateway.config.snapshot import Caching, Cascade, Hedge, Media, RateLimit, Retry, Shadow, Target, Tenancy
from llm_gateway.core.tenancy import Grant, Limits
from llm_gateway.ingress.http1 import Connection
from llm_gateway.worker import Worker
from upstream.origin import serving

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 4000


class Wire:
    """A client's transport."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, **_: Any) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(PNG))
            writer.write(PNG[:2000])
            await asyncio.sleep(0.0005)
            writer.write(PNG[2000:])
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        if b"fails" in body:
            writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
        elif b"/api/chat" in head:
            assert b"iVBOR" in body
            text = b'{"model":"m","created_at":"2024-01-01T00:00:00Z","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"stop"}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
        elif b"/messages" in head:
            text = json.dumps({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hi"}],
                               "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}).encode()  # fmt: skip
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
        elif b'"stream": true' in body or b'"stream":true' in body:
            writer.write(STREAM_HEAD + event("One"))
            await asyncio.sleep(0.0005)
            tail = FINISH + DONE
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail))
        else:
            writer.write(completion())


LONG = "word " * 60_000


def image(port: int) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{port}/a.png"}}]}]


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "plain": lambda _port, _number: request("up/m"),
    "stream": lambda _port, _number: request("up/m", stream=True),
    "large": lambda _port, _number: request("up/m", text=LONG),
    "large stream": lambda _port, _number: request("up/m", stream=True, text=LONG),
    "retry": lambda _port, _number: request("again", stream=True),
    "fallback": lambda _port, _number: request("last"),
    "hedge": lambda _port, _number: request("twice", stream=True),
    "hedge plain": lambda _port, _number: request("twice", text=LONG),
    "media": lambda port, _number: request("local/m", messages=image(port)),
    "crossing large": lambda _port, _number: request("claude/m", messages=[{"role": "user", "content": LONG}]),
    "idempotent": lambda _port, n: request("up/m", stream=n % 2 == 0, text=LONG, headers=(f"Idempotency-Key: k{n}",)),
    "idempotent media": lambda port, n: request("local/m", messages=image(port), headers=(f"Idempotency-Key: k{n}",)),
    "cascade": lambda _port, _number: request("judged"),
    "shadow": lambda _port, _number: request("copied", text=LONG),
    "queue": lambda _port, _number: request("slow/m"),
}


def told(folder: Path, port: int) -> Any:
    url = f"http://127.0.0.1:{port}"
    return snapshot(
        folder,
        (
            provider("up", url), provider("two", url), provider("retries", url, max_retries=2),
            provider("claude", url, type="anthropic"), provider("local", url, type="ollama"),
            provider("slow", url, rate_limit=RateLimit(requests=60.0)),
        ),
        aliases=(alias("again", "retries/fails"), alias("last", "up/fails", "up/m"), alias("twice", "up/m", "two/m", hedge=Hedge(0.0, budget=1.0)),
                 alias("judged", "up/m", "two/m", cascade=Cascade(under=5)), alias("copied", "up/m", shadow=Shadow(Target("two", "m"), 1.0)),
                 alias("kept", "up/m", cache=Caching(enabled=True, ttl=0.001))),
        tenancy=Tenancy(each_key=Grant(limits=Limits(concurrent=2))),
        retry=Retry(base=0.001, cap=0.001),
        media=Media(fetch=True, private=True, ports=(port,)),
        queue_wait=0.02,
    )  # fmt: skip


def connect(worker: Worker) -> Connection:
    connection = Connection(worker.server)
    connection.connection_made(Wire())  # type: ignore[arg-type]
    return connection


def read(connection: Connection, data: bytes) -> None:
    while data:
        view = connection.get_buffer(-1)
        size = min(len(view), len(data))
        view[:size] = data[:size]
        connection.buffer_updated(size)
        data = data[size:]


def check(worker: Worker, kind: str, steps: int) -> None:
    line = worker.line
    where = f"{kind} after {steps}"
    assert (line.routing.tally.active, line.routing.tally.retrying) == (0, 0), where
    assert not line.egress.relays, where
    assert line.egress.overload.streams == 0, where
    assert worker.server.body_bytes == 0, where
    assert worker.once.running == 0, where
    assert len(line.routing.queue) == 0, where
    assert [each.busy for each in worker.conditions.all()] == [0] * len(worker.conditions.all()), where
    assert worker.fetcher._turns._value == 256, where
    for bay in worker.pool.bays.values():
        assert all(each.state in ("idle", "left", "closed") for each in bay.open), (where, bay)


@pytest.mark.parametrize("kind", KINDS)
async def test_left_after_any_number_of_steps(tmp_path: Path, kind: str):
    loop = asyncio.get_running_loop()
    wrong: list[Any] = []
    loop.set_exception_handler(lambda _, context: wrong.append(context))
    async with serving(play) as port:
        worker = Worker(0, told(tmp_path, port), loop)
        begun, through, late = 0, 0, 0
        for steps in range(140):
            connection = connect(worker)
            read(connection, KINDS[kind](port, steps))
            x = connection.active
            assert x is not None
            begun += 1
            for _ in range(steps if steps < 137 else 2000):
                await asyncio.sleep(0.00005 if steps >= 137 else 0)
                if connection.active is None:
                    break
            through += connection.active is None
            connection.connection_lost(None)
            async with asyncio.timeout(3):
                while (not x.settled and not x.task.cancelled()) or len(worker.shadows):  # a copy goes on
                    await asyncio.sleep(0.0005)
            late += x.task.cancelled() and not x.settled
            for _ in range(4):
                await asyncio.sleep(0)
            check(worker, kind, steps)
        assert through > 2, "the range of steps reaches from the first to the last"
        await worker.shadows.close()
        assert worker.shadows._bytes == 0
        worker.pool.close()
        worker.fetcher.close()
        worker.ledger.flush()
        worker.journal.close()
    rows = [json.loads(line) for path in (tmp_path / "journal").glob("*.jsonl") for line in path.read_text().splitlines()]
    rows = [row for row in rows if not row["id"].endswith("-shadow")]
    assert len({row["id"] for row in rows}) == len(rows) == begun - late
    assert not [row for row in rows if row.get("outcome") == "concurrency_limit_exceeded"], "slots are given back"
    gc.collect()
    await asyncio.sleep(0)
    assert not wrong


async def test_whoever_waits_for_a_reply_gets_one_whenever_its_leader_leaves(tmp_path: Path):
    async with serving(play) as port:
        worker = Worker(0, told(tmp_path, port), asyncio.get_running_loop())
        for steps in range(60):
            leader, follower = connect(worker), connect(worker)
            data = request("kept", seed=steps)
            read(leader, data)
            first = leader.active
            read(follower, data)
            second = follower.active
            for step in range(steps + 1):
                await asyncio.sleep(0)
                if step == steps // 2:
                    leader.connection_lost(None)
            async with asyncio.timeout(3):
                while follower.active is not None:
                    await asyncio.sleep(0.0005)
            assert second is not None
            assert (second.status, second.fault) == (200, None), steps
            assert first is not None
            follower.connection_lost(None)
            assert worker.line.replay is not None
            assert not worker.line.replay._flights, steps
            check(worker, "kept", steps)
        worker.pool.close()
        worker.journal.close()
