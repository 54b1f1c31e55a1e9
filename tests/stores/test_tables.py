"""Tables: everything is found, nothing else is, and a file that is not whole says so."""

from __future__ import annotations

import mmap
import tracemalloc
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.stores.tables import Table, TableError, write


def place(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.table"


@settings(max_examples=50)
@given(st.dictionaries(st.binary(min_size=32, max_size=32), st.binary(max_size=80), max_size=40), st.binary(min_size=32, max_size=32))
def test_what_was_written_is_found_and_nothing_else(tmp_path_factory, entries: dict[bytes, bytes], other: bytes) -> None:
    path = tmp_path_factory.mktemp("table") / "t"
    assert write(path, iter(entries.items()), 7) == len(entries)
    table = Table(path)
    assert (table.serial, len(table)) == (7, len(entries))
    assert {each: table.get(each) for each in entries} == entries
    assert table.get(other) == entries.get(other)


def test_of_several_at_one_place_the_last_counts(path: Path) -> None:
    assert write(path, [(place(1), b"old"), (place(2), b"x"), (place(1), b"new")], 1) == 2
    assert Table(path).get(place(1)) == b"new"


def test_a_reader_keeps_what_it_has_mapped_when_another_file_takes_the_name(path: Path) -> None:
    write(path, [(place(1), b"old")], 1)
    before = Table(path)
    write(path, [(place(1), b"new")], 2)
    assert (before.get(place(1)), Table(path).get(place(1))) == (b"old", b"new")


def test_a_writer_that_fails_leaves_the_old_file_and_no_draft(path: Path) -> None:
    write(path, [(place(1), b"old")], 1)

    def broken():
        yield place(1), b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write(path, broken(), 2)
    with pytest.raises(ValueError, match="32 bytes"):
        write(path, [(b"short", b"")], 2)
    assert Table(path).get(place(1)) == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["keys.table"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [0, 3, 47, 48, 60, -1])
def test_a_truncated_file_is_refused(path: Path, cut: int) -> None:
    write(path, [(place(number), b"value") for number in range(10)], 1)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TableError, match=r"keys\.table is no"):
        Table(path)


def test_every_damaged_byte_is_noticed_or_harmless(path: Path) -> None:
    """Not one flipped byte makes a place yield what was not written there."""
    entries = {place(number): b"value %d" % number for number in range(5)}
    write(path, entries.items(), 1)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            table = Table(path)
            found = {each: table.get(each) for each in entries}
        except TableError:
            continue
        assert all(value in (None, entries[each]) for each, value in found.items()), at
    path.write_bytes(b"GIF89a" + whole[6:])
    with pytest.raises(TableError, match="is no table"):
        Table(path)


def test_a_table_of_a_later_version_is_named(path: Path) -> None:
    write(path, [], 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:6] + b"\0\x09" + whole[8:])
    with pytest.raises(TableError, match="version 9"):
        Table(path)


def test_a_writer_holds_the_index_and_not_the_values(path: Path) -> None:
    """2,000 values of 64 KB are 128 MB; a hundredth of that is held at a time."""
    tracemalloc.start()
    try:
        assert write(path, ((place(number), bytes(1 << 16)) for number in range(2_000)), 1) == 2_000
        assert tracemalloc.get_traced_memory()[1] < 1_300_000
    finally:
        tracemalloc.stop()
    assert Table(path).get(place(1_999)) == bytes(1 << 16)


class Counted(mmap.mmap):
    looks = 0

    def __getitem__(self, key):
        Counted.looks += 1
        return super().__getitem__(key)


def test_a_look_up_is_a_bisection(path: Path) -> None:
    """Counted: of 4,096 entries twelve are looked at, and the value."""
    write(path, ((place(number), b"v") for number in range(4096)), 1)
    table = Table(path)
    with path.open("rb") as file:
        table._map = Counted(file.fileno(), 0, access=mmap.ACCESS_READ)
    for number in (0, 17, 4095):
        Counted.looks = 0
        assert table.get(place(number)) == b"v"
        assert Counted.looks <= 13
    Counted.looks = 0
    assert table.get(bytes(32)) is None
    assert Counted.looks <= 13
