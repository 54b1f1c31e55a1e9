"""The audit log: nothing in it can be changed, taken out or put in without its showing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_gateway.telemetry import audit
from llm_gateway.telemetry.audit import BusyError, Chain, Entry, read, verify

SECRET = b"the gateway's secret"


def entry(number: int, month: str = "2026-11") -> Entry:
    return Entry(kind="change", ts=f"{month}-{number % 28 + 1:02}T00:00:00.000Z", gateway="g", actor="a", action=f"POST /{number}", said={"n": number})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    chain = Chain(tmp_path, SECRET)
    chain.append([entry(number) for number in range(5)])
    chain.append([entry(5), entry(6, "2026-12"), entry(7, "2026-12")])
    chain.close()
    return tmp_path


def lines(folder: Path, month: str = "2026-11") -> list[str]:
    return (folder / f"{month}.jsonl").read_text().splitlines(keepends=True)


def rewrite(folder: Path, made: list[str], month: str = "2026-11") -> None:
    (folder / f"{month}.jsonl").write_text("".join(made))


def test_what_was_written_holds_and_is_read_in_order(written: Path) -> None:
    found = verify(written, SECRET)
    assert (found.lines, found.first, found.last, found.broken) == (8, 1, 8, "")
    assert [line["said"]["n"] for line in read(written)] == list(range(8))


def changed(made: list[str]) -> list[str]:
    return [*made[:2], made[2].replace('"n":2', '"n":9'), *made[3:]]


def taken_out(made: list[str]) -> list[str]:
    return [*made[:2], *made[3:]]


def put_in(made: list[str]) -> list[str]:
    return [*made[:2], made[1], *made[2:]]


def swapped(made: list[str]) -> list[str]:
    return [made[0], made[2], made[1], *made[3:]]


def no_json(made: list[str]) -> list[str]:
    return [*made[:2], "hello\n", *made[3:]]


def hash_inside(made: list[str]) -> list[str]:
    line = json.loads(made[2])
    line["said"] = {"n": 9}
    return [*made[:2], json.dumps(line, separators=(",", ":")) + "\n", *made[3:]]


def last_of_month_gone(made: list[str]) -> list[str]:
    return made[:-1]


@pytest.mark.parametrize("harm", [changed, taken_out, put_in, swapped, no_json, hash_inside, last_of_month_gone])
def test_harm_shows(written: Path, harm: Callable[[list[str]], list[str]]) -> None:
    rewrite(written, harm(lines(written)))
    assert verify(written, SECRET).broken


def test_lines_missing_at_the_end_show(written: Path) -> None:
    rewrite(written, lines(written, "2026-12")[:1], "2026-12")
    assert verify(written, SECRET).broken == "the last line was number 8, and number 7 is the last there is"


def test_who_does_not_know_the_secret_cannot_write_a_chain_that_holds(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    chain = Chain(other, b"another secret")
    chain.append([entry(0)])
    chain.close()
    assert "its hash is not that of its content" in verify(other, SECRET).broken
    assert verify(other, b"another secret").broken == ""


def test_old_files_may_be_taken_to_an_archive(written: Path) -> None:
    (written / "2026-11.jsonl").unlink()
    found = verify(written, SECRET)
    assert (found.lines, found.first, found.broken) == (2, 7, "")


def test_the_chain_goes_on_after_a_restart_and_a_torn_line(written: Path) -> None:
    with (written / "2026-12.jsonl").open("a") as file:
        file.write('{"seq":9,"prev":"')
    chain = Chain(written, SECRET)
    assert chain.serial == 8
    chain.append([entry(8, "2026-12")])
    assert verify(written, SECRET).last == 9


def test_a_month_larger_than_memory_is_gone_on_with(written: Path) -> None:
    path = written / "2026-12.jsonl"
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(4 << 30)  # a hole: no disk, and all the memory of whoever reads it
        file.seek(0, 2)
        file.write(b"\n" + data + b'{"torn')
    chain = Chain(written, SECRET)
    assert (chain.serial, path.stat().st_size) == (8, (4 << 30) + 1 + len(data))
    chain.close()


def test_a_log_that_grows_while_it_is_checked_holds(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line more behind the last that was read; or half of it, as a reader may find it."""
    chain = Chain(written, SECRET)
    checked, read_of = audit._checked, 0

    def checking(key: bytes, line: bytes, last: int, before: str) -> tuple[str, int, str]:
        nonlocal read_of
        read_of += 1
        if read_of == 8:
            chain.append([entry(8, "2026-12")])
        return checked(key, line, last, before)

    monkeypatch.setattr(audit, "_checked", checking)
    assert verify(written, SECRET).broken == ""
    monkeypatch.undo()
    with (written / "2026-12.jsonl").open("a") as file:
        file.write('{"seq":10,"prev":"')
    assert (verify(written, SECRET).last, verify(written, SECRET).broken) == (9, "")
    with (written / "2026-11.jsonl").open("a") as file:
        file.write('{"seq":6,"prev":"')
    assert "no line" in verify(written, SECRET).broken


@pytest.mark.parametrize("said", [b"x y", b"\xff 1", b"1", b"1 2 3"])
def test_a_head_that_is_none_shows(written: Path, said: bytes) -> None:
    (written / "head").write_bytes(said)
    assert "head" in verify(written, SECRET).broken


def test_there_is_one_writer(written: Path) -> None:
    chain = Chain(written, SECRET)
    with pytest.raises(BusyError):
        Chain(written, SECRET)
    chain.close()
    Chain(written, SECRET).close()


@pytest.mark.row(32)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_the_disk_does_not_take_leaves_nothing(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(written, SECRET)
    before = lines(written, "2026-12")
    real = os.write

    def half(fd: int, data: bytes) -> int:
        return real(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="no room"):
        chain.append([entry(8, "2026-12"), entry(9, "2027-01")])
    monkeypatch.undo()
    assert lines(written, "2026-12") == before
    chain.append([entry(8, "2026-12")])
    assert verify(written, SECRET).broken == ""


def test_files_follow_each_other_as_lines_do_though_one_is_told_late_or_a_clock_put_back(tmp_path: Path) -> None:
    for _ in range(2):
        chain = Chain(tmp_path, SECRET)
        chain.append([entry(1, "2026-12")])
        chain.append([entry(2, "2026-11"), entry(3, "2027-01"), entry(4, "2026-12")])
        chain.close()
    assert (verify(tmp_path, SECRET).lines, verify(tmp_path, SECRET).broken) == (8, "")
    assert [line["seq"] for line in read(tmp_path)] == list(range(1, 9))
    assert [path.name for path in sorted(tmp_path.glob("*.jsonl"))] == ["2026-12.jsonl", "2027-01.jsonl"]
