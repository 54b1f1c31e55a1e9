"""The operator: one process beside the workers that watches them, answers metrics and admin calls, reloads
configuration, fetches cloud credentials, probes providers and tells what happens.

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
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec
import uvicorn
from starlette.applications import Starlette

from llm_gateway.admin.api import Api, application
from llm_gateway.admin.auditing import Audited, Auditing
from llm_gateway.admin.books import Books
from llm_gateway.admin.connections import Connection
from llm_gateway.admin.credentials import Keyring
from llm_gateway.admin.database import Database
from llm_gateway.admin.dependencies import Dependencies
from llm_gateway.admin.events import SAME, Events
from llm_gateway.admin.explain import Explaining
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.keysets import Keysets
from llm_gateway.admin.local import listening
from llm_gateway.admin.notices import Notices, Unawaited
from llm_gateway.admin.probes import Probes
from llm_gateway.admin.registry import Registry
from llm_gateway.admin.reload import Outcome, Reloader, Watch
from llm_gateway.admin.replicas import Replicas
from llm_gateway.admin.trail import Trail
from llm_gateway.admin.usage import Usage
from llm_gateway.admin.webhooks import Webhooks
from llm_gateway.config.material import ADMIN_SOCKET
from llm_gateway.config.snapshot import Operator, Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.core.happenings import Kind
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.supervisor import boot, channel
from llm_gateway.supervisor.control import Command, attach
from llm_gateway.upstream.call import Caller

NICE = 5
WATCH_SECONDS = 1.0
PROBE_SECONDS = 5.0
GRACE = 2  # seconds for calls under way when it is to end,
ENDING = 2.0  # and then for databases and others to let go of, of which some stand still: after 5 s the supervisor kills


def main() -> None:
    parser = argparse.ArgumentParser(prog="llm_gateway.operator")
    for name in ("--control", "--snapshot", "--state", "--listen"):
        parser.add_argument(name, type=int, required=True)
    os.nice(NICE)  # what a worker wants of a core, it gets
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _unmoved)
    asyncio.run(run(parser.parse_args()))


def leave() -> NoReturn:
    """Not by way of joining threads that look up names which nobody answers: the supervisor waits for 5 s."""
    sys.stderr.flush()
    os._exit(0)


def _unmoved(_number: int, _frame: object) -> None:
    """Signals are the supervisor's affair: systemd sends them to every process of a service at once, and the operator outlives the
    workers. Not SIG_IGN, which what clouds' libraries start would inherit."""


class Plane:
    """The operator's parts, wired."""

    def __init__(self, snapshot: Snapshot, state: Operator, files: tuple[int, int]) -> None:
        """files: descriptors of the boot files, the snapshot's and the operator's own."""
        self._files = files
        self._last: tuple[object, float] = None, 0.0
        notices = Notices(Unawaited(), snapshot.logging.format, snapshot.logging.level)
        self.caller = Caller()
        self.webhooks = Webhooks(self.caller, notices)
        self.events = Events(notices, self.webhooks.offer)
        self.auditing = Auditing(
            Path(snapshot.data_dir), snapshot.secret, socket.gethostname(), notices,
            lambda well: self.events.tell("audit_written" if well else "audit_unwritable", {}),
        )  # fmt: skip
        self.fleet = Fleet(snapshot, self._found, self._restarted, on_told=self._heard, on_join=self._joined, on_wanted=self._wanted)
        self.keysets = Keysets(self._signed, notices)
        self.replicas = Replicas(snapshot.secret, self.fleet.change, notices)
        self.keyring = Keyring(self.fleet.grant, notices)
        self.probes = Probes(
            self.caller, self.keyring.keys, on_found=self.fleet.probed, on_change=self._changed, on_refused=self._refused
        )
        self.dependencies = Dependencies()
        self.reloader = Reloader(
            snapshot,
            state,
            environ=os.environ,
            lookup=load_catalogue().resolve,
            publish=self._publish,
            notices=notices,
            told=self._told,
        )
        self.watch = Watch(self.reloader)
        self.database = Database(state.database.url, notices, self.events.tell)
        self.books = Books(self.database, state.database, Path(snapshot.data_dir), self.events.tell, self.fleet.spend)
        self.registry = Registry(self.database, self.fleet, notices, self._state, want=self.keysets.want)
        self.usage = Usage(self.registry.ground, self.database.engine, lambda: self.books.terms.usage_days)

    def api(self) -> Api:
        parts = (self.auditing, self.keyring, self.probes, self.events, self.webhooks, self.replicas, self.registry.table, self.books, self.keysets)
        sources = tuple(each.metrics for each in parts)
        return Api(self.fleet, self.reloader, self.dependencies, self.keyring, self.events, books=self.books, sources=sources)

    def application(self) -> Starlette:
        api, ground = self.api(), self.registry.ground
        explaining = Explaining(self.fleet, ground.register, ground.snapshot, ground.clock)
        trail = Trail(Path(self.reloader.snapshot.data_dir), self.reloader.snapshot.secret, socket.gethostname(), self.registry.roles.caller, ground.clock)
        return application(api, *self.registry.routes(), *self.usage.routes(), *trail.routes(), explaining.route(api.guarded))

    def begin(self) -> None:
        self.auditing.requests = self.reloader.snapshot.audit_requests
        self.webhooks.adopt(self.reloader.state.webhooks)
        self.keyring.adopt(self.reloader.snapshot)
        self.probes.adopt(self.reloader.snapshot)
        self.replicas.adopt(self.reloader.snapshot.redis)
        self.keysets.adopt(self.reloader.snapshot.issuers)

    def tick(self) -> None:
        self.fleet.balance()
        self.fleet.inform(self.dependencies.redis)
        self.fleet.probed(self.probes.found())
        self.watch.look()
        self.auditing.look()

    async def close(self) -> None:
        await self.probes.close()
        await self.webhooks.close()
        await self.replicas.close()
        await self.keyring.close()
        await self.keysets.close()
        await self.registry.table.close()
        await self.database.close()
        self.caller.close()

    def _publish(self, snapshot: Snapshot, state: Operator) -> None:
        """Boot files first: a worker that starts between the two then hears of nothing older than it knows."""
        boot.publish(self._files[0], msgspec.msgpack.encode(snapshot))
        boot.publish(self._files[1], msgspec.msgpack.encode(state))
        self.fleet.load(snapshot)
        self.auditing.requests = snapshot.audit_requests
        self.webhooks.adopt(state.webhooks)
        self.keyring.adopt(snapshot)
        self.probes.adopt(snapshot)
        self.replicas.adopt(snapshot.redis)
        self.keysets.adopt(snapshot.issuers)
        self.books.terms = state.database

    def _found(self, changes: list[Change]) -> None:
        """What one of our workers found out; the others know already."""
        self.events.changes(changes)
        self.replicas.tell(changes)

    def _changed(self, change: Change) -> None:
        """A provider that probes found to be down, or up again."""
        self.fleet.change([change])
        self.events.changes([change])

    def _refused(self, provider: str, key: str, status: int) -> None:
        self.events.tell("credentials_refused", {"provider": provider, "key": key, "status": status})

    def _restarted(self, index: int, pid: int) -> None:
        self.events.tell("worker_restarted", {"worker": index, "pid": pid})

    def _state(self) -> tuple[str, Snapshot]:
        return self.reloader.state.admin_token, self.reloader.snapshot

    def _wanted(self, issuer: str) -> None:
        self.keysets.want(issuer)

    def _signed(self, sets: dict[str, str]) -> None:
        self.fleet.keysets(sets)
        self.registry.roles.learn(sets)

    def _joined(self) -> None:
        self.books.join()

    def _heard(self, told: channel.Told) -> None:
        """What several workers notice at about the same time is one event."""
        said, now = (told.kind, sorted(told.data.items())), time.monotonic()
        if self._last[0] != said or now - self._last[1] > SAME:
            self.events.tell(told.kind, dict(told.data))
        self._last = said, now

    def _told(self, cause: str, outcome: Outcome) -> None:
        kind: Kind = "config_refused" if outcome.errors else "config_reloaded"
        said = {"errors": outcome.errors} if outcome.errors else {"digest": outcome.digest, "warnings": outcome.warnings}
        self.auditing.reloaded(cause, {"generation": outcome.generation, **said}, refused=bool(outcome.errors))
        self.events.tell(kind, {"cause": cause, "generation": outcome.generation, **said}, noticed=True)


