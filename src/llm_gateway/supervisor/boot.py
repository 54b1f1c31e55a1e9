"""What a process needs to know when it starts: opaque bytes in an inherited, nameless file.

Law: standard library only; no path on disk, so secrets never outlive the gateway. Anybody holding the descriptor may
read, only the operator writes (after each good reload), at most one writer at a time.

Invariant: whatever moment a writer dies at, a reader finds the newest payload that was written whole. There are two slots
and the writer always overwrites the older one; a slot counts only if its checksum holds. The file is sparse, so the fixed
distance between slots costs nothing. All access is by `pread`/`pwrite`: the processes share one file offset.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import tempfile
from pathlib import Path

HEADER = struct.Struct(">8sQQ32s")  # magic, sequence, length, SHA-256 of sequence, length and payload
MAGIC = b"llmgwb01"
STRIDE = 1 << 30
LIMIT = STRIDE - HEADER.size


class BootError(Exception):
    """No slot of the file holds a whole payload."""


def create(payload: bytes) -> int:
    """A descriptor of a new nameless file that holds `payload`. Not inheritable until somebody says so."""
    if sys.platform == "linux":
        fd = os.memfd_create("llm-gateway-boot", os.MFD_CLOEXEC)
    else:
        fd, path = tempfile.mkstemp(prefix="llm-gateway-")
        Path(path).unlink()
    publish(fd, payload)
    return fd


def publish(fd: int, payload: bytes) -> None:
    """Makes `payload` what later readers get."""
    if len(payload) > LIMIT:
        raise ValueError(f"{len(payload)} bytes do not fit a boot slot")
    sequence = max((found[0] for found in (_slot(fd, 0), _slot(fd, 1)) if found), default=0) + 1
    start = (sequence % 2) * STRIDE
    _write(fd, payload, start + HEADER.size)
    _write(fd, HEADER.pack(MAGIC, sequence, len(payload), _checksum(sequence, payload)), start)


def read(fd: int) -> bytes:
    """The newest whole payload. A slot being overwritten meanwhile fails its checksum, and then the other one is newest."""
    for _ in range(3):
        found = [slot for slot in (_slot(fd, 0), _slot(fd, 1)) if slot]
        if found:
            return max(found)[1]
    raise BootError("the boot file holds no whole payload")


def _slot(fd: int, index: int) -> tuple[int, bytes] | None:
    start = index * STRIDE
    head = os.pread(fd, HEADER.size, start)
    if len(head) < HEADER.size:
        return None
    magic, sequence, length, checksum = HEADER.unpack(head)
    if magic != MAGIC or length > LIMIT:
        return None
    payload = os.pread(fd, length, start + HEADER.size)
    if len(payload) != length or _checksum(sequence, payload) != checksum:
        return None
    return sequence, payload


def _checksum(sequence: int, payload: bytes) -> bytes:
    return hashlib.sha256(struct.pack(">QQ", sequence, len(payload)) + payload).digest()


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
