"""The access log's sinks, good and bad: lines may be lost, whole and counted; nothing ever waits."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.telemetry import access
from llm_gateway.telemetry.access import AccessLog

LINE = b'{"level":"info","n":%d}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


class Sink:
    """What is behind a log: each entry of `takes` is how many bytes the next call takes, or the error it raises."""

    def __init__(self, *takes: int | type[OSError] | None) -> None:
        self.takes = list(takes)
        self.got = bytearray()

    def __call__(self, data: bytes | bytearray) -> int:
        take = self.takes.pop(0) if self.takes else None
        if isinstance(take, type):
            raise take(errno.EAGAIN if take is BlockingIOError else errno.ENOSPC, "no")
        piece = data if take is None else data[:take]
        self.got += piece
        return len(piece)


@pytest.fixture
def log(file: Path) -> AccessLog:
    return AccessLog(str(file))


def test_lines_are_appended(log: AccessLog, file: Path) -> None:
    log.write([LINE % 1, LINE % 2])
    AccessLog(str(file)).write([LINE % 3])
    assert file.read_bytes() == b"".join(LINE % number for number in (1, 2, 3))
    assert file.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        AccessLog(str(tmp_path / "none" / "access.log"))


def test_a_slow_sink_gets_the_rest_later_in_order(log: AccessLog) -> None:
    sink = log._send = Sink(5, BlockingIOError, 3, None)
    for number in range(3):
        log.write([LINE % number])
    log.flush()
    assert bytes(sink.got) == b"".join(LINE % number for number in range(3))
    assert (log.dropped, repr(log)) == (0, "<AccessLog 0 bytes waiting, 0 lines dropped>")


def test_a_sink_that_stays_full_costs_lines_and_bounded_memory(log: AccessLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_WAITING", 100)
    sink = log._send = Sink(*[BlockingIOError] * 50)
    for number in range(50):
        log.write([LINE % number])
    assert len(log._rest) < 100 + 2 * len(LINE)
    log.flush()
    kept = sink.got.count(b"\n")
    assert log.dropped == 50 - kept > 0
    assert bytes(sink.got) == b"".join(LINE % number for number in range(kept))


def test_a_disk_that_fills_up_costs_lines_and_leaves_no_two_glued_together(log: AccessLog) -> None:
    sink = log._send = Sink(7, OSError, OSError, None)
    log.write([LINE % 0])  # begun
    log.write([LINE % 1])  # and lost, with the end of the first
    log.write([LINE % 2])  # lost
    log.write([LINE % 3])
    half, *whole = bytes(sink.got).splitlines(keepends=True)
    assert half == (LINE % 0)[:7] + b"\n"
    assert log.dropped + len(whole) == 4


def test_a_broken_sink_is_no_error(log: AccessLog) -> None:
    log._send = Sink(*[OSError] * 5)
    for number in range(5):
        log.write([LINE % number, LINE % number])
    assert log.dropped == 10


@settings(max_examples=300)
@given(st.lists(st.one_of(st.integers(0, 60), st.sampled_from([BlockingIOError, OSError]), st.none()), max_size=25))
def test_each_line_is_whole_or_counted_whatever_the_sink_does(
    tmp_path_factory: pytest.TempPathFactory, takes: list[int | type[OSError] | None]
) -> None:
    log = AccessLog(os.devnull)
    sink = log._send = Sink(*takes)
    for number in range(10):
        log.write([LINE % number])
    while log._rest:
        log.flush()
    found = [line for line in bytes(sink.got).splitlines(keepends=True) if line.strip()]
    whole = [line for line in found if line in {LINE % number for number in range(10)}]
    assert whole == sorted(whole)
    assert len(whole) + log.dropped == 10
    assert all(any((LINE % number).startswith(line[:-1]) for number in range(10)) for line in found)


WRITER = """
import sys, time
from llm_gateway.telemetry.access import AccessLog
log = AccessLog("stdout")
longest = 0.0
for number in range(400):
    begun = time.perf_counter()
    log.write([b"x" * 999 + b"\\n"])
    longest = max(longest, time.perf_counter() - begun)
print(longest, log.dropped, len(log._rest), file=sys.stderr)
"""


def write_to(stdout: int) -> tuple[float, int, int]:
    done = subprocess.run([sys.executable, "-c", WRITER], stdout=stdout, stderr=subprocess.PIPE, check=True, timeout=10)
    longest, dropped, rest = done.stderr.split()
    return float(longest), int(dropped), int(rest)


@pytest.fixture(params=["pipe", "socket"])
def stuck(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """(write end, read end) that nobody reads."""
    if request.param == "pipe":
        if not Path("/proc/self/fd").exists():
            pytest.skip("pipes block where there is no /proc")
        read_end, write_end = os.pipe()
    else:
        read_end, write_end = (each.detach() for each in socket.socketpair())
    yield write_end, read_end
    os.close(read_end)
    os.close(write_end)


def test_a_reader_that_does_not_read_holds_nobody_up(stuck: tuple[int, int]) -> None:
    longest, dropped, rest = write_to(stuck[0])
    assert longest < 0.1
    assert dropped == 0
    assert rest > 0, "it was really stuck"


def test_the_inherited_stdout_stays_blocking_for_whoever_shares_it(stuck: tuple[int, int]) -> None:
    write_to(stuck[0])
    assert not fcntl.fcntl(stuck[0], fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_reader_that_is_gone_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    longest, dropped, rest = write_to(write_end)
    os.close(write_end)
    assert (dropped, rest) == (400, 0)
    assert longest < 0.1


def test_a_file_as_stdout_is_appended_to(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        _, dropped, rest = write_to(out.fileno())
    assert (dropped, rest) == (0, 0)
    assert (tmp_path / "out").read_bytes() == b"before\n" + (b"x" * 999 + b"\n") * 400


def test_waiting_lines_cost_no_copying(log: AccessLog) -> None:
    """A full sink is met at every tick: 4 MiB must not be moved each time."""
    log._send = Sink(*[BlockingIOError] * 5_000)
    log.write([b"x" * (3 << 20) + b"\n"])
    begun = time.process_time()
    for number in range(2_000):
        log.write([LINE % number])
    assert time.process_time() - begun < 0.2
