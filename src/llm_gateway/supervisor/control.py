"""A child's line to the supervisor: what it is told, and how it learns that nobody is there to tell.

Law: knows no message of the channel; it hands over the socket a channel runs on. Light: a worker imports it.

The line is a Unix stream socketpair. Down come records of exactly two bytes, an opcode and a number, some with one
descriptor attached; a record is read whole or not at all, so descriptors stay with their record. Up go records of the same size: `R`
once, when the child serves, and `L` with the number of a link whose descriptor was lost, since this process had none to spare: the
supervisor makes another. End of file means the supervisor is gone.

How a worker uses it (the operator likewise; its links carry the worker's index, a worker's own links carry 0 for the
operator and 1 for the helper):

    control = attach(loop, args.control, on_command, on_link)
    ...                                     # listeners are accepting
    control.ready()                         # the supervisor prints its banner on the first worker's `R`

    def on_command(command: Command) -> None:
        match command:
            case Command.DRAIN: ...         # readiness 503, `server.lame_duck` seconds of `Connection: close`, then drain, exit 0
            case Command.FAST: ...          # stop accepting now, allow 5 s, exit 0; may follow a DRAIN
            case Command.ORPHANED: ...      # the supervisor is gone: drain and exit
            case Command.RELOAD: ...        # only the operator is told

    def on_link(index: int, sock: socket.socket) -> None:
        # A fresh channel to the operator; it replaces any earlier one (the operator was restarted).
        task = loop.create_task(channel.worker_end(loop, sock, on_message))
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from enum import Enum

RECORD = 2
READY = b"R\0"
AGAIN = 1.0  # seconds until a lost link is asked for: by then there may be descriptors


class Command(Enum):
    DRAIN = b"D"
    FAST = b"F"
    RELOAD = b"H"
    ORPHANED = b""


LINK = b"L"


class Control:
    """The attached line. `ready` may be called any number of times; only the first is told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self._told = False

    def ready(self) -> None:
        if not self._told:
            self._told = True
            try:
                self._sock.send(READY)
            except (BrokenPipeError, ConnectionResetError):
                return  # the end of file that follows says ORPHANED

    def missed(self, number: int) -> None:
        """A link's descriptor did not come along. The other end has seen its end already."""
        self._loop.call_later(AGAIN, self._ask, number)

    def _ask(self, number: int) -> None:
        if self._sock.fileno() < 0:
            return
        try:
            self._sock.send(LINK + bytes((number,)))
        except BlockingIOError:
            self.missed(number)
        except (BrokenPipeError, ConnectionResetError):
            return

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()


def attach(
    loop: asyncio.AbstractEventLoop,
    fd: int,
    on_command: Callable[[Command], None],
    on_link: Callable[[int, socket.socket], None],
) -> Control:
    """Listens on the inherited descriptor `fd` from now on. Callbacks run on the loop, never from within this call."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    control = Control(loop, sock)
    loop.add_reader(sock.fileno(), _receive, control, sock, on_command, on_link)
    return control


def _receive(
    control: Control,
    sock: socket.socket,
    on_command: Callable[[Command], None],
    on_link: Callable[[int, socket.socket], None],
) -> None:
    while sock.fileno() >= 0:  # a command may have closed the line
        try:
            record, descriptors, _, _ = socket.recv_fds(sock, RECORD, 1)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionResetError:
            record, descriptors = b"", []
        if not record:
            control.close()
            on_command(Command.ORPHANED)
            return
        if record[:1] == LINK:
            for descriptor in descriptors:
                on_link(record[1], socket.socket(fileno=descriptor))
            if not descriptors:
                control.missed(record[1])
        else:
            on_command(Command(record[:1]))
