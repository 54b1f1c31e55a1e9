"""The audit log: lines that nobody can change, take out or put in between without it showing.

    <dir>/2026-11.jsonl     one JSON object a line, of that month, or told late of one before; `hash` = HMAC-SHA-256(key, hash of the line
                            before + this line without its own)
    <dir>/head              number and hash of the last line, so that lines missing at the end are noticed too

Law: one writer at a time (a lock file); a line is written whole or not at all; a torn last line, which a crash may leave, is cut off before the
next. The key is derived from the gateway's secret: who can write the files but does not know it cannot make a chain that holds.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

LABEL = b"audit log, version 1"
FIRST = "0" * 64
BLOCK = 64 << 10
HASH = b',"hash":"'
KINDS = {"seq": int, "prev": str, "kind": str, "ts": str, "hash": str}  # what each line has

What = Literal["change", "refused", "request", "reload"]

_encode = msgspec.json.Encoder().encode


class Entry(Struct, omit_defaults=True, kw_only=True):
    """`actor`: who did it, as far as that is known; `action`: a method and path, or an event; `said`: what was asked, without secrets; `made`:
    what came of it; `at`: the journal's file and the byte behind the row that this was made of; `more`: as many like it were not written."""

    kind: What
    ts: str
    gateway: str
    actor: str = ""
    peer: str = ""
    action: str = ""
    status: int = 0
    outcome: str = ""
    request_id: str = ""
    tenant: str = ""
    model: str = ""
    said: dict[str, Any] = {}
    made: dict[str, Any] = {}
    at: tuple[str, int] | None = None
    more: int = 0


class Found(Struct, frozen=True):
    """What a check found: `lines` that hold, from number `first` on; `broken`: where it does not, and why, "" for nowhere."""

    lines: int
    first: int
    last: int
    broken: str = ""


class BusyError(Exception):
    """Another process writes this log."""


class Chain:
    """The one writer. Raises BusyError, or OSError where the directory cannot be used."""

    def __init__(self, directory: Path, secret: bytes) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = hmac.digest(secret, LABEL, "sha256")
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BusyError(str(directory)) from None
        try:
            self.serial, self.hash, self._month = _mended(directory)
        except OSError:
            os.close(self._lock)
            raise

    def append(self, entries: list[Entry]) -> None:
        """Writes them all or none. Raises OSError; nothing of them is then in the log."""
        serial, before, lines = self.serial, self.hash, dict[str, list[bytes]]()
        month = self._month
        for entry in entries:
            serial += 1
            line, before = _sealed(self._key, serial, before, entry)
            month = max(month, entry.ts[:7])  # not back, where a line is told late, or a clock was put back: files follow each other as lines do
            lines.setdefault(month, []).append(line)
        written: list[tuple[Path, int]] = []
        try:
            for name, several in lines.items():
                path = self._directory / f"{name}.jsonl"
                written.append((path, path.stat().st_size if path.exists() else 0))
                _write(path, b"".join(several))
        except OSError:
            for path, size in written:
                with contextlib.suppress(OSError):
                    os.truncate(path, size)
            raise
        self.serial, self.hash, self._month = serial, before, month
        with contextlib.suppress(OSError):  # behind by a line or two is no harm: it is looked at for what is missing only
            draft = self._directory / "head.draft"
            draft.write_text(f"{serial} {before}\n")
            draft.rename(self._directory / "head")

    def close(self) -> None:
        os.close(self._lock)


def read(directory: Path) -> Iterator[dict[str, Any]]:
    """All lines, in order; what is none of this log is left out, a torn last one too: `verify` tells of it."""
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and (said := decoded(line)) is not None:
                    yield said


def decoded(line: bytes) -> dict[str, Any] | None:
    """None for what is no line of this log."""
    try:
        said = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(said, dict) and all(isinstance(said.get(name), kind) for name, kind in KINDS.items())
    return said if whole else None


def verify(directory: Path, secret: bytes) -> Found:
    """Whether the log is what was written. Files that were taken away from its beginning only move `first`."""
    key = hmac.digest(secret, LABEL, "sha256")
    head = directory / "head"  # read first: the log may grow meanwhile
    said = head.read_bytes().split() if head.exists() else []
    if said and not (len(said) == 2 and said[0].isdigit()):
        return Found(0, 0, 0, "head: it is not what was written")
    first = last = lines = 0
    before = ""
    files = sorted(directory.glob("*.jsonl"))
    for path in files:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if path is files[-1] and not line.endswith(b"\n"):
                    break  # it is being written, or was torn by a crash; `head` tells whether it is missing
                where = f"{path.name}:{number}"
                why, serial, after = _checked(key, line, last, before)
                if why:
                    return Found(lines, first, last, f"{where}: {why}")
                first, last, before = first or serial, serial, after
                lines += 1
    if said and (int(said[0]) > last or (int(said[0]) == last and said[1] != before.encode())):
        return Found(lines, first, last, f"the last line was number {int(said[0])}, and number {last} is the last there is")
    return Found(lines, first, last)


def _checked(key: bytes, line: bytes, last: int, before: str) -> tuple[str, int, str]:
    """(what is wrong, number, hash)"""
    body, _, end = line.rstrip(b"\n").rpartition(HASH)
    try:
        said = msgspec.json.decode(line)
        serial, prev, stated = int(said["seq"]), str(said["prev"]), str(said["hash"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return "it is no line of this log", last, before
    if not hmac.compare_digest(_hash(key, prev, body), stated) or end != f'{stated}"}}'.encode():
        return "its hash is not that of its content", serial, stated
    if last and serial != last + 1:
        return f"number {serial} follows number {last}", serial, stated
    if last and prev != before:
        return "it does not follow from the line before", serial, stated
    return "", serial, stated


def _sealed(key: bytes, serial: int, before: str, entry: Entry) -> tuple[bytes, str]:
    body = b'{"seq":%d,"prev":"%b",' % (serial, before.encode()) + _encode(entry)[1:-1]
    made = _hash(key, before, body)
    return body + HASH + made.encode() + b'"}\n', made


def _hash(key: bytes, before: str, body: bytes) -> str:
    return hmac.digest(key, before.encode() + body, "sha256").hex()


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        if os.write(fd, data) != len(data):
            raise OSError(28, "no room for all of it", str(path))
        os.fdatasync(fd) if hasattr(os, "fdatasync") else os.fsync(fd)
    finally:
        os.close(fd)


def _mended(directory: Path) -> tuple[int, str, str]:
    """Number and hash of the last whole line, and the month of its file; what a crash tore is cut off."""
    for path in sorted(directory.glob("*.jsonl"), reverse=True):
        last, end = _last(path)
        if end != path.stat().st_size:
            os.truncate(path, end)
        if last:
            said = decoded(last)
            if said is None:
                raise OSError(errno.EIO, "its last line is none of this log; move the file away to begin anew", str(path))
            return int(said["seq"]), str(said["hash"]), path.stem
    return 0, FIRST, ""


def _last(path: Path) -> tuple[bytes, int]:
    """The last whole line, b"" if there is none, and where it ends. Read from the end, since a month may be larger than memory."""
    with path.open("rb") as file:
        at, data = file.seek(0, 2), b""
        while at and data.count(b"\n") < 2:
            size = min(BLOCK, at)
            at -= size
            file.seek(at)
            data = file.read(size) + data
    whole = data[: data.rfind(b"\n") + 1]
    return whole[whole.rfind(b"\n", 0, -1) + 1 :], at + len(whole)
