"""A name server that says what it is told to: an address, no such name, nothing at all, or an address late.

Law: as much of DNS (RFC 1035) as a stub resolver asks for: A records over UDP; any other question has no answer. It serves
from a thread, on a socket made in the namespace whose resolver it is to be.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

from faults.space import Space

NO_SUCH_NAME, SILENT = "no such name", "silent"


class Names:
    """`told`: name -> address, NO_SUCH_NAME, SILENT, or (seconds, address). Names not told are NO_SUCH_NAME."""

    def __init__(self, space: Space, told: dict[str, object]) -> None:
        self.told = told
        self.asked: list[str] = []
        with space.inside():
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.sock.recvfrom(4096)
                threading.Thread(target=self._answer, args=(query, peer), daemon=True).start()

    def _answer(self, query: bytes, peer: tuple[str, int]) -> None:
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question = query[12 : at + 5]
        kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        self.asked.append(name)
        said = self.told.get(name, NO_SUCH_NAME)
        if said == SILENT:
            return
        if isinstance(said, tuple):
            time.sleep(said[0])
            said = said[1]
        records = b""
        if kind == 1 and said != NO_SUCH_NAME:
            records = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04" + socket.inet_aton(str(said))
        flags = 0x8183 if said == NO_SUCH_NAME else 0x8180
        head = query[:2] + struct.pack(">HHHHH", flags, 1, bool(records), 0, 0)
        with contextlib.suppress(OSError):
            self.sock.sendto(head + question + records, peer)
