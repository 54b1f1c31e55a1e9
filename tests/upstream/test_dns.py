"""Names: own threads, one look-up at a time per host, the last good answer, and nobody waits for another's name."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.upstream import dns
from llm_gateway.upstream.dns import Address, Resolver, interleave

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]


class System:
    """Stands where the system's resolver stands: answers by host, may hang, counts."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.asked: list[str] = []
        self.go = threading.Event()
        self.go.set()

    def getaddrinfo(self, host: str, port: object, **options: object) -> object:
        self.asked.append(host)
        answer = self.answers.get(host, FOUND)
        if answer == "hang":
            self.go.wait(5)
            return FOUND
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System()
    monkeypatch.setattr(dns.socket, "getaddrinfo", system.getaddrinfo)
    yield system
    system.go.set()


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


def age(resolver: Resolver, host: str, seconds: float) -> None:
    resolver._answers[host].at -= seconds


async def test_a_literal_is_not_looked_up(system: System, resolver: Resolver):
    assert await resolver.resolve("192.0.2.7") == (Address(socket.AF_INET, "192.0.2.7"),)
    assert await resolver.resolve("2001:db8::1") == (Address(socket.AF_INET6, "2001:db8::1"),)
    assert system.asked == []


async def test_an_answer_is_good_for_thirty_seconds_and_asked_once_for_all(system: System, resolver: Resolver):
    answers = await asyncio.gather(*(resolver.resolve("a") for _ in range(50)))
    assert set(answers) == {(Address(socket.AF_INET, "192.0.2.1"),)}
    await resolver.resolve("a")
    assert system.asked == ["a"]


async def test_an_old_answer_serves_while_it_is_refreshed_in_the_background(system: System, resolver: Resolver):
    await resolver.resolve("a")
    age(resolver, "a", 31)
    system.go.clear()
    system.answers["a"] = "hang"
    began = time.perf_counter()
    for _ in range(20):
        assert len(await resolver.resolve("a")) == 1
    assert time.perf_counter() - began < 0.1
    await asyncio.sleep(0.02)
    assert system.asked == ["a", "a"]
    system.go.set()
    await asyncio.sleep(0.05)
    system.answers["a"] = [*FOUND, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.2", 0))]
    age(resolver, "a", 31)
    await resolver.resolve("a")
    await asyncio.sleep(0.05)
    assert len(await resolver.resolve("a")) == 2


async def test_the_last_good_answer_serves_five_minutes_and_no_longer(system: System, resolver: Resolver):
    await resolver.resolve("a")
    system.answers["a"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    age(resolver, "a", 200)
    for _ in range(3):
        assert len(await resolver.resolve("a")) == 1
        await asyncio.sleep(0.02)
    age(resolver, "a", 101)
    with pytest.raises(Fault, match="not known") as failed:
        await resolver.resolve("a")
    assert failed.value.kind is Kind.UPSTREAM_DNS


async def test_a_name_that_hangs_delays_no_other_and_is_given_up(
    system: System, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dns, "PATIENCE", 0.2)
    system.go.clear()
    for number in range(20):
        system.answers[f"slow{number}"] = "hang"
    slow = [asyncio.ensure_future(resolver.resolve(f"slow{number}")) for number in range(20)]
    await asyncio.sleep(0.02)
    began = time.perf_counter()
    await resolver.resolve("healthy")
    assert time.perf_counter() - began < 0.1
    results = await asyncio.gather(*slow, return_exceptions=True)
    assert all(isinstance(each, Fault) and each.kind is Kind.UPSTREAM_DNS for each in results)
    system.go.set()


async def test_whoever_leaves_does_not_take_the_look_up_along(system: System, resolver: Resolver):
    system.answers["a"] = "hang"
    system.go.clear()
    leaving, staying = asyncio.ensure_future(resolver.resolve("a")), asyncio.ensure_future(resolver.resolve("a"))
    await asyncio.sleep(0.02)
    leaving.cancel()
    await asyncio.sleep(0)
    system.go.set()
    assert len(await staying) == 1
    assert system.asked == ["a"]


async def test_each_who_waits_gets_a_fault_of_its_own(system: System, resolver: Resolver):
    """A Fault is changed by those who tell it to a client."""
    for error in (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), UnicodeError("label too long")):
        system.answers["a"] = error
        one, two = await asyncio.gather(*(resolver.resolve("a") for _ in range(2)), return_exceptions=True)
        assert isinstance(one, Fault)
        assert isinstance(two, Fault)
        assert one is not two
        assert one.kind is two.kind is Kind.UPSTREAM_DNS


def test_families_take_turns():
    four = [Address(socket.AF_INET, f"192.0.2.{n}") for n in range(3)]
    six = [Address(socket.AF_INET6, f"2001:db8::{n}") for n in range(2)]
    assert interleave((*six, *four)) == [six[0], four[0], six[1], four[1], four[2]]
    assert interleave((*four,)) == four
    assert interleave(()) == []


async def test_names_without_end_are_neither_all_kept_nor_all_looked_up(
    system: System, resolver: Resolver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dns, "MOST_ANSWERS", 3)
    monkeypatch.setattr(dns, "MOST_PENDING", 2)
    for host in ("a", "b", "c", "a", "d"):
        await resolver.resolve(host)
        age(resolver, host, 60)
    await asyncio.sleep(0.02)
    assert sorted(resolver._answers) == ["a", "c", "d"], "the one refreshed longest ago went"
    system.go.clear()
    system.answers = {"slow1": "hang", "slow2": "hang"}
    waiting = [asyncio.create_task(resolver.resolve(each)) for each in ("slow1", "slow2")]
    await asyncio.sleep(0.01)
    with pytest.raises(Fault, match="Too many names"):
        await resolver.resolve("e")
    assert await resolver.resolve("d") == (Address(socket.AF_INET, "192.0.2.1"),), "what is known needs no look-up"
    system.go.set()
    await asyncio.gather(*waiting)
    assert await resolver.resolve("e")
