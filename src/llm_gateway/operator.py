"""The operator: one process beside the workers that watches them, answers metrics and admin calls, reloads
configuration and fetches cloud credentials.

Law: a composition root, nothing more; never in a request's way. It may die at any time: workers go on with what they have,
and its successor starts from the boot files, which it alone writes.

argv: --control FD --snapshot FD --state FD --listen FD, all inherited from the supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from functools import partial

import msgspec
import uvicorn

from llm_gateway.admin.api import application
from llm_gateway.admin.credentials import Keyring
from llm_gateway.admin.dependencies import Dependencies
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.reload import Reloader, Watch
from llm_gateway.config.snapshot import Operator, Snapshot
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.supervisor import boot, channel
from llm_gateway.supervisor.control import Command, attach

NICE = 5
WATCH_SECONDS = 1.0
PROBE_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="llm_gateway.operator")
    for name in ("--control", "--snapshot", "--state", "--listen"):
        parser.add_argument(name, type=int, required=True)
    os.nice(NICE)  # what a worker wants of a core, it gets
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(run(parser.parse_args()))


async def run(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    snapshot = msgspec.msgpack.decode(boot.read(args.snapshot), type=Snapshot)
    state = msgspec.msgpack.decode(boot.read(args.state), type=Operator)
    notices = Notices(sys.stderr, snapshot.logging.format, snapshot.logging.level)
    fleet = Fleet(snapshot)
    keyring = Keyring(fleet.grant, notices)
    reloader = Reloader(
        snapshot,
        state,
        environ=os.environ,
        lookup=load_catalogue().resolve,
        publish=partial(_publish, args.snapshot, args.state, fleet, keyring),
        notices=notices,
    )
    dependencies = Dependencies()
    server = uvicorn.Server(
        uvicorn.Config(
            application(fleet, reloader, dependencies, keyring),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    tasks = set[asyncio.Task[object]]()

    def on_command(command: Command) -> None:
        match command:
            case Command.RELOAD:
                reloader.reload("SIGHUP")
            case Command.DRAIN:
                fleet.draining = True
            case Command.FAST | Command.ORPHANED:
                server.should_exit = True

    def on_link(index: int, sock: socket.socket) -> None:
        task: asyncio.Task[object] = loop.create_task(_join(fleet, index, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    control = attach(loop, args.control, on_command, on_link)
    background = [
        loop.create_task(_each(WATCH_SECONDS, partial(_tick, fleet, dependencies, Watch(reloader)))),
        loop.create_task(_probe(dependencies, reloader)),
    ]
    control.ready()
    keyring.adopt(snapshot)
    await server.serve(sockets=[socket.socket(fileno=args.listen)])
    for task in background:
        task.cancel()
    for task in background:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await keyring.close()


def _publish(snapshot_fd: int, state_fd: int, fleet: Fleet, keyring: Keyring, snapshot: Snapshot, state: Operator) -> None:
    """Boot files first: a worker that starts between the two then hears of nothing older than it knows."""
    boot.publish(snapshot_fd, msgspec.msgpack.encode(snapshot))
    boot.publish(state_fd, msgspec.msgpack.encode(state))
    fleet.load(snapshot)
    keyring.adopt(snapshot)


async def _join(fleet: Fleet, index: int, sock: socket.socket) -> None:
    """A worker's new link. What the last one brought is forgotten when that one is lost."""
    heard = partial(fleet.hear, index, sock.fileno())
    lost = partial(fleet.lose, index, sock.fileno())
    link = await channel.operator_end(asyncio.get_running_loop(), sock, heard, lost)
    fleet.join(index, sock.fileno(), link)


def _tick(fleet: Fleet, dependencies: Dependencies, watch: Watch) -> None:
    fleet.balance()
    fleet.inform(dependencies.redis)
    watch.look()


async def _each(seconds: float, step: partial[None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        step()


async def _probe(dependencies: Dependencies, reloader: Reloader) -> None:
    while True:
        await dependencies.probe(reloader.snapshot.redis_url)
        await asyncio.sleep(PROBE_SECONDS)


if __name__ == "__main__":
    main()
