"""The boot file keeps the newest payload that was written whole, whatever moment a writer dies at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from llm_gateway.supervisor import boot


@contextmanager
def booted(payload: bytes) -> Iterator[int]:
    fd = boot.create(payload)
    try:
        yield fd
    finally:
        os.close(fd)


def test_the_newest_payload_is_read():
    with booted(b"one") as fd:
        assert boot.read(fd) == b"one"
        for payload in (b"two, longer", b"", b"four" * 1000):
            boot.publish(fd, payload)
            assert boot.read(fd) == payload


@pytest.mark.parametrize("written", [0, 1, 7, 8, 20, 55, 56, 60, 100])
def test_a_writer_that_died_leaves_what_was_there(written):
    with booted(b"one") as fd:
        boot.publish(fd, b"two")
        whole = _bytes_of_a_publish(fd, b"three" * 10)
        # The payload goes first, then the header: replay the first `written` bytes of that.
        for offset, data in whole:
            piece = data[:written]
            os.pwrite(fd, piece, offset)
            written -= len(piece)
        assert boot.read(fd) in (b"two", b"three" * 10)
        boot.publish(fd, b"four")
        assert boot.read(fd) == b"four"


def _bytes_of_a_publish(fd: int, payload: bytes) -> list[tuple[int, bytes]]:
    sequence = 3
    start = (sequence % 2) * boot.STRIDE
    header = boot.HEADER.pack(boot.MAGIC, sequence, len(payload), boot._checksum(sequence, payload))
    return [(start + boot.HEADER.size, payload), (start, header)]


def test_nothing_whole_is_an_error():
    with booted(b"one") as fd:
        os.pwrite(fd, b"x" * 300, boot.STRIDE)
        with pytest.raises(boot.BootError):
            boot.read(fd)


def test_readers_never_see_a_mixture():
    payloads = [bytes([65 + n % 26]) * (1000 + n) for n in range(200)]
    with booted(payloads[0]) as fd, ThreadPoolExecutor(2) as threads:
        writing = threads.submit(lambda: [boot.publish(fd, payload) for payload in payloads])
        seen = set()
        while not writing.done():
            try:
                seen.add(boot.read(fd))
            except boot.BootError:
                continue  # overtaken twice within one read: the caller tries again
        writing.result()
        assert seen <= set(payloads)
        assert boot.read(fd) == payloads[-1]


def test_it_has_no_name():
    with booted(b"secret") as fd:
        assert os.fstat(fd).st_nlink == 0
        assert not os.get_inheritable(fd)
