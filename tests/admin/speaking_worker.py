"""A worker that serves nothing and says everything a real one says to the operator; argv as the real one's.

What it is told it writes as JSON lines to the file named by the environment's WORKER_LOG. Changes it is to tell it finds, as a
JSON list, in a file of that name with `.tell` and its index behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import msgspec
import uvloop

from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.supervisor import boot, channel, control


class Worker:
    def __init__(self, args: argparse.Namespace) -> None:
        self.index = args.index
        self.snapshot = msgspec.msgpack.decode(boot.read(args.snapshot), type=Snapshot)
        self.stop = asyncio.Event()
        self.link: channel.WorkerLink | None = None
        self.served = 0

    def note(self, **fields: object) -> None:
        with Path(os.environ["WORKER_LOG"]).open("a") as log:
            log.write(json.dumps({"index": self.index, "pid": os.getpid(), **fields}) + "\n")

    def told(self, message: channel.Down) -> None:
        match message:
            case channel.Load(snapshot):
                self.snapshot = snapshot
                self.note(
                    load=snapshot.generation, journal=snapshot.journal_on_error, port=snapshot.server.listeners[0].port
                )
            case channel.Mean(connections):
                self.note(mean=connections)
            case channel.Found(redis):
                self.note(redis=redis)
            case channel.Credentials(keys):
                self.note(credentials=keys)
            case channel.Changed(changes):
                self.note(changed=msgspec.to_builtins(changes))
            case channel.Probed(providers):
                self.note(probed=providers)

    def tell(self, link: channel.WorkerLink) -> None:
        path = Path(f"{os.environ['WORKER_LOG']}.tell{self.index}")
        if path.exists():
            link.send(channel.Changed(msgspec.json.decode(path.read_bytes(), type=list[Change])))
            path.unlink()

    def linked(self, index: int, sock: socket.socket) -> None:
        async def join() -> None:
            self.link = await channel.worker_end(asyncio.get_running_loop(), sock, self.told)
            self.link.send(channel.Hello(self.index, os.getpid(), self.snapshot.generation))

        self.joining = asyncio.get_running_loop().create_task(join())

    async def run(self, args: argparse.Namespace) -> None:
        loop = asyncio.get_running_loop()
        line = control.attach(loop, args.control, lambda _: self.stop.set(), self.linked)
        self.note(start=self.snapshot.generation)
        line.ready()
        while not self.stop.is_set():
            self.served += 1
            if self.link is not None:
                families = {
                    "http_requests_total": {'route="/x",code="200"': self.served},
                    "llm_gateway_open_connections": {"": 10 * (self.index + 1)},
                }
                health = {"echo": (self.index == 0, 12.0 + self.index)}
                self.tell(self.link)
                self.link.send(
                    channel.Report(
                        self.index, os.getpid(), self.snapshot.generation, 10 * (self.index + 1), families, health
                    )
                )
            await asyncio.sleep(0.05)


async def main() -> None:
    parser = argparse.ArgumentParser()
    for option in ("--index", "--control", "--snapshot"):
        parser.add_argument(option, type=int)
    parser.add_argument("--listen")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    await Worker(args).run(args)


if __name__ == "__main__":
    uvloop.run(main())
