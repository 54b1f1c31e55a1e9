"""One upstream connection: what of a reply is told, and when it may be used again."""

from __future__ import annotations

import asyncio

import pytest

from upstream.origin import OK, REQUEST, Told, answering, ask, connection, local, pooling, serving

KEEP = [
    ("length", OK), ("nothing", b"HTTP/1.1 204 No Content\r\n\r\n"), ("empty", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"),
    ("trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ncontent-encoding: gzip\r\n\r\n"),
    ("HTTP/1.0 keep-alive", b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok"),
    ("100 before", b"HTTP/1.1 100 Continue\r\n\r\n" + OK), ("103 twice before", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 2 + OK),
]  # fmt: skip
DROP = [
    ("says close", OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), "end"), ("HTTP/1.0", OK.replace(b"1.1", b"1.0"), "end"),
    ("bytes behind", OK + b"x", "end"), ("the beginning of a reply behind", OK + b"HTTP/1.1 200 OK\r\nx-a: ", "end"),
    ("a whole reply behind", OK + OK, "end"), ("ended by close", b"HTTP/1.1 200 OK\r\n\r\nok", "eof"),
]  # fmt: skip
BROKEN = [
    ("no HTTP", b"SSH-2.0-OpenSSH\r\n\r\n", "bad_upstream_reply"),
    ("CL and TE", OK.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n"), "bad_upstream_reply"),
    ("two lengths", OK.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n"), "bad_upstream_reply"),
    ("101", b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "bad_upstream_reply"),
    ("a bad chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "bad_upstream_reply"),
    ("201 fields", b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: a\r\n" % n for n in range(201)) + b"\r\n", "bad_upstream_reply"),
    ("an endless head", b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 200_000, "bad_upstream_reply"),
    ("100s for ever", b"HTTP/1.1 100 Continue\r\n\r\n" * 8000, "bad_upstream_reply"),
    ("endless trailers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + b"x-a: b\r\n" * 30_000, "bad_upstream_reply"),
    ("an endless chunk extension", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;" + b"a" * 200_000, "bad_upstream_reply"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reply"), KEEP, ids=[name for name, _ in KEEP])
async def test_a_complete_reply_leaves_a_connection_that_is_used_again(name, reply):
    async with serving(answering(reply, OK)) as port, pooling() as pool:
        first, told = await ask(pool, local(port))
        assert repr(first) == "<upstream Connection idle, request 1>"
        assert told.told[-1] == "end"
        assert told.body in (b"ok", b"")
        again, told = await ask(pool, local(port))
        assert again is first
        assert (told.told, told.body, told.headers) == ([200, "end"], b"ok", {b"content-length": b"2"})


@pytest.mark.parametrize(("name", "reply", "end"), DROP, ids=[name for name, *_ in DROP])
async def test_what_is_not_clearly_over_is_closed(name, reply, end):
    async with serving(answering(reply, close=end == "eof")) as port, pooling() as pool:
        used, told = await ask(pool, local(port))
        assert told.told == [200, end]
        assert told.body == b"ok"
        assert used.state == "closed"
        assert pool.take(pool.bay(local(port))) is None


@pytest.mark.parametrize(("name", "reply", "code"), BROKEN, ids=[name for name, *_ in BROKEN])
async def test_a_malformed_reply_is_a_fault_and_the_end(name, reply, code):
    async with serving(answering(reply)) as port, pooling() as pool:
        used, told = await ask(pool, local(port))
        assert told.told[-1] == code
        assert used.state == "closed"


@pytest.mark.parametrize("reply", [OK, KEEP[3][1], KEEP[6][1]])
async def test_the_cut_changes_nothing(reply):
    for at in range(1, len(reply)):

        async def play(reader, writer, at=at):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply[:at])
            await asyncio.sleep(0.001)
            writer.write(reply[at:])
            await reader.read()

        async with serving(play) as port, pooling() as pool:
            used, told = await ask(pool, local(port))
            assert (told.told, told.body, used.state) == ([200, "end"], b"ok", "idle")


async def test_a_byte_on_an_idle_connection_closes_it():
    async def play(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(b"H")
        await reader.read()

    async with serving(play) as port, pooling() as pool:
        used, _ = await ask(pool, local(port))
        assert used.state == "idle"
        await asyncio.sleep(0.1)
        assert used.state == "closed"


async def test_an_early_reply_while_the_request_is_still_going_out_is_told():
    async def play(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"200", b"413"))
        await reader.read()

    async with serving(play) as port, pooling() as pool:
        used, told = await connection(pool, local(port)), Told()
        used.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30000000\r\n\r\n" + b"x" * 30_000_000, told)
        assert (await told.over()).told == [413, "end"]


@pytest.mark.parametrize(
    ("reply", "used_before", "code"),
    [
        (b"", True, "upstream_stale"), (b"", False, "upstream_connect"), (b"HTTP/1.1 2", True, "upstream_connect"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", True, "upstream_connect"), (OK[:-1], True, "upstream_cut"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n", False, "upstream_cut"),
    ],
)  # fmt: skip
async def test_only_a_used_connection_that_said_nothing_is_stale(reply, used_before, code):
    replies = (OK, reply) if used_before else (reply,)
    async with serving(answering(*replies, close=True)) as port, pooling() as pool:
        for _ in replies:
            _, told = await ask(pool, local(port))
        assert told.fault is not None
        assert told.fault.code == code


# -- pausing and leaving -------------------------------------------------------------------------------------------------


class Pausing(Told):
    """Its client's buffer is full from the first byte on."""

    def __init__(self, used):
        super().__init__()
        self.used = used

    def data(self, body):
        super().data(body)
        self.used.pause()


async def test_a_connection_paused_in_its_last_read_is_read_again_afterwards():
    """It would go back to the pool deaf: neither its end nor the next reply would ever be heard."""
    async with serving(answering(OK, OK)) as port, pooling() as pool:
        used = await connection(pool, local(port))
        told = Pausing(used)
        used.send(REQUEST, told)
        await told.over()
        again, told = await ask(pool, local(port))
        assert again is used
        assert told.body == b"ok"


async def test_pause_stops_the_upstream_and_resume_goes_on():
    size = 8 << 20
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)
    async with serving(answering(reply)) as port, pooling() as pool:
        used = await connection(pool, local(port))
        told = Pausing(used)
        used.send(REQUEST, told)
        await asyncio.sleep(0.1)
        assert 0 < len(told.body) <= 16 << 10
        told.data = lambda body: Told.data(told, body)
        used.resume()
        await told.over()
        assert len(told.body) == size


async def test_a_reply_that_is_left_is_read_to_its_end_for_reuse_even_when_paused():
    async def play(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with serving(play) as port, pooling() as pool:
        used = await connection(pool, local(port))
        told = Pausing(used)
        used.send(REQUEST, told)
        await asyncio.sleep(0.02)
        assert used.state == "reading"
        used.leave()
        assert used.state == "left"
        await asyncio.sleep(0.1)
        assert used.state == "idle"
        assert not told.done.is_set()


async def test_leaving_before_any_reply_closes():
    async with serving(answering()) as port, pooling() as pool:
        used = await connection(pool, local(port))
        used.send(REQUEST, Told())
        used.leave()
        assert used.state == "closed"


async def test_closing_is_heard_by_the_upstream_and_told_to_nobody():
    heard = asyncio.Event()

    async def play(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        heard.set()

    async with serving(play) as port, pooling() as pool:
        used, told = await connection(pool, local(port)), Told()
        used.send(REQUEST, told)
        await asyncio.sleep(0.01)
        used.close()
        async with asyncio.timeout(1):
            await heard.wait()
        assert told.told == []


async def test_pieces_that_came_in_one_read_are_told_in_one():
    """They go on to the client in one write then: a system call costs as much as all that is done for an event."""
    told: list[bytes] = []

    class Counting(Told):
        def data(self, body: bytes) -> None:
            told.append(body)

    many = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50

    async def play(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(many)
        await asyncio.sleep(0.05)
        writer.write(b"1\r\nb\r\n1\r\nc\r\n0\r\n\r\n")

    async with serving(play) as port, pooling() as pool:
        used = await pool.open(pool.bay(local(port)))
        sink = Counting()
        used.send(REQUEST, sink)
        await sink.over()
    assert told == [b"a" * 50, b"bc"]
    assert sink.told == [200, "end"]


async def test_what_came_before_a_malformed_piece_is_told():
    async with serving(answering(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n")) as port, pooling() as pool:
        _, told = await ask(pool, local(port))
    assert (told.told, told.body) == ([200, "bad_upstream_reply"], b"ok")
