"""A worker's view of who was made at run time: what changed last counts, and a file that is broken opens nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_gateway.admission.directory import Directory
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.tenancy import Key, Project, Record, Secrets, Tenant, User, place, position
from llm_gateway.stores.tables import write

KEY = Key(id="1", name="ci", digest=bytes(range(32)))
ACME = Tenant("acme")


def encoded(*records: Record) -> dict[bytes, bytes | None]:
    return {position(each): msgspec.msgpack.encode(each) for each in records}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "keys.table", encoded(KEY, ACME).items(), 10)
    return tmp_path / "keys.table"


def test_records_stand_where_their_ids_say() -> None:
    assert [position(each) for each in (ACME, Project("a", "p"), User("a", "u"), KEY, Key(id="2", name="x", aws="AKGW1"))] == [
        place("tenant:acme"), place("project:a/p"), place("user:a/u"), KEY.digest, place("aws:AKGW1"),
    ]  # fmt: skip


def test_table_and_deltas_are_one(path: Path) -> None:
    made = Directory()
    assert made.open(path) == ""
    assert (made.key(KEY.digest), made.find("tenant:acme"), made.find("user:acme/bob")) == (KEY, ACME, None)
    assert made.change(11, encoded(Tenant("acme", disabled=True), User("acme", "bob")) | {KEY.digest: None})
    assert (made.key(KEY.digest), made.find("tenant:acme"), made.find("user:acme/bob")) == (None, Tenant("acme", disabled=True), User("acme", "bob"))
    assert repr(made) == "<Directory: <Table keys.table: 2, serial 10>, 3 since, confirmed>"


def test_a_delta_that_the_table_holds_already_is_dropped(path: Path) -> None:
    made = Directory()
    made.open(path)
    assert not made.change(10, {KEY.digest: None})
    assert made.key(KEY.digest) == KEY


def test_a_new_table_takes_the_place_of_what_changed_before(path: Path) -> None:
    made = Directory()
    made.open(path)
    made.change(11, {KEY.digest: None})
    write(path, encoded(KEY).items(), 12)
    made.open(path)
    assert (made.serial, made.key(KEY.digest), made.find("tenant:acme")) == (12, KEY, None)


def test_a_table_from_before_says_what_tenants_may_use_and_opens_no_door(path: Path) -> None:
    made = Directory()
    made.open(path, confirmed=False)
    assert (made.key(KEY.digest), made.find("tenant:acme")) == (None, ACME)
    made.open(path)
    assert made.key(KEY.digest) == KEY


def test_a_broken_table_is_not_taken_and_the_one_before_stays(path: Path) -> None:
    made = Directory()
    made.open(path)
    broken = path.with_name("broken.table")
    broken.write_bytes(path.read_bytes()[:-1])
    assert "is not whole" in made.open(broken)
    assert "No such file" in made.open(path.with_name("none.table"))
    assert made.key(KEY.digest) == KEY


def test_a_broken_record_refuses_whoever_needs_it(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"acme", b"acmf"))
    made = Directory()
    made.open(path)
    with pytest.raises(Fault) as caught:
        made.find("tenant:acme")
    assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "directory_damaged")


def test_the_same_file_is_told_from_another_of_its_name(path: Path) -> None:
    made = Directory()
    made.open(path, confirmed=False)
    assert not made.holds(path)
    made.open(path)
    assert made.holds(path)
    write(path, encoded(KEY).items(), 10)
    assert not made.holds(path)
    path.unlink()
    assert not made.holds(path)


def test_a_tenant_is_no_key(path: Path) -> None:
    made = Directory()
    made.open(path)
    assert made.key(place("tenant:acme")) is None


def test_what_a_tenant_of_the_file_entrusted_is_found_by_its_name(path: Path) -> None:
    made = Directory()
    made.open(path)
    assert made.secrets("acme") == {}
    entry = Secrets("acme", {"openai": "sealed"})
    assert made.change(11, {position(entry): msgspec.msgpack.encode(entry)})
    assert made.secrets("acme") == {"openai": "sealed"}
    assert (made.find("tenant:acme"), made.find("secrets:acme")) == (ACME, None)
