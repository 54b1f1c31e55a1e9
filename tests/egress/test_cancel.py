"""A request cancelled after every number of loop steps: booked once, nothing left open, nothing counted for ever."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from ingress.gateway import DONE, FINISH, STREAM_HEAD, alias, completion, event, provider, snapshot
from llm_gateway.config.snapshot import Hedge
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.headers import render
from llm_gateway.core.tenancy import Claim
from llm_gateway.ingress.routes import match
from llm_gateway.pipeline import serve
from llm_gateway.stores.gauges import Memory
from llm_gateway.worker import Worker
from upstream.origin import serving, unused_port

ENOUGH = 120


class Browser:
    """Stands where a client's connection stands."""

    def __init__(self) -> None:
        self.alive, self.paused, self.sink = True, False, None
        self.sent = b""
        self.finished = self.aborted = 0

    def send(self, data: bytes) -> None:
        self.sent += data

    def finish(self, x: Exchange, data: bytes) -> None:
        self.sent += data
        self.finished += 1

    def abort(self, x: Exchange) -> None:
        self.aborted += 1


def exchange(client: Browser, model: str, *, stream: bool) -> Exchange:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}).encode()
    route, _ = match(b"POST", b"/v1/chat/completions")
    return Exchange(id="x", request_id="x", client=client, route=route, method=b"POST", body=body, bytes_in=len(body), headers={},
                    started=perf_counter(), attempts=[], principal=Principal("k", "t"))  # fmt: skip


async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        if body["model"] == "fails":
            writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
        elif body["stream"]:
            writer.write(STREAM_HEAD + event("One"))
            await asyncio.sleep(0.001)
            tail = FINISH + DONE
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail))
        else:
            writer.write(completion())


@pytest.mark.parametrize(
    ("model", "stream"), [("good", False), ("good", True), ("last", False), ("last", True), ("down", False)]
)
async def test_cancelled_after_any_number_of_steps(tmp_path: Path, model: str, stream: bool):
    async with serving(play) as port:
        places = provider("up", f"http://127.0.0.1:{port}"), provider("no", f"http://127.0.0.1:{unused_port()}")
        told = snapshot(
            tmp_path,
            places,
            aliases=(alias("good", "up/m"), alias("last", "no/a", "up/fails", "up/m"), alias("down", "no/a")),
        )
        worker = Worker(0, told, asyncio.get_running_loop())
        through = 0
        for steps in range(ENOUGH):
            client = Browser()
            x = exchange(client, model, stream=stream)
            x.task = worker._start(x)
            for _ in range(steps if steps < ENOUGH - 3 else 0):
                await asyncio.sleep(0)
            if steps >= ENOUGH - 3:  # these come to their end
                await asyncio.wait([x.task], timeout=2.0)
            through += x.task.done()
            client.alive = False
            x.task.cancel()
            await asyncio.gather(x.task, return_exceptions=True)
            await asyncio.sleep(0)
            check(worker, x, client, started=steps > 0)
        assert through > 2  # the range of steps reaches from the first to the last
        await asyncio.sleep(0.01)
        worker.pool.close()
        worker.ledger.flush()
        worker.journal.close()
    rows = [
        json.loads(line) for path in (tmp_path / "journal").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert len(rows) == ENOUGH - 1  # all but the one cancelled before its first step
    gc.collect()


def check(worker: Worker, x: Exchange, client: Browser, *, started: bool) -> None:
    tally = worker.line.routing.tally
    assert (tally.active, tally.retrying, worker.line.egress.relays) == (0, 0, set())
    assert client.sink is None
    if not started:
        return
    assert x.settled
    if x.fault is not None and x.fault.kind is Kind.CLIENT_GONE:
        assert x.status == 499
        assert DONE not in client.sent
    for bay in worker.pool.bays.values():
        assert all(each.state in ("idle", "left", "closed") for each in bay.open), bay
        assert len(bay.open) <= 1


async def test_a_reload_forgets_limits_that_are_at_rest(tmp_path: Path):
    told = snapshot(tmp_path, (provider("up", "http://127.0.0.1:1"),))
    worker = Worker(0, told, asyncio.get_running_loop())
    gauges = worker.line.quota.gauges
    assert isinstance(gauges, Memory)
    for turn in range(3):  # of users that tokens name there is no end, and cloud credentials bring a reload every hour
        for number in range(100):
            gauges.bind("t", (Claim(f"user:{turn}-{number}", "requests", 5),))
        worker.adopt(told)
        assert len(gauges) == 0
    worker.pool.close()
    worker.journal.close()


async def test_a_bug_is_told_as_a_500_and_booked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    worker = Worker(0, snapshot(tmp_path, (provider("up", "http://127.0.0.1:1"),)), asyncio.get_running_loop())
    client = Browser()
    x = exchange(client, "up/m", stream=False)

    def burst(*_: Any) -> None:
        raise KeyError("a bug")

    worker.line.egress.expect = burst  # type: ignore[method-assign]
    await serve(x, worker.line)
    await asyncio.sleep(0)
    assert client.sent.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in client.sent
    assert "KeyError: 'a bug'" in capsys.readouterr().err
    assert worker.journal.rows == 1
    worker.pool.close()
    worker.journal.close()


def test_headers_are_rendered_line_by_line():
    assert render([(b"a", b"b"), (b"c", b"d")]) == b"a: b\r\nc: d\r\n"
    assert repr(Fault(Kind.TIMEOUT, "late", param="x")) == "Fault(TIMEOUT, 'late', param='x')"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_race_cancelled_after_any_number_of_steps_leaves_no_runner(tmp_path: Path, stream: bool):
    async with serving(play) as port:
        url = f"http://127.0.0.1:{port}"
        told = snapshot(
            tmp_path, (provider("one", url), provider("two", url)), aliases=(alias("twice", "one/m", "two/m", hedge=Hedge(0.0, budget=1.0)),)
        )
        worker = Worker(0, told, asyncio.get_running_loop())
        conditions = [key.condition for stop in worker.line.routing.plan("twice").all() for key in stop.keys]
        for steps in range(1, ENOUGH):
            client = Browser()
            x = exchange(client, "twice", stream=stream)
            task = asyncio.create_task(serve(x, worker.line))
            for _ in range(steps):
                await asyncio.sleep(0)
            client.alive = False
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()  # twice, as a drain's end after a client that left: also while the runners are being ended
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(20):
                await asyncio.sleep(0)
            runners = [each for each in asyncio.all_tasks() if "attempt" in repr(each.get_coro())]
            assert not runners, steps
            assert [each.busy for each in conditions] == [0, 0], steps
            assert (worker.line.routing.tally.active, worker.line.egress.relays, worker.line.egress.overload.streams) == (0, set(), 0)
            assert client.sink is None
            assert x.settled
        worker.pool.close()
        worker.ledger.flush()
        worker.journal.close()