async def run(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    snapshot = msgspec.msgpack.decode(boot.read(args.snapshot), type=Snapshot)
    state = msgspec.msgpack.decode(boot.read(args.state), type=Operator)
    plane = Plane(snapshot, state, (args.snapshot, args.state))
    server = uvicorn.Server(
        uvicorn.Config(
            Audited(plane.application(), plane.auditing),
            http=Connection,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            forwarded_allow_ips=list(snapshot.server.trusted_proxies),  # else it believes whoever comes from this machine
            timeout_graceful_shutdown=GRACE,
        )
    )
    # Its own handlers would have it leave on SIGTERM, and then die of that before anything is closed.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    tasks = set[asyncio.Task[object]]()

    def on_command(command: Command) -> None:
        match command:
            case Command.RELOAD:
                plane.reloader.reload("SIGHUP")
            case Command.DRAIN:
                plane.fleet.draining = True
            case Command.FAST | Command.ORPHANED:
                server.should_exit = True

    def on_link(index: int, sock: socket.socket) -> None:
        task: asyncio.Task[object] = loop.create_task(_join(plane.fleet, index, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    control = attach(loop, args.control, on_command, on_link)
    works = (_each(WATCH_SECONDS, plane.tick), _probe(plane.dependencies, plane.reloader), plane.registry.table.run(), plane.books.run())
    background: list[asyncio.Task[None]] = [loop.create_task(work) for work in works]
    control.ready()
    plane.begin()
    with listening(Path(snapshot.data_dir) / ADMIN_SOCKET) as local:
        await server.serve(sockets=[socket.socket(fileno=args.listen), *local])
    for task in background:
        task.cancel()
    plane.auditing.close()
    await asyncio.wait(background, timeout=ENDING / 2)
    closing = loop.create_task(plane.close())
    await asyncio.wait([closing], timeout=ENDING / 2)
    if closing.done() and (error := closing.exception()) is not None:
        traceback.print_exception(error, file=sys.stderr)
    leave()  # from in here: the loop's own end would wait once more for what did not end


async def _join(fleet: Fleet, index: int, sock: socket.socket) -> None:
    """A worker's new link. What the last one brought is forgotten when that one is lost."""
    heard = partial(fleet.hear, index, sock.fileno())
    lost = partial(fleet.lose, index, sock.fileno())
    link = await channel.operator_end(asyncio.get_running_loop(), sock, heard, lost)
    fleet.join(index, sock.fileno(), link)


async def _each(seconds: float, step: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            step()
        except Exception as error:  # noqa: BLE001  a bug of ours: the next beat finds files that changed, and tells workers, all the same
            traceback.print_exception(error, file=sys.stderr)


async def _probe(dependencies: Dependencies, reloader: Reloader) -> None:
    while True:
        await dependencies.probe(reloader.snapshot.redis)
        await asyncio.sleep(PROBE_SECONDS)


if __name__ == "__main__":
    main()
