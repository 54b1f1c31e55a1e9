"""From the database to the workers: what changes is known there at once, also what another gateway changed, and what a new worker hears."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from llm_gateway.admin import keytable
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.keytable import KeyTable
from llm_gateway.admin.notices import Notices
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.core.tenancy import Key, Tenant
from llm_gateway.stores.sql.directory import MARK, Register
from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade
from llm_gateway.stores.sql.purging import forget
from llm_gateway.stores.tables import Table
from llm_gateway.supervisor import channel
from supervisor.test_channel import SNAPSHOT

NOW = 1_800_000_000.0


def key(number: int, **more: object) -> Key:
    return Key(id=f"key_{number}", name=f"k{number}", digest=number.to_bytes(2) * 16, **more)


class Worker:
    """A worker's end of a link, with a worker's directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.directory = Directory()
        self.heard: list[channel.Down] = []

    def told(self, message: channel.Down) -> None:
        self.heard.append(message)
        match message:
            case channel.Tables(keys, _, _, since):
                if keys and not self.directory.holds(self.folder / keys):
                    assert self.directory.open(self.folder / keys) == ""
                    for delta in since:
                        self.directory.change(delta.serial, delta.entries)
            case channel.Delta(serial, entries):
                self.directory.change(serial, entries)

    def knows(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if self.directory.key(key(number).digest) is not None]


