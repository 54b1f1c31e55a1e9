"""Two replicas and a real Redis: what is true of an account reaches the other, what is true of a place does not."""

from __future__ import annotations

import asyncio
import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llm_gateway.admin.notices import Notices
from llm_gateway.admin.replicas import CHANNEL, HINT, Replicas, hint, load_redis
from llm_gateway.core.changes import Change
from llm_gateway.stores.redis.terms import parse
from processes import eventually
from redis_server import redis_server, say, sentinel, valkey_cluster
from replay.faulty import FaultyUpstream
from routing.test_breakers import Gateway, met
from routing.test_failover import Loop
from stores.redis.conftest import port_of
from stores.redis.test_client import acl

SECRET = b"s" * 32
COOLING = Change("p", "k", "m", "cooling", 30.0, "429")


class Replica:
    def __init__(self, secret: bytes = SECRET) -> None:
        self.heard: list[Change] = []
        self.log = io.StringIO()
        self.replicas = Replicas(secret, self.heard.extend, Notices(self.log, "json", "info"))


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def linked(*some: Replica, url: str) -> None:
    for each in some:
        each.replicas.adopt(parse(url))
    await all_linked(*some)


async def all_linked(*some: Replica) -> None:
    await until(lambda: all("replicas_linked" in each.log.getvalue() for each in some))


def test_a_breaker_opened_elsewhere_is_a_warning():
    assert hint(Change("p", "k", "m", "breaker_opened", 300.0)).seconds == HINT
    assert hint(Change("p", "k", "m", "breaker_opened", 1.0)).seconds == 1.0
    assert hint(COOLING) == COOLING


async def test_what_one_finds_out_the_other_hears_and_not_itself(tmp_path: Path):
    one, two, other = Replica(), Replica(), Replica(b"o" * 32)
    with redis_server(tmp_path) as (url, _):
        await linked(one, two, other, url=url)
        one.replicas.tell([COOLING, Change("p", "", "", "provider_down")])
        one.replicas.tell([Change("p", "k", "", "key_disabled", 300.0)])
        await until(lambda: len(two.heard) == 2)
        assert [change.what for change in two.heard] == ["cooling", "key_disabled"], "whether it can be reached is everybody's own business"
        assert one.heard == other.heard == [], "nor does a gateway with another secret listen"
        await until(lambda: other.replicas.refused == 2)
        for each in (one, two, other):
            await each.replicas.close()


async def test_rubbish_on_the_channel_is_nobodys(tmp_path: Path):
    one = Replica()
    with redis_server(tmp_path) as (url, _):
        await linked(one, url=url)
        async with load_redis()[0].Redis.from_url(url, protocol=2) as client:
            for rubbish in (b"", b"x", b"x" * 100, b"\0" * 32):
                await client.publish(CHANNEL, rubbish)
        await until(lambda: one.replicas.refused == 4)
        assert one.heard == []
        await one.replicas.close()


async def test_redis_may_go_and_come_back(tmp_path: Path):
    one, two = Replica(), Replica()
    with redis_server(tmp_path) as (url, _):
        await linked(one, two, url=url)
        port = int(url.split(":")[-1].split("/")[0])
    await until(lambda: "replicas_lost" in one.log.getvalue())
    one.replicas.tell([COOLING])  # waits
    with redis_server(tmp_path, port):
        for _ in range(40):  # what is told while the other is still away is lost: they are hints
            one.replicas.tell([COOLING])
            await asyncio.sleep(0.5)
            if COOLING in two.heard:
                break
        assert COOLING in two.heard
        await one.replicas.close()
        await two.replicas.close()


async def test_without_a_redis_nothing_is_kept_for_it():
    one = Replica()
    one.replicas.adopt(None)
    one.replicas.tell([COOLING])
    assert not one.replicas._waiting


@pytest.mark.slow
def test_two_gateways_share_a_retry_after(tmp_path: Path):
    loop, upstream = Loop(), FaultyUpstream()
    loop.run(upstream.start())
    at = {"type": "openai_compatible", "base_url": upstream.url, "max_retries": 0}
    config = {
        "providers": {"limited": {**at, "api_key": "sk-limited"}, "other": {**at, "api_key": "sk-other"}},
        "models": {"m": {"targets": ["limited/x"], "fallbacks": ["other/y"]}},
        "secret": "one secret of both replicas",
    }
    with redis_server(tmp_path) as (url, _):
        gateways = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            gateways.append(Gateway(tmp_path / name, {**config, "redis": {"url": url}}))
        try:
            eventually(lambda: all("replicas_linked" in (each.folder / "log").read_text() for each in gateways), 15)
            upstream.script("status:429,retry-after=60", "ok")
            assert gateways[0].ask("m").way == ("other", "2", "1")
            eventually(lambda: gateways[1].ask("m").way == ("other", "1", "1"), 10)
            met(upstream)
            assert gateways[1].ask("m").way == ("other", "1", "1")
            assert met(upstream) == {"other": 1}
        finally:
            for each in gateways:
                each.process.send_signal(2)
                each.process.wait(10)
            loop.run(upstream.stop())


@pytest.mark.parametrize("form", ["sentinel", "cluster", "socket", "user"])
async def test_they_hear_each_other_wherever_redis_is(tmp_path: Path, form: str):
    one, two = Replica(), Replica()
    with ExitStack() as stack:
        if form == "cluster":
            ports, _ = stack.enter_context(valkey_cluster(tmp_path, 2))
            places = [f"redis+cluster://127.0.0.1:{port}" for port in ports]
        elif form == "sentinel":
            url, _ = stack.enter_context(redis_server(tmp_path))
            watcher = stack.enter_context(sentinel(tmp_path, "main", port_of(url)))
            places = [f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watcher}/main"] * 2
        elif form == "socket":
            stack.enter_context(redis_server(tmp_path, None, "--unixsocket", str(tmp_path / "redis.sock")))
            places = [f"unix://{tmp_path}/redis.sock"] * 2
        else:
            url, _ = stack.enter_context(redis_server(tmp_path))
            say(port_of(url), "ACL", "SETUSER", "gateway", "on", ">p@ss", *acl())
            places = [url.replace("//", "//gateway:p%40ss@")] * 2
        for each, place in zip((one, two), places, strict=True):
            each.replicas.adopt(parse(place))
        await all_linked(one, two)
        one.replicas.tell([COOLING])
        await until(lambda: len(two.heard) == 1)
        for each in (one, two):
            await each.replicas.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_gateway.admin.replicas.LONGEST_PAUSE", 0.5)
