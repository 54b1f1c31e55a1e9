"""Many commands on one connection: order, writes, deadlines, and whoever leaves before the reply."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import Call, Command, Connection, Failure, kind, pack
from stores.redis.conftest import port_of, until


class Owner:
    def __init__(self) -> None:
        self.told: list[str] = []

    def refused(self, connection: Connection, command: Command, text: str) -> None:
        command.answer(Failure(kind(text), text))

    def stalled(self, connection: Connection) -> None:
        self.told.append("stalled")

    def thawed(self, connection: Connection) -> None:
        self.told.append("thawed")

    def lost(self, connection: Connection) -> None:
        self.told.append("lost")


@asynccontextmanager
async def connected(url: str, timeout: float = 0.05):
    owner, meter = Owner(), Meter()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(owner, meter, timeout), "127.0.0.1", port_of(url))
    try:
        yield connection, owner, meter
    finally:
        connection.close()


class Peer:
    """A server that says what the test has it say, and counts the writes that reach it."""

    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.writer: Any = None

    async def serve(self, reader, writer) -> None:
        self.writer = writer
        while data := await reader.read(1 << 16):
            self.reads.append(data)


@asynccontextmanager
async def scripted(timeout: float = 2.0):
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    async with connected(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout) as (connection, owner, meter):
        await until(lambda: peer.writer is not None)
        try:
            yield peer, connection, owner, meter
        finally:
            peer.writer.close()
            server.close()


async def test_replies_go_to_those_who_asked(fresh):
    async with connected(fresh, 2.0) as (connection, _, meter):
        for number in range(50):
            connection.ask("SET", f"k{number}", number)
        found = await asyncio.gather(*(connection.ask("GET", f"k{number}") for number in range(50)))
        assert found == [str(number).encode() for number in range(50)]
        assert sum(meter.seconds.counts) == 100


async def test_commands_of_one_tick_travel_in_one_write():
    async with scripted() as (peer, connection, _, _):
        futures = [connection.ask("PING") for _ in range(100)]
        await until(lambda: peer.reads)
        assert peer.reads == [pack("PING") * 100]
        peer.writer.write(b"+PONG\r\n" * 100)
        assert await asyncio.gather(*futures) == [b"PONG"] * 100


async def test_what_nobody_waits_for_travels_with_the_next_or_soon(monkeypatch):
    async with scripted() as (peer, connection, _, _):
        got = []
        with monkeypatch.context() as stopped:  # the loop's clock: however slow the machine is, the few milliseconds are not over
            now = asyncio.get_running_loop().time()
            stopped.setattr(asyncio.get_running_loop(), "time", lambda: now)
            connection.post(Command(pack("A"), Call(got.append)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert peer.reads == []
            connection.ask("B")
        await until(lambda: peer.reads)
        assert peer.reads == [pack("A") + pack("B")]
        connection.post(Command(pack("C"), Call(got.append)))
        await until(lambda: len(peer.reads) == 2)
        peer.writer.write(b":1\r\n:2\r\n:3\r\n")
        await until(lambda: got == [1, 3])


async def test_replies_in_pieces():
    async with scripted() as (peer, connection, _, _):
        future = connection.ask("X")
        await until(lambda: peer.reads)
        for byte in b"*2\r\n$3\r\nabc\r\n*1\r\n:7\r\n":
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await future == [b"abc", [7]]


@pytest.mark.row(27)
async def test_a_thousand_cancelled_while_their_reply_is_on_its_way_and_no_cross_talk(fresh):
    async with connected(fresh, 2.0) as (connection, _, _):
        for number in range(1000):
            left = asyncio.ensure_future(_echo(connection, f"left {number}"))
            stays = asyncio.ensure_future(_echo(connection, f"stays {number}"))
            for _ in range(number % 4):  # at every stage of the way: before it is sent, sent, answered
                await asyncio.sleep(0)
            left.cancel()
            assert await stays == f"stays {number}".encode()
            assert left.cancelled() or await left == f"left {number}".encode()
        assert not connection.pending


async def _echo(connection: Connection, word: str) -> bytes:
    return await connection.ask("ECHO", word)


async def test_a_late_reply_is_told_to_all_who_wait_and_read_all_the_same(own):
    url, process = own
    async with connected(url, 2.0) as (connection, owner, meter):
        assert await connection.ask("PING") == b"PONG"
        connection.hurry(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        begun = asyncio.get_running_loop().time()
        first = connection.ask("ECHO", "first")
        await asyncio.sleep(0.03)
        second = connection.ask("ECHO", "second")
        assert await first == await second == Failure("timeout")
        assert 0.04 <= asyncio.get_running_loop().time() - begun < 1.0
        assert connection.stuck
        connection.hurry(2.0)
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: owner.told == ["stalled", "thawed"])
        assert await connection.ask("ECHO", "third") == b"third"
        assert meter.failures == {"timeout": 2}


async def test_a_loop_that_was_late_itself_is_no_stall(fresh):
    import time

    async with connected(fresh) as (connection, owner, _):
        for _ in range(5):
            reply = connection.ask("PING")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(0.08)  # the reply has long been in the socket
            assert await reply == b"PONG"
        assert owner.told == []


async def test_a_lost_connection_answers_everybody(own):
    url, process = own
    async with connected(url, 2.0) as (connection, owner, meter):
        os.kill(process.pid, signal.SIGSTOP)
        waiting = [connection.ask("PING") for _ in range(3)]
        await asyncio.sleep(0.02)
        process.kill()
        assert await asyncio.gather(*waiting) == [Failure("lost")] * 3
        assert owner.told == ["lost"]
        assert meter.failures == {"lost": 3}
        assert repr(connection) == "<Connection closed, 0 waiting>"


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n+UNASKED\r\n"])
async def test_who_does_not_speak_redis_is_left(said):
    async with scripted() as (peer, connection, owner, _):
        future = connection.ask("PING")
        await until(lambda: peer.reads)
        peer.writer.write(said)
        assert await future in (b"OK", Failure("lost"))
        await until(lambda: owner.told == ["lost"])
        assert connection.closed


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "oom"),
        ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", "oom"),
        ("READONLY You can't write against a read only replica.", "readonly"),
        ("WRONGPASS invalid username-password pair", "auth"),
        ("NOPERM this user has no permissions", "auth"),
        ("CLUSTERDOWN The cluster is down", "clusterdown"),
        ("ERR unknown command", "error"),
        ("", "error"),
    ],
)
def test_kinds(text, named):
    assert kind(text) == named