class Plane:
    """One gateway's operator, as far as this is concerned, and its workers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.engine = connect(url)
        self.register = Register(self.engine)
        self.said = io.StringIO()
        self.fleet = Fleet(SNAPSHOT, lambda _: None, lambda *_: None)
        self.table = KeyTable(self.register, folder, self.fleet, Notices(self.said, "json", "info"), ready=self.ready, clock=lambda: NOW)
        self.links: list[channel.OperatorLink] = []

    async def ready(self) -> None:
        return

    async def worker(self, index: int) -> Worker:
        one, other = socket.socketpair()
        worker = Worker(self.folder)
        loop = asyncio.get_running_loop()
        link = worker.link = await channel.worker_end(loop, one, worker.told)
        ours = await channel.operator_end(loop, other, partial(self.fleet.hear, index, index))
        self.links += [ours]
        self.fleet.join(index, index, ours)
        link.send(channel.Hello(index, 1000 + index, 7))
        await self.settle()
        return worker

    async def settle(self) -> None:
        await asyncio.sleep(0.02)

    async def look(self) -> None:
        await self.table.look()
        await self.settle()

    async def close(self) -> None:
        await self.table.close()
        for link in self.links:
            link.close()
        await self.settle()
        await self.engine.dispose()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/gateway.db"


@pytest.fixture
async def plane(url: str, tmp_path: Path) -> AsyncIterator[Plane]:
    made = Plane(url, tmp_path / "one")
    await upgrade(made.engine)
    yield made
    await made.close()


async def test_a_worker_knows_what_was_there_and_what_comes(plane: Plane) -> None:
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    first = await plane.worker(0)
    assert first.knows([1, 2]) == [1]
    await plane.register.add(key(2), NOW, "")
    await plane.register.create(Tenant("acme"), NOW)
    await plane.register.change_key("key_1", lambda before: replace(before, disabled=True), NOW)
    await plane.look()
    assert first.directory.key(key(1).digest) == key(1, disabled=True)
    assert (first.knows([2]), first.directory.find("tenant:acme")) == ([2], Tenant("acme"))
    late = await plane.worker(1)
    assert (late.knows([1, 2]), late.directory.find("tenant:acme")) == ([1, 2], Tenant("acme"))
    await plane.register.remove_key("key_2", NOW)
    await plane.look()
    assert (first.knows([1, 2]), late.knows([1, 2])) == ([1], [1])


async def test_no_key_is_unknown_for_a_moment_while_a_table_takes_anothers_place(plane: Plane) -> None:
    """What a worker knows after each single message, since requests come in between."""
    await plane.look()
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    late = await plane.worker(0)
    assert [type(each) for each in late.heard] == [channel.Tables]
    assert late.knows([1]) == [1]
    known: list[list[int]] = []
    told = late.told

    def noting(message: channel.Down) -> None:
        told(message)
        known.append(late.knows([1, 2]))

    late.link._on_message = noting
    serial = await plane.register.export(plane.folder / KEYS, NOW)
    await plane.register.add(key(2), NOW, "")
    await plane.look()  # changed while the table was being written
    plane.fleet.table(KEYS, serial)
    await plane.settle()
    assert known == [[1, 2], [1, 2]]


async def test_a_revoked_key_stays_so_when_spending_is_told_while_a_table_takes_anothers_place(plane: Plane) -> None:
    """Between the new file's taking the name and the workers' hearing of it."""
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    worker = await plane.worker(0)
    serial = await plane.register.export(plane.folder / KEYS, NOW)
    await plane.register.change_key("key_1", lambda before: replace(before, disabled=True), NOW)
    await plane.look()  # changed while the table was being written
    plane.fleet.spend("spend.table")
    plane.fleet.table(KEYS, serial)
    await plane.settle()
    assert worker.directory.key(key(1).digest) == key(1, disabled=True)
    assert [each.spend for each in worker.heard if isinstance(each, channel.Tables)][-1] == "spend.table"


async def test_a_table_that_is_damaged_just_where_it_says_whose_it_is_is_written_anew(plane: Plane) -> None:
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    table = plane.folder / KEYS
    mark = Table(table).get(MARK)
    table.write_bytes(table.read_bytes().replace(mark, bytes(len(mark))))
    again = Plane(str(plane.engine.url).replace("+aiosqlite", ""), plane.folder)
    await again.table.try_to_look()
    assert (await again.worker(0)).knows([1]) == [1]
    await again.close()


async def test_a_record_that_nobody_can_tell_does_not_end_the_looking(plane: Plane) -> None:
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    worker = await plane.worker(0)
    async with plane.engine.begin() as connection:
        await connection.exec_driver_sql("""UPDATE keys SET "grant" = '{"limits": {"day": 1000000000000000000000}}', changed = 2""")
        await connection.exec_driver_sql("UPDATE revision SET serial = 2")
    running = asyncio.create_task(plane.table.run())
    await plane.settle()
    assert "not read" in plane.said.getvalue()
    await plane.register.change_key("key_1", lambda before: replace(before, grant=None, disabled=True), NOW)
    async with asyncio.timeout(3):
        while worker.directory.key(key(1).digest) != key(1, disabled=True):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])


async def test_nothing_new_is_nothing_said(plane: Plane) -> None:
    worker = await plane.worker(0)
    for _ in range(3):
        await plane.look()
    assert [type(each) for each in worker.heard] == [channel.Tables]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_another_gateway_changes_arrives_within_two_seconds(url: str, tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """Two gateways' operators on one database."""
    shared = url if kind == "sqlite" else request.getfixturevalue("postgres").database()
    plane, other = Plane(shared, tmp_path / "one"), Plane(shared, tmp_path / "two")
    await upgrade(plane.engine)
    worker = await other.worker(0)
    running = asyncio.create_task(other.table.run())
    await plane.register.add(key(1), NOW, "")
    async with asyncio.timeout(2):
        while worker.knows([1]) != [1]:
            await asyncio.sleep(0.01)
    await plane.register.remove_key("key_1", NOW)
    async with asyncio.timeout(2):
        while worker.knows([1]):
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait([running])
    await plane.close()
    await other.close()


async def test_the_table_is_written_anew_once_much_has_changed(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keytable, "MOST_DIFFERENCES", 20)
    await plane.look()
    worker = await plane.worker(0)
    for number in range(30):
        await plane.register.add(key(number), NOW, "")
        if number % 10 == 9:
            await plane.look()
    async with asyncio.timeout(5):
        while plane.fleet.differences:
            await plane.look()
    assert Table(plane.folder / KEYS).serial == 30
    assert worker.knows(range(30)) == list(range(30))
    assert worker.directory.serial == 30


async def test_a_table_of_this_database_as_it_is_serves_again(plane: Plane, url: str) -> None:
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    before = (plane.folder / KEYS).stat().st_ino
    again = Plane(url, plane.folder)
    await again.look()
    assert ((plane.folder / KEYS).stat().st_ino, (await again.worker(0)).knows([1])) == (before, [1])
    await plane.register.remove_key("key_1", NOW)
    changed = Plane(url, plane.folder)
    await changed.look()
    assert (await changed.worker(0)).knows([1]) == []
    await again.close()
    await changed.close()


