"""The journal on good disks and bad: lines whole or absent, in order, never lost silently."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.accounting import journal as module
from llm_gateway.accounting.journal import MOST_WAITING, Journal, read
from processes import eventually

Make = Callable[..., Journal]


def row(number: int, size: int = 0) -> bytes:
    return json.dumps({"n": number, "fill": "x" * size}).encode() + b"\n"


def numbers(folder: Path) -> list[int]:
    return [each["n"] for each in read(folder)]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Journal] = []

    def start(**options: object) -> Journal:
        made.append(Journal(tmp_path / "journal", 0, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


class Disk:
    """Stands before os.write: `takes` bytes more, then ENOSPC; None: all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.takes: int | None = None
        self.calls = 0
        real = os.write

        def write(fd: int, data: bytes) -> int:
            self.calls += 1
            if self.takes is None:
                return real(fd, data)
            if not self.takes:
                raise OSError(errno.ENOSPC, "No space left on device")
            piece = data[: self.takes]
            self.takes -= len(piece)
            return real(fd, piece)

        monkeypatch.setattr(os, "write", write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_rows_are_in_the_file_when_write_returns(make: Make, tmp_path: Path) -> None:
    journal = make()
    journal.write([row(1), row(2)])
    journal.write([row(3)])
    assert numbers(tmp_path / "journal") == [1, 2, 3]
    assert (journal.rows, journal.errors, repr(journal)) == (3, 0, "<Journal 3 rows, 0 bytes waiting, 0 errors>")


def test_a_tick_is_one_system_call(make: Make, disk: Disk) -> None:
    make().write([row(n) for n in range(100)])
    assert disk.calls == 1


def test_the_file_is_for_its_owner_and_group(make: Make, tmp_path: Path) -> None:
    make()
    (path,) = (tmp_path / "journal").iterdir()
    assert path.stat().st_mode & 0o777 & ~0o640 == 0
    assert path.name.split("-")[1:3] == ["0", str(os.getpid())]


def test_two_workers_and_two_lives_never_share_a_file(tmp_path: Path) -> None:
    for worker in (0, 1):
        for _ in range(2):
            one = Journal(tmp_path, worker)
            one.write([row(worker)])
            one.close()
    assert sorted(numbers(tmp_path)) == [0, 0, 1, 1]


def test_what_a_full_disk_took_of_a_row_is_taken_back(make: Make, disk: Disk, tmp_path: Path) -> None:
    journal = make()
    journal.write([row(1)])
    disk.takes = 7
    journal.write([row(2), row(3)])
    (path,) = (tmp_path / "journal").iterdir()
    assert path.read_bytes() == row(1)
    assert journal.errors == 1
    assert journal.waiting_bytes == len(row(2) + row(3))
    disk.takes = None
    journal.write([row(4)])
    assert numbers(tmp_path / "journal") == [1], "order is kept: nothing overtakes what waits"
    journal.retry()
    assert numbers(tmp_path / "journal") == [1, 2, 3, 4]
    assert (journal.rows, journal.waiting_bytes) == (4, 0)


def test_a_torn_line_that_cannot_be_taken_back_is_its_files_last(
    make: Make, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal = make()
    journal.write([row(1)])
    monkeypatch.setattr(os, "ftruncate", refuse)
    disk.takes = 7
    journal.write([row(2)])
    disk.takes = None
    journal.retry()
    journal.write([row(3)])
    assert numbers(tmp_path / "journal") == [1, 2, 3]
    assert len(list((tmp_path / "journal").iterdir())) == 2


def test_a_disk_that_stays_full_is_asked_once_a_second_not_once_a_tick(make: Make, disk: Disk) -> None:
    journal = make()
    disk.takes = 0
    for number in range(50):
        journal.write([row(number)])
    assert disk.calls == 1
    assert not journal.full


def fill(journal: Journal) -> None:
    size = 1 << 20
    for number in range(MOST_WAITING // size):
        journal.write([row(number, size)])


def test_refuse_says_full_until_the_disk_takes_what_waited(make: Make, disk: Disk, tmp_path: Path) -> None:
    journal = make(on_error="refuse")
    disk.takes = 0
    fill(journal)
    assert journal.full
    journal.write([row(99)])  # a request that was under way keeps its row
    assert journal.dropped == 0
    disk.takes = None
    journal.retry()
    assert not journal.full
    assert numbers(tmp_path / "journal") == [*range(MOST_WAITING // (1 << 20)), 99]


def test_continue_gives_rows_up_and_counts_them(make: Make, disk: Disk, tmp_path: Path) -> None:
    journal = make(on_error="continue")
    disk.takes = 0
    fill(journal)
    journal.write([row(98), row(99)])
    assert (journal.full, journal.dropped) == (False, 2)
    disk.takes = None
    journal.retry()
    assert numbers(tmp_path / "journal")[-1] == MOST_WAITING // (1 << 20) - 1


def test_a_reload_may_change_what_full_means(make: Make, disk: Disk) -> None:
    journal = make(on_error="refuse")
    disk.takes = 0
    fill(journal)
    assert journal.full
    journal.adopt("continue")
    assert not journal.full
    journal.write([row(99)])
    assert journal.dropped == 1
    journal.adopt("refuse")
    assert journal.full
    disk.takes = None


def test_a_full_disk_at_the_start_follows_the_policy_too(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def no_room(path: object, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_room)
        journal = make()
        journal.write([row(1)])
        assert (journal.errors, journal.rows) == (2, 0)
    journal.retry()
    assert numbers(tmp_path / "journal") == [1]


def test_a_directory_that_may_not_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "journal", 0)


def test_a_file_that_is_large_enough_is_followed_by_the_next(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT", 100)
    journal = make()
    for number in range(20):
        journal.write([row(number)])
    files = sorted((tmp_path / "journal").iterdir())
    assert len(files) > 4
    assert all(path.stat().st_size <= 100 for path in files)
    assert numbers(tmp_path / "journal") == list(range(20))


def test_outgrown_files_are_synced_and_closed_off_the_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "SEGMENT", 100)
    monkeypatch.setattr(module, "SYNC_SECONDS", 0.05)
    journal = make()
    journal.close()
    journal = make()
    for number in range(20):
        journal.write([row(number)])

    def held() -> list[Path]:
        opened = [Path(os.path.realpath(fd)) for fd in Path("/proc/self/fd").iterdir()]
        return [path for path in opened if path.parent == tmp_path / "journal"]

    if Path("/proc/self/fd").exists():
        eventually(lambda: len(held()) == 1)


def test_a_torn_tail_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(row(1) + b'{"n": 2, "fi')
    (tmp_path / "2.jsonl").write_bytes(row(3) + b"\0" * 40)  # what a power cut leaves of a page that was never written
    (tmp_path / "3.jsonl").write_bytes(b"")
    assert numbers(tmp_path) == [1, 3]


def test_a_broken_line_before_the_end_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_bytes(row(1) + b"{oops\n" + row(2))
    with pytest.raises(ValueError, match=r"1\.jsonl:2: "):
        list(read(tmp_path))


def test_no_journal_is_no_rows(tmp_path: Path) -> None:
    assert list(read(tmp_path / "absent")) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 120), st.none()), min_size=1, max_size=30))
def test_whatever_the_disk_takes_every_row_is_there_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, takes: list[int | None]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        journal = Journal(folder, 0)
        for number, limit in enumerate(takes):
            disk.takes = limit
            journal.write([row(number)])
            journal.retry()
            assert numbers(folder) == list(range(journal.rows)), "at any moment: a prefix, whole lines only"
        disk.takes = None
        journal.close()
    assert numbers(folder) == list(range(len(takes)))


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
from llm_gateway.accounting.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
journal = Journal(Path(sys.argv[1]), 0)
for number in range(30):
    journal.write([json.dumps({"n": number, "fill": "x" * 60}).encode() + b"\\n"])
print(json.dumps([journal.rows, journal.errors, journal.waiting_bytes > 0]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.close()
"""


def test_a_real_limit_takes_a_part_and_later_the_rest(tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes the kernel itself write short, then fail: the same as a disk that fills up."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=20
    )
    rows, errors, waiting = json.loads(done.stdout)
    assert 0 < rows < 30
    assert errors >= 1
    assert waiting
    assert numbers(tmp_path) == list(range(30))


KILLED = """
import json, sys
from pathlib import Path
from llm_gateway.accounting.journal import Journal
journal = Journal(Path(sys.argv[1]), 0)
number = 0
while True:
    journal.write([json.dumps({"n": number}).encode() + b"\\n"])
    print(number, flush=True)
    number += 1
"""


def test_what_was_written_survives_kill_9(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(200)]
    process.kill()
    process.wait(5)
    process.stdout.close()
    assert numbers(tmp_path)[: len(said)] == said


def test_closing_is_quick(make: Make) -> None:
    begun = time.monotonic()
    make().close()
    assert time.monotonic() - begun < 0.5
