"""The register of tenants, projects, users and keys, in both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from databases import Migrated
from llm_gateway.core.tenancy import (
    Budget,
    Entry,
    Grant,
    Key,
    Limits,
    Project,
    Record,
    Secrets,
    Tenant,
    User,
    place,
    position,
)
from llm_gateway.stores.sql.directory import MARK, InUseError, MissingError, Register, Stored, TakenError, Wanted
from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade
from llm_gateway.stores.tables import Table

NOW = 1_800_000_000.0
GRANT = Grant(Limits(requests=60, concurrent=2), {"gpt-4": Limits(tokens=5)}, (Budget(10**9, "day", hard=False),), ("gpt-4",), ("eu",), 4096)
ACME = Tenant("acme", GRANT, each_user=Grant(Limits(day=5)), secrets={"openai": "sealed"})


def key(number: int, **more: object) -> Key:
    return Key(**({"id": f"key_{number}", "name": f"k{number}", "digest": bytes([number]) * 32, "tenant": "acme"} | more))


@pytest.fixture(params=["sqlite", "postgresql"])
async def register(request: pytest.FixtureRequest, tmp_path: Path, migrated: Migrated) -> AsyncIterator[Register]:
    postgres = request.param == "postgresql"
    engine = connect(migrated.postgres(request.getfixturevalue("postgres")) if postgres else migrated.sqlite(tmp_path))
    yield Register(engine)
    await engine.dispose()


def decoded(entries: dict[bytes, bytes | None]) -> dict[bytes, Record | None]:
    return {at: msgspec.msgpack.decode(value, type=Record) if value is not None else None for at, value in entries.items()}


@pytest.mark.parametrize("record", [ACME, Project("acme", "search", GRANT), User("acme", "bob", GRANT, disabled=True)], ids=["tenant", "project", "user"])
async def test_what_is_made_is_there_changes_and_goes(register: Register, record: Tenant | Project | User) -> None:
    kind = type(record)
    names = ("acme",) if kind is Tenant else ("acme", record.name)
    with pytest.raises(MissingError):
        await register.get(kind, *names)
    await register.create(record, NOW)
    assert await register.get(kind, *names) == Stored(record, NOW)
    with pytest.raises(TakenError):
        await register.create(record, NOW)
    changed = replace(record, grant=Grant(), disabled=True)
    assert (await register.change(kind, names, lambda before: replace(before, grant=Grant(), disabled=True))).record == changed
    assert [each.record for each in await register.page(kind)] == [changed]
    await register.remove(kind, names, NOW, cascade=False)
    assert await register.page(kind) == []
    for absent in (register.remove(kind, names, NOW, cascade=False), register.change(kind, names, lambda before: before)):
        with pytest.raises(MissingError):
            await absent
    await register.create(record, NOW + 5)  # the name is free again
    assert await register.get(kind, *names) == Stored(record, NOW + 5)


async def test_a_change_that_refuses_changes_nothing(register: Register) -> None:
    await register.create(ACME, NOW)
    serial = await register.serial()

    def refuse(_: Tenant) -> Tenant:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await register.change(Tenant, ("acme",), refuse)
    assert (await register.serial(), (await register.get(Tenant, "acme")).record) == (serial, ACME)


async def test_lists_go_on_where_they_ended(register: Register) -> None:
    for name in ("c", "a", "b"):
        await register.create(Tenant(name), NOW)
        await register.create(User("a" if name == "c" else "z", name), NOW)
    first = await register.page(Tenant, most=2)
    assert [each.record.name for each in first] == ["a", "b"]
    assert [each.record.name for each in await register.page(Tenant, after="b")] == ["c"]
    assert [each.record.name for each in await register.page(User, tenant="z")] == ["a", "b"]


async def test_keys_are_found_by_what_is_said_of_them(register: Register) -> None:
    made = [
        key(1, grant=GRANT, expires=NOW + 1, ips=("10.0.0.0/8",), scopes=("read", "admin"), project="search", user="bob"),
        key(2, tenant="other"),
        key(3, digest=b"", aws="AKGW2222222222222222", disabled=True),
    ]
    for each in made:
        await register.add(each, NOW, "admin")
    assert [each.record for each in await register.keys(Wanted(), NOW)] == made
    assert (await register.keys(Wanted(), NOW))[0] == Stored(made[0], NOW, "admin")
    for wanted, found in (
        (Wanted(tenant="acme"), [0, 2]), (Wanted(name="k2"), [1]), (Wanted(disabled=True), [2]), (Wanted(disabled=False, tenant="acme"), [0]),
        (Wanted(project="search"), [0]), (Wanted(user="bob", tenant="other"), []),
    ):  # fmt: skip
        assert [each.record for each in await register.keys(wanted, NOW)] == [made[at] for at in found]
    assert [each.record for each in await register.keys(Wanted(), NOW, after="key_1", most=1)] == [made[1]]
    assert await register.owner(made[0].digest) == made[0]
    assert await register.owner(bytes(32)) is None


async def test_a_removed_key_is_gone_for_whoever_asks(register: Register) -> None:
    await register.add(key(1), NOW, "")
    await register.remove_key("key_1", NOW)
    assert (await register.keys(Wanted(), NOW), await register.owner(key(1).digest)) == ([], None)
    for absent in (register.key("key_1", NOW), register.remove_key("key_1", NOW), register.rotate("key_1", key(2), 0, NOW)):
        with pytest.raises(MissingError):
            await absent


async def test_a_rotated_key_keeps_its_id_and_its_secret_of_before_for_a_while(register: Register) -> None:
    await register.add(key(1, grant=GRANT), NOW, "me")
    await register.rotate("key_1", key(2), 60.0, NOW)
    now = key(1, grant=GRANT, digest=key(2).digest)
    assert await register.key("key_1", NOW) == Stored(now, NOW, "me", (NOW + 60.0,))
    assert await register.keys(Wanted(), NOW) == [Stored(now, NOW, "me", (NOW + 60.0,))]
    assert await register.owner(key(2).digest) == now
    assert await register.owner(key(1).digest) == key(1, grant=GRANT, expires=NOW + 60.0)
    await register.change_key("key_1", lambda before: replace(before, disabled=True, ips=("10.0.0.0/8",), expires=NOW + 30), NOW)
    assert await register.owner(key(1).digest) == key(1, grant=GRANT, expires=NOW + 30.0, disabled=True, ips=("10.0.0.0/8",))
    assert (await register.key("key_1", NOW + 61)).overlaps == ()
    await register.remove_key("key_1", NOW)
    assert await register.owner(key(1).digest) is None


async def test_a_key_rotated_without_overlap_has_one_secret(register: Register) -> None:
    await register.add(key(1), NOW, "")
    serial = await register.serial()
    await register.rotate("key_1", key(2), 0.0, NOW)
    assert await register.owner(key(1).digest) is None
    assert (await register.key("key_1", NOW)).overlaps == ()
    _, entries = await register.since(serial)
    assert decoded(entries) == {key(1).digest: None, key(2).digest: key(1, digest=key(2).digest)}


async def test_a_secret_of_before_does_not_outlive_its_key(register: Register) -> None:
    await register.add(key(1, expires=NOW + 10), NOW, "")
    assert (await register.rotate("key_1", key(2), 60.0, NOW)).overlaps == (NOW + 10,)


@pytest.mark.parametrize(("kind", "names"), [(Tenant, ("acme",)), (Project, ("acme", "search")), (User, ("acme", "bob"))], ids=["tenant", "project", "user"])
async def test_nobody_goes_while_keys_belong_to_them_unless_those_go_too(register: Register, kind, names) -> None:
    for record in (ACME, Project("acme", "search"), User("acme", "bob"), User("other", "bob")):
        await register.create(record, NOW)
    for each in (key(1, project="search", user="bob"), key(3), key(4, tenant="other", user="bob", project="search")):
        await register.add(each, NOW, "")
    await register.rotate("key_1", key(2), 60.0, NOW)
    with pytest.raises(InUseError) as caught:
        await register.remove(kind, names, NOW, cascade=False)
    assert caught.value.keys == (2 if kind is Tenant else 1)
    serial = await register.serial()
    await register.remove(kind, names, NOW, cascade=True)
    assert [each.record.id for each in await register.keys(Wanted(), NOW)] == (["key_4"] if kind is Tenant else ["key_3", "key_4"])
    _, entries = await register.since(serial)
    gone = {key(1).digest, key(2).digest, place(":".join((kind.__name__.lower(), "/".join(names))))}
    if kind is Tenant:
        gone |= {key(3).digest, place("project:acme/search"), place("user:acme/bob")}
    assert entries == dict.fromkeys(gone)
    assert (await register.get(User, "other", "bob")).record == User("other", "bob")


async def test_whoever_asks_since_a_serial_hears_all_that_changed(register: Register) -> None:
    assert await register.since(0) == (0, {})
    await register.create(ACME, NOW)
    await register.add(key(1), NOW, "")
    serial, entries = await register.since(0)
    assert (serial, decoded(entries)) == (2, {position(ACME): ACME, key(1).digest: key(1)})
    await register.change_key("key_1", lambda before: replace(before, disabled=True), NOW)
    assert decoded((await register.since(serial))[1]) == {key(1).digest: key(1, disabled=True)}
    assert (await register.since(3))[1] == {}


async def test_changes_at_once_take_one_serial_each_and_none_is_missed(register: Register) -> None:
    """Twenty writers, and a reader that asks all the time: what it heard in the end is what there is."""
    heard: dict[bytes, bytes | None] = {}
    done = False

    async def read() -> None:
        serial = 0
        while not done or serial < 20:
            serial, entries = await register.since(serial)
            heard.update(entries)
            await asyncio.sleep(0)

    reader = asyncio.create_task(read())
    await asyncio.gather(*(register.add(key(number), NOW, "") for number in range(20)))
    done = True
    async with asyncio.timeout(20):
        await reader
    assert await register.serial() == 20
    assert set(heard) == {key(number).digest for number in range(20)}


async def test_a_database_is_told_from_one_that_was_made_anew(register: Register, tmp_path: Path) -> None:
    marks = [await register.mark()]
    other = connect(f"sqlite:///{tmp_path}/other.db")
    await upgrade(other)
    for each, moment in ((register, NOW), (Register(other), NOW + 1)):
        await each.add(key(1), moment, "")
        marks.append(await each.mark())
    assert (len(set(marks)), marks[2]) == (3, await Register(other).mark())
    await other.dispose()


async def test_the_key_table_holds_what_is_alive(register: Register, tmp_path: Path) -> None:
    for record in (ACME, Tenant("gone"), Project("acme", "search"), User("acme", "bob")):
        await register.create(record, NOW)
    await register.remove(Tenant, ("gone",), NOW, cascade=False)
    for each in (key(1), key(3), key(4, digest=b"", aws="AKGW2222222222222222")):
        await register.add(each, NOW, "")
    await register.rotate("key_1", key(2), 60.0, NOW)
    await register.remove_key("key_3", NOW)
    for moment, entries in ((NOW, 7), (NOW + 61, 6)):  # the secret of before is over
        serial = await register.export(tmp_path / "keys.table", moment)
        table = Table(tmp_path / "keys.table")
        assert (table.serial, len(table)) == (serial, entries)
        assert table.get(MARK) == await register.mark()
    found = {at: msgspec.msgpack.decode(value, type=Record) for at in entries_of(ACME, key(1, digest=key(2).digest)) if (value := table.get(at))}
    assert found == entries_of(ACME, key(1, digest=key(2).digest))
    assert table.get(position(key(4, digest=b"", aws="AKGW2222222222222222")))
    assert table.get(key(3).digest) is None
    assert table.get(place("tenant:gone")) is None


def entries_of(*records: Record) -> dict[bytes, Record]:
    return {position(each): each for each in records}


async def test_what_is_entrusted_comes_changes_goes_and_is_heard_of(register: Register, tmp_path: Path) -> None:
    assert await register.entrusted(["acme", "other"]) == {}
    await register.entrust("acme", lambda before: before | {"openai": "one"}, NOW)
    await register.entrust("acme", lambda before: before | {"groq": "two"}, NOW)
    await register.entrust("other", lambda before: {"openai": "three"}, NOW)
    kept = {"openai": "one", "groq": "two"}
    assert await register.entrusted(["acme", "nobody"]) == {"acme": kept}
    serial, entries = await register.since(0)
    assert serial == 3
    assert msgspec.msgpack.decode(entries[place("secrets:acme")], type=Entry) == Secrets("acme", kept)
    await register.export(tmp_path / "keys.table", NOW)
    assert Table(tmp_path / "keys.table").get(place("secrets:acme")) == entries[place("secrets:acme")]
    await register.entrust("acme", lambda _: {}, NOW + 1)
    assert await register.entrusted(["acme", "other"]) == {"other": {"openai": "three"}}
    assert (await register.since(serial))[1] == {place("secrets:acme"): None}
    await register.export(tmp_path / "keys.table", NOW)
    assert Table(tmp_path / "keys.table").get(place("secrets:acme")) is None
    await register.entrust("acme", lambda before: before | {"openai": "again"}, NOW + 2)
    assert await register.entrusted(["acme"]) == {"acme": {"openai": "again"}}


async def test_an_edit_of_what_is_entrusted_that_refuses_changes_nothing(register: Register) -> None:
    def refuse(_: dict[str, str]) -> dict[str, str]:
        raise MissingError

    with pytest.raises(MissingError):
        await register.entrust("acme", refuse, NOW)
    assert (await register.serial(), await register.entrusted(["acme"])) == (0, {})


async def test_of_many_that_entrust_at_once_none_is_lost(register: Register) -> None:
    names = [f"p{number}" for number in range(8)]
    await asyncio.gather(*(register.entrust("acme", lambda before, name=name: before | {name: "sealed"}, NOW) for name in names))
    assert sorted((await register.entrusted(["acme"]))["acme"]) == names
