"""The helper: work that would hold a worker's loop. Today: exact counts of tokens.

Law: it is told nothing but texts: no configuration, no secret, no database. Nothing depends on it; whoever asks has an estimate at hand and a
deadline. It gives way to workers (nice +5).

Counting lets go of the interpreter's lock, so short and long requests each have a thread: a long one is waited for by long ones only. A vocabulary
is loaded when it is first asked for, and that holds the lock (docs/adr/013).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic

import msgspec
import toktok

from llm_gateway.supervisor import control
from llm_gateway.supervisor.channel import Link
from llm_gateway.supervisor.counting import Ask, Counted

SHORT = 64 << 10  # characters
MOST_WAITING = 1024
NICE = 5


class Desk:
    """Answers all workers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._short, self._long = (ThreadPoolExecutor(1) for _ in range(2))
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()

    def link(self, index: int, sock: socket.socket) -> None:
        """A worker's channel; when the worker is gone, so is this."""
        link: Link[Ask, Counted] = Link(msgspec.msgpack.Decoder(Ask), lambda ask: self._ask(link, ask), lambda: None)
        sock.setblocking(False)
        task = self._loop.create_task(_connected(self._loop, link, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def command(self, command: control.Command) -> None:
        """It outlives the workers: only FAST, which comes when they are gone, and the supervisor's death end it."""
        if command in (control.Command.FAST, control.Command.ORPHANED):
            self.stopped.set()

    def _ask(self, link: Link[Ask, Counted], ask: Ask) -> None:
        if self._waiting >= MOST_WAITING:
            link.send(Counted(ask.serial, None))
            return
        self._waiting += 1
        lane = self._short if sum(map(len, ask.texts)) <= SHORT else self._long
        lane.submit(counted, ask).add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._tell, link, done.result()))

    def _tell(self, link: Link[Ask, Counted], answer: Counted) -> None:
        self._waiting -= 1
        link.send(answer)

    def close(self) -> None:
        for lane in (self._short, self._long):
            lane.shutdown(wait=False, cancel_futures=True)


def counted(ask: Ask) -> Counted:
    """Not what nobody waits for any more."""
    if monotonic() > ask.until:
        return Counted(ask.serial, None)
    try:
        return Counted(ask.serial, sum(toktok.batch_count(ask.texts, ask.encoding, threads=1)))
    except (KeyError, ValueError):  # no such vocabulary, or no text that could be one
        return Counted(ask.serial, None)


async def _connected(loop: asyncio.AbstractEventLoop, link: Link[Ask, Counted], sock: socket.socket) -> None:
    await loop.create_unix_connection(lambda: link, sock=sock)


async def run(fd: int) -> None:
    loop = asyncio.get_running_loop()
    desk = Desk(loop)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the supervisor's affair
        loop.add_signal_handler(number, partial(desk.command, control.Command.DRAIN))
    control.attach(loop, fd, desk.command, desk.link)
    await desk.stopped.wait()
    desk.close()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="llm-gateway helper")
    parser.add_argument("--control", type=int, required=True)
    args = parser.parse_args(argv)
    os.nice(NICE)
    asyncio.run(run(args.control))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
