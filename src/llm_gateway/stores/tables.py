"""A sorted file of records that one process writes and others map: looked up in place, shared by all, loaded by nobody.

    header | values, one after another | entries, sorted by place: place (32 bytes), offset, length, CRC-32 of place and value

Law: bytes in, bytes out; what they mean is others' affair. Light: a worker imports it. Written to a draft and renamed, so that whoever
opens the name finds a whole file, and whoever has the old one mapped keeps it.

Opening looks at the header and the file's size alone: it costs the same for one record and for a million, and reads no page of them.
What a look-up touches is checked then. A file that is cut *while* it is mapped ends its reader (SIGBUS): nothing here does that, it is
always another file that takes the name.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

MAGIC = b"llmgwt"
VERSION = 1
PLACE = 32
_HEADER = struct.Struct(">6sHQQQQ")  # magic, version, serial, number of entries, where they begin, the file's size
_CHECK = struct.Struct(">I")  # of the header
_ENTRY = struct.Struct(f">{PLACE}sQII")
_START = _HEADER.size + _CHECK.size
_BUFFER = 1 << 18


class TableError(Exception):
    """A file that is no table, or not a whole one. Says which and why."""


class Table:
    """One table file, mapped read-only. `serial`: as its writer said; `file`: which one it is. Raises TableError, or OSError if there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            self.file, size = _identity(found), found.st_size
            self.serial, self._count, self._index = _head(path, file.read(_START), size)
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Table {self.path.name}: {self._count}, serial {self.serial}>"

    def get(self, place: bytes) -> bytes | None:
        """The value at `place` (32 bytes), None if there is none. Raises TableError if the file is damaged just there."""
        data, index, size = self._map, self._index, _ENTRY.size
        low, high = 0, self._count
        while low < high:
            middle = (low + high) >> 1
            start = index + middle * size
            if data[start : start + PLACE] < place:
                low = middle + 1
            else:
                high = middle
        if low == self._count:
            return None
        found, offset, length, check = _ENTRY.unpack_from(data, index + low * size)
        if found != place:
            return None
        value = data[offset : offset + length]
        if offset + length > index or zlib.crc32(value, zlib.crc32(place)) != check:
            raise TableError(f"{self.path} is damaged: a record is not what was written")
        return value

    def close(self) -> None:
        self._map.close()


def identity(path: Path) -> tuple[int, int, int] | None:
    """Tells the file that has this name now from those that had it; None if none does."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


def write(path: Path, entries: Iterable[tuple[bytes, bytes]], serial: int) -> int:
    """Puts a table in the place of `path`; returns its number of records. entries: place and value, in any order; of several at one
    place the last counts. Values are written as they come: 48 bytes a record are held, no more. Raises OSError; `path` is then as it was."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    draft = Path(name)
    try:
        with os.fdopen(fd, "wb", buffering=_BUFFER) as file:
            file.write(bytes(_START))
            index: list[bytes] = []
            offset = _START
            for place, value in entries:
                if len(place) != PLACE:
                    raise ValueError(f"a place has {PLACE} bytes, not {len(place)}")
                file.write(value)
                index.append(_ENTRY.pack(place, offset, len(value), zlib.crc32(value, zlib.crc32(place))))
                offset += len(value)
            sorted_index = _last_of_each(index)
            file.writelines(sorted_index)
            size = offset + len(sorted_index) * _ENTRY.size
            head = _HEADER.pack(MAGIC, VERSION, serial, len(sorted_index), offset, size)
            file.seek(0)
            file.write(head + _CHECK.pack(zlib.crc32(head)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        raise
    _sync(path.parent)
    return len(sorted_index)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _last_of_each(index: list[bytes]) -> list[bytes]:
    """Sorted by place, and of those of one place by offset, which grows: the last one stays."""
    index.sort()
    return [each for at, each in enumerate(index) if at + 1 == len(index) or index[at + 1][:PLACE] != each[:PLACE]]


def _head(path: Path, head: bytes, size: int) -> tuple[int, int, int]:
    """Serial, number of entries, where they begin."""
    if len(head) < _START or head[: len(MAGIC)] != MAGIC:
        raise TableError(f"{path} is no table")
    magic_version_and_rest, check = head[: _HEADER.size], head[_HEADER.size :]
    _, version, serial, count, index, whole = _HEADER.unpack(magic_version_and_rest)
    if version != VERSION:
        raise TableError(f"{path} is a table of version {version}; this gateway reads {VERSION}")
    if _CHECK.unpack(check)[0] != zlib.crc32(magic_version_and_rest):
        raise TableError(f"{path} is damaged: its head is not what was written")
    if size != whole or index + count * _ENTRY.size != whole:
        raise TableError(f"{path} is not whole: {size} bytes of {whole}")
    return serial, count, index


def _sync(folder: Path) -> None:
    """So that the new name survives a power cut, too."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
