"""`Idempotency-Key` at two gateways with one Redis: one upstream call, whichever worker of whichever gateway is asked."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from e2e.steady import KEY
from e2e.whole import PATIENCE, Gateway, counting
from redis_server import redis_server
from replay.faulty import FaultyUpstream, refused_port

pytestmark = pytest.mark.slow


class Pair:
    def __init__(self, gateways: list[Gateway], upstream: FaultyUpstream) -> None:
        self.gateways, self.upstream = gateways, upstream

    async def ask(self, which: int, key: str, model: str = "up/m", text: str = "hi") -> tuple[int, bool, bytes]:
        """Status, whether it was replayed, body; status 0 where the connection broke. A connection of its own: any worker may have it."""

        def ask() -> tuple[int, bool, bytes]:
            client = http.client.HTTPConnection("127.0.0.1", self.gateways[which].port, timeout=PATIENCE)
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]})
            try:
                client.request("POST", "/v1/chat/completions", body, {"Authorization": f"Bearer {KEY}", "Idempotency-Key": key})
                reply = client.getresponse()
                return reply.status, reply.headers["idempotent-replayed"] == "true", reply.read()
            except (http.client.HTTPException, OSError):
                return 0, False, b""
            finally:
                client.close()

        return await asyncio.to_thread(ask)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    upstream, port = FaultyUpstream(), refused_port()
    await upstream.start()

    def provider(fault: str) -> dict[str, object]:
        return {"type": "openai_compatible", "base_url": f"{upstream.url}/fault/{fault}", "api_key": "sk", "max_retries": 0, "health": {"enabled": False}}

    places = {"up": provider("ok"), "late": provider("slow_ok:1.0"), "later": provider("slow_ok:5"), "broken": provider("status:500")}
    with redis_server(tmp_path, port) as (url, _):
        more = {"providers": places, "redis": {"url": url, "timeout_ms": 10_000}, "secret": "a secret of both gateways"}
        made = [Gateway(tmp_path / name, upstream, 2, more) for name in ("one", "two")]
        await asyncio.gather(*(each.start() for each in made))
        await counting(port, 4)
        yield Pair(made, upstream)
        await asyncio.gather(*(each.stop(signal.SIGINT) for each in made))
    await upstream.stop()


async def test_one_call_for_all_who_ask_now_and_later(pair: Pair) -> None:
    replies = await asyncio.gather(*(pair.ask(at % 2, "many", "late/m") for at in range(16)))
    replies += [await pair.ask(at % 2, "many", "late/m") for at in range(8)]
    assert len(pair.upstream.received) == 1
    assert {(status, body) for status, _, body in replies} == {(200, replies[0][2])}
    assert sorted(replayed for _, replayed, _ in replies) == [False] + [True] * 23
    assert [(await pair.ask(at % 2, "many", "late/m", "another"))[0] for at in range(6)] == [422] * 6
    assert len(pair.upstream.received) == 1


async def test_what_failed_at_one_is_sent_anew_by_the_other(pair: Pair) -> None:
    assert [(await pair.ask(which, "failed", "broken/m"))[0] for which in (0, 1, 0)] == [502] * 3
    assert len(pair.upstream.received) == 3
    assert (await pair.ask(1, "failed"))[0] == 200, "nothing is left of it"


async def test_a_killed_owner_frees_its_key(pair: Pair) -> None:
    first = asyncio.ensure_future(pair.ask(0, "killed", "later/m"))
    async with asyncio.timeout(PATIENCE):
        while not pair.upstream.received:
            await asyncio.sleep(0.02)
    second = asyncio.ensure_future(pair.ask(1, "killed", "later/m"))
    await asyncio.sleep(0.5)
    assert len(pair.upstream.received) == 1
    for pid in pair.gateways[0].workers().values():
        os.kill(pid, signal.SIGKILL)
    assert (await first)[0] == 0
    async with asyncio.timeout(PATIENCE):  # a lease of ten seconds, and what a busy machine adds
        while len(pair.upstream.received) < 2:
            await asyncio.sleep(0.05)
    assert (await second)[0] == 200
