"""One server through all that may become of it: the link prints where it stands, and tells each turn once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from functools import partial

import pytest

from llm_gateway.stores.redis import link as links
from llm_gateway.stores.redis.dial import Dialler
from llm_gateway.stores.redis.link import Link, Setup
from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import Command, Failure, pack
from llm_gateway.stores.redis.terms import Login, parse
from redis_server import redis_server, say
from stores.redis.conftest import port_of, until


class Watcher:
    def __init__(self) -> None:
        self.turns: list[str] = []

    def turned(self, link: Link, reason: str) -> None:
        self.turns.append(reason)

    def emptied(self, link: Link) -> None:
        self.turns.append("emptied")

    def redirected(self, link: Link, command: Command, text: str) -> None:
        raise AssertionError(text)


@asynccontextmanager
async def linked(url: str, timeout: float = 0.05):
    terms = parse(url)
    dialler, watcher = Dialler(terms), Watcher()
    link = Link(terms.nodes[0], partial(dialler.dial, terms.nodes[0]), Setup(Login(), 0, timeout, ()), watcher, Meter())
    try:
        yield link, watcher
    finally:
        link.close()
        dialler.close()


async def ask(link: Link, *words: str) -> object:
    assert link.gate is not None
    future = asyncio.get_running_loop().create_future()
    link.gate.send(Command(pack(*words), future))
    return await future


async def test_five_failures_open_it_and_a_probe_closes_it(own):
    url, _ = own
    async with linked(url, 2.0) as (link, watcher):
        await until(lambda: link.gate and not link.gate.pending)
        assert repr(link).endswith("ready, <Breaker closed 0 in a row>>")
        say(port_of(url), "CONFIG", "SET", "maxmemory", "1")
        for number in range(5):
            assert link.gate is not None, number
            assert (await ask(link, "SET", "k", "v")).kind == "oom"
        assert link.gate is None
        assert "oom, <Breaker open" in repr(link)
        await asyncio.sleep(1.2)
        assert watcher.turns == ["", "oom"], "probed meanwhile, and told once"
        say(port_of(url), "CONFIG", "SET", "maxmemory", "0")
        begun = time.perf_counter()
        await until(lambda: link.gate)
        assert time.perf_counter() - begun < 2.5
        assert watcher.turns == ["", "oom", ""]
        for _ in range(4):
            await ask(link, "NOTHING")
        assert link.gate is not None, "what was before is forgotten"


async def test_a_stall_ends_when_everything_was_read(own):
    url, process = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate)
        os.kill(process.pid, signal.SIGSTOP)
        assert await ask(link, "PING") == Failure("timeout")
        assert (link.gate, link.reason) == (None, "timeout")
        os.kill(process.pid, signal.SIGCONT)
        begun = time.perf_counter()
        await until(lambda: link.gate)
        assert time.perf_counter() - begun < 0.5
        assert watcher.turns == ["", "timeout", ""]


async def test_a_server_that_freezes_again_and_again_is_left_alone_for_a_while(own):
    url, process = own
    async with linked(url) as (link, _):
        for number in range(5):
            await until(lambda: link.gate)
            os.kill(process.pid, signal.SIGSTOP)
            assert await ask(link, "PING") == Failure("timeout"), number
            os.kill(process.pid, signal.SIGCONT)
            await asyncio.sleep(0.05)
        assert link.gate is None
        await until(lambda: link.gate, 5)


async def test_an_idle_connection_is_tried_before_a_request_needs_it(own, monkeypatch):
    monkeypatch.setattr(links, "BEAT", 0.1)
    url, process = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate)
        await asyncio.sleep(0.25)
        os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: watcher.turns == ["", "timeout"], 2)
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: link.gate)


@pytest.mark.row(24)
async def test_within_five_seconds_of_its_being_back(own, tmp_path):
    url, process = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate)
        process.kill()
        await until(lambda: link.gate is None)
        await asyncio.sleep(1.5)  # the pauses between attempts have grown
        with redis_server(tmp_path, port_of(url)):
            begun = time.perf_counter()
            await until(lambda: link.gate)
            assert time.perf_counter() - begun < 2
        assert watcher.turns[:3] == ["", "lost", ""]


async def test_who_accepts_and_says_nothing_is_no_server(monkeypatch):
    monkeypatch.setattr(links, "OPENING", 0.2)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with linked(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as (link, watcher):
        await until(lambda: watcher.turns)
        assert watcher.turns == ["timeout"]
        assert link.gate is None
    server.close()


@pytest.mark.row(26)
async def test_a_server_that_was_emptied_is_noticed(own, monkeypatch):
    monkeypatch.setattr(links, "BEAT", 0.05)
    url, _ = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate)
        await asyncio.sleep(0.2)
        assert watcher.turns == [""]
        say(port_of(url), "FLUSHALL")
        await until(lambda: len(watcher.turns) > 1)
        await asyncio.sleep(0.2)
        assert watcher.turns == ["", "emptied"]


@pytest.mark.row(26)
async def test_so_is_one_that_comes_back_empty(own, tmp_path):
    url, process = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate and not link.gate.pending)
        process.kill()
        await until(lambda: link.gate is None)
        with redis_server(tmp_path, port_of(url)):
            await until(lambda: "emptied" in watcher.turns)


async def test_closing_tells_nobody(own):
    url, _ = own
    async with linked(url) as (link, watcher):
        await until(lambda: link.gate)
    await asyncio.sleep(0.05)
    assert watcher.turns == [""]