async def test_a_table_of_another_database_does_not(plane: Plane, tmp_path: Path) -> None:
    """Of the same name of keys, the same serial: only their owner differs."""
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    other = Plane(f"sqlite:///{tmp_path}/other.db", plane.folder)
    await upgrade(other.engine)
    await other.register.add(key(2), NOW, "")
    await other.look()
    assert (await other.worker(0)).knows([1, 2]) == [2]
    await other.close()


async def test_a_database_that_was_put_back_is_noticed(plane: Plane, url: str) -> None:
    await plane.look()
    for number in range(3):
        await plane.register.add(key(number), NOW, "")
    await plane.look()
    worker = await plane.worker(0)
    async with plane.engine.begin() as connection:
        for statement in ("DELETE FROM keys WHERE id IN ('key_1', 'key_2')", "UPDATE revision SET serial = 1"):
            await connection.exec_driver_sql(statement)
    await plane.look()
    assert worker.knows(range(3)) == [0]
    assert (await plane.worker(1)).knows(range(3)) == [0]


async def test_who_was_away_for_longer_than_the_removed_are_remembered_reads_everything_anew(plane: Plane) -> None:
    for number in range(3):
        await plane.register.add(key(number), NOW, "")
    await plane.look()
    worker = await plane.worker(0)
    assert worker.knows(range(4)) == [0, 1, 2]
    await plane.register.remove_key("key_1", NOW)  # while this gateway does not look
    await plane.register.add(key(3), NOW, "")
    assert await forget(plane.engine, 1, NOW + 2 * 86_400) == 1
    await plane.look()
    assert worker.knows(range(4)) == [0, 2, 3]
    await plane.register.remove_key("key_0", NOW)
    await plane.look()
    assert await forget(plane.engine, 1, NOW + 2 * 86_400) == 1
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    assert worker.knows(range(4)) == [1, 2, 3]


async def test_while_the_database_is_away_workers_keep_what_they_know(plane: Plane, url: str, tmp_path: Path) -> None:
    await plane.register.add(key(1), NOW, "")
    await plane.look()
    worker = await plane.worker(0)
    await plane.engine.dispose()
    (tmp_path / "gateway.db").rename(tmp_path / "hidden")
    cold = Plane(url, plane.folder)
    for _ in range(2):
        await cold.table.try_to_look()
    assert cold.table.away
    assert (worker.knows([1]), (await cold.worker(0)).knows([1])) == ([1], [1])
    assert [line for line in ("not read", "of the last run") if line in cold.said.getvalue()] == ["not read", "of the last run"]
    assert cold.said.getvalue().count("\n") == 2  # said once, not each second
    await cold.engine.dispose()
    for made in tmp_path.glob("gateway.db*"):
        made.unlink()
    (tmp_path / "hidden").rename(tmp_path / "gateway.db")
    await cold.table.try_to_look()
    assert not cold.table.away
    assert "read again" in cold.said.getvalue()
    await cold.close()


async def test_with_neither_a_database_nor_a_table_nobody_is_kept_waiting(plane: Plane, url: str, tmp_path: Path) -> None:
    await plane.engine.dispose()
    (tmp_path / "gateway.db").rename(tmp_path / "hidden")
    worker = await plane.worker(0)
    await plane.table.try_to_look()
    await plane.settle()
    for each in (worker, await plane.worker(1)):
        assert each.heard == [channel.Tables("", 0, absent=True)]
    await plane.engine.dispose()
    for made in tmp_path.glob("gateway.db*"):
        made.unlink()
    (tmp_path / "hidden").rename(tmp_path / "gateway.db")
    await plane.table.try_to_look()
    await plane.settle()
    assert (worker.directory.confirmed, worker.heard[-1].absent) == (True, False)


async def test_a_table_that_cannot_be_written_is_said_and_tried_again(plane: Plane) -> None:
    plane.folder.rmdir()
    await plane.table.try_to_look()
    assert "No such file" in plane.said.getvalue()
    plane.folder.mkdir()
    await plane.table.try_to_look()
    assert (await plane.worker(0)).directory.confirmed
