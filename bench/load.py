"""Clients for the endurance runs: many connections in one thread, each request under an id of its own.

Law: a reply counts as held only when it is whole (its length, or its last chunk after `[DONE]`); connections that break
are made anew, for breaking them is what these runs do.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from drive import Door, connect


@dataclass
class Client:
    """One connection and the reply it waits for."""

    sock: socket.socket
    id: str
    stream: bool
    seen: bytes = b""


@dataclass
class Crowd:
    """`whole`: ids of replies held in full. `cancel`: leave each stream after its first content."""

    door: Door
    plain: int
    streaming: int
    model: str = "mock-20x2"
    cancel: bool = False
    whole: list[str] = field(default_factory=list)
    refused: int = 0
    cut: int = 0
    cancelled: int = 0
    serial: int = 0

    def run(self, until: Callable[[], bool], patience: float = 600.0) -> None:
        """Keeps everybody busy until `until()`; then lets open requests end for up to 3 s."""
        poll, clients = select.epoll(), dict[int, Client]()
        wanted = [False] * self.plain + [True] * self.streaming
        deadline, ending = time.monotonic() + patience, 0.0
        while time.monotonic() < deadline:
            if not ending and until():
                ending = time.monotonic() + 3.0
            if ending and (not clients or time.monotonic() > ending):
                break
            while wanted and not ending:
                stream = wanted.pop()
                if not self._begin(poll, clients, stream):
                    wanted.append(stream)
                    break
            for fd, _ in poll.poll(0.02):
                client = clients[fd]
                if self._read(client, again=not ending):
                    continue
                poll.unregister(fd)
                del clients[fd]
                client.sock.close()
                wanted.append(client.stream)
        for client in clients.values():
            client.sock.close()
        poll.close()

    def _begin(self, poll: select.epoll, clients: dict[int, Client], stream: bool) -> bool:
        try:
            sock = connect(self.door.port, 1.0)
        except OSError:
            time.sleep(0.005)
            return False
        client = Client(sock, "", stream)
        clients[sock.fileno()] = client
        poll.register(sock, select.EPOLLIN)
        self._ask(client)
        return True

    def _ask(self, client: Client) -> None:
        self.serial += 1
        client.id, client.seen = f"crowd-{self.serial}", b""
        model = self.door.model if not client.stream else f"stream/{self.model}"
        door = Door(self.door.port, self.door.path, model, {**self.door.headers, "X-Request-ID": client.id})
        client.sock.sendall(door.request(door.body(stream=client.stream)))

    def _read(self, client: Client, *, again: bool) -> bool:
        """False: this connection is over."""
        try:
            data = client.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.cut += bool(client.seen)
            return False
        client.seen += data
        if self.cancel and client.stream and b" t=" in client.seen:
            self.cancelled += 1
            return False
        if not whole(client.seen, stream=client.stream):
            return True
        if client.seen.startswith(b"HTTP/1.1 200"):
            self.whole.append(client.id)
        else:
            self.refused += 1
        if not again or b"\r\nconnection: close" in client.seen.lower():
            return False
        try:
            self._ask(client)
        except OSError:
            return False
        return True


def whole(seen: bytes, *, stream: bool) -> bool:
    end = seen.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = seen[:end].lower()
    if b"transfer-encoding: chunked" in head:
        return seen.endswith(b"0\r\n\r\n") and (not stream or b"[DONE]" in seen)
    length = int(head.partition(b"content-length:")[2].partition(b"\r")[0] or 0)
    return len(seen) >= end + 4 + length
