"""Operator and worker, two ends of one socketpair, talking."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from llm_gateway.config.snapshot import Listener, Server, Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.supervisor.channel import (
    Changed,
    Credentials,
    Hello,
    Load,
    Mean,
    Probed,
    Purge,
    Report,
    operator_end,
    worker_end,
)

SNAPSHOT = Snapshot(
    generation=7,
    digest="d",
    version="1",
    workers=1,
    data_dir="/d",
    secret=b"s",
    server=Server(listeners=(Listener(),)),
    providers=(),
    aliases=(),
    keys=(),
)
REPORT = Report(
    0, 1, 7, 3, {"a_total": {'x="1"': 2}, "h": {"": [1, 0, 2.5]}}, {"openai": (True, 12.5), "b": (False, None)}
)

CHANGE = Change("openai", "0", "gpt-4o", "breaker_opened", 10.0, "5 failures in a row")


class Pair:
    def __init__(self) -> None:
        self.at_worker: list[object] = []
        self.at_operator: list[object] = []
        self.lost: list[str] = []

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        self.worker = await worker_end(loop, one, self.at_worker.append, lambda: self.lost.append("worker"))
        self.operator = await operator_end(loop, other, self.at_operator.append, lambda: self.lost.append("operator"))

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)


@pytest.fixture
async def pair() -> Pair:
    made = Pair()
    await made.connect()
    yield made
    made.worker.close()
    made.operator.close()
    await made.settle()


async def test_every_message_arrives_as_it_was_sent(pair):
    assert pair.worker.send(Hello(0, 99, 7))
    assert pair.worker.send(REPORT)
    assert pair.operator.send(Load(SNAPSHOT))
    assert pair.operator.send(Mean(2.5))
    assert pair.worker.send(Changed([CHANGE]))
    assert pair.operator.send(Changed([CHANGE]))
    assert pair.operator.send(Probed({"openai": (False, None)}))
    await pair.settle()
    assert pair.at_operator == [Hello(0, 99, 7), REPORT, Changed([CHANGE])]
    assert pair.at_worker == [Load(SNAPSHOT), Mean(2.5), Changed([CHANGE]), Probed({"openai": (False, None)})]


async def test_messages_may_come_in_any_cut():
    for size in (1, 2, 3, 5, 1000):
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        heard: list[object] = []
        link = await operator_end(loop, other, heard.append)
        payload = b""
        for message in (Hello(0, 1, 2), REPORT, Hello(3, 4, 5)):
            body = msgspec.msgpack.encode(message)
            payload += len(body).to_bytes(4, "big") + body
        for start in range(0, len(payload), size):
            link.data_received(payload[start : start + size])
        assert heard == [Hello(0, 1, 2), REPORT, Hello(3, 4, 5)]
        link.close()
        one.close()
        await asyncio.sleep(0)


async def test_the_end_of_one_is_known_to_the_other_and_sending_then_is_harmless(pair):
    pair.worker.close()
    await pair.settle()
    assert sorted(pair.lost) == ["operator", "worker"]
    assert pair.operator.send(Mean(1.0)) is False


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\xc1\xc1", b"\x00\x00\x00\x01\x80"])
async def test_what_is_no_message_ends_the_link(pair, garbage):
    pair.operator.data_received(garbage)
    await pair.settle()
    assert "operator" in pair.lost
    assert pair.at_operator == []


async def test_a_side_that_does_not_read_costs_reports_but_never_a_configuration_credentials_or_changes():
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    link = await operator_end(loop, one, lambda _: None)
    bulky = msgspec.structs.replace(SNAPSHOT, data_dir="x" * (2 << 20))
    assert link.send(Load(bulky)) is True
    assert link.send(Mean(1.0)) is False
    assert link.send(Load(bulky)) is True
    assert link.send(Credentials({"aws": "A:B"})) is True
    assert link.send(Probed({"a": (True, 1.0)})) is False
    assert link.send(Changed([CHANGE])) is True
    assert link.send(Purge(tag="red")) is True
    link.close()
    other.close()
    await asyncio.sleep(0)


def test_credentials_do_not_print_themselves():
    assert repr(Credentials({"aws": "A:B", "vertex": "ya29"})) == "Credentials(aws, vertex)"
