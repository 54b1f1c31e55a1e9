"""One worker: serves the data plane on the sockets it was given, until it is told to stop.

Law: this is one of the two places where parts are wired together; it decides nothing about a request. It owns nothing
durable but its journal file. It goes on serving when the operator is away, and drains when the supervisor is gone.

Time is kept by one task: every 250 ms the relays' limits, every 500 ms the connections', every second the report upward.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from pathlib import Path
from time import perf_counter

import msgspec
import uvloop

from llm_gateway import wiring
from llm_gateway.accounting.journal import Journal
from llm_gateway.accounting.ledger import Ledger
from llm_gateway.admission.access import Admission
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.admission.seals import Seals
from llm_gateway.admission.spend import Spend
from llm_gateway.admission.tokens import Tokens
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.core.exchange import Exchange
from llm_gateway.core.gauges import Gauges
from llm_gateway.core.happenings import Kind as Event
from llm_gateway.core.tenancy import Claim
from llm_gateway.egress.deliver import Egress, Timing
from llm_gateway.egress.local import Facts, Local
from llm_gateway.egress.relay import Relay
from llm_gateway.egress.shadow import Shadows
from llm_gateway.egress.telling import ending
from llm_gateway.explaining import Asked, explained
from llm_gateway.ingress.early import unheard
from llm_gateway.ingress.server import Server
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.pipeline import Line, gate, repeat, serve
from llm_gateway.routing.condition import Conditions
from llm_gateway.routing.once import Once
from llm_gateway.routing.replay import Replay
from llm_gateway.stores.gauges import Memory
from llm_gateway.stores.redis.buckets import Line as Buckets
from llm_gateway.stores.redis.client import Turn
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.terms import Terms
from llm_gateway.supervisor import boot, channel, control
from llm_gateway.supervisor.counting import HELPER, TokenCounter
from llm_gateway.telemetry.access import AccessLog
from llm_gateway.telemetry.garbage import Garbage
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.telemetry.vitals import Vitals
from llm_gateway.upstream.fetch import Fetcher
from llm_gateway.upstream.pool import Pool

TICK = 0.25
REQUEST = "request"  # every request's task
FAST_DRAIN = 5.0
PATIENCE, PATIENCE_AT_FIRST = 0.25, 5.0
MOST_FILES = 1 << 20
CROWDED = 1.25  # times the mean of open connections, above which replies end their connection


class Worker:
    def __init__(self, index: int, snapshot: Snapshot, loop: asyncio.AbstractEventLoop) -> None:
        self.index = index
        self.loop = loop
        self.snapshot = snapshot
        self.born = perf_counter()
        self.metrics = Metrics()
        self.vitals = Vitals()
        self.garbage = Garbage()
        self.catalogue = load_catalogue()
        self.formats = wiring.formats()
        self.journal = Journal(Path(snapshot.data_dir) / "journal", index, snapshot.journal_on_error)
        self.log = AccessLog(snapshot.logging.output) if snapshot.logging.access else None
        self.seals = Seals(snapshot.secret)
        self.ledger = Ledger(loop, self.journal, self.log, self.metrics)
        self.shadows = Shadows(self.metrics, self.ledger.settle)
        self.counter = TokenCounter()
        # Whose process it is, and of no other worker in the world, so that its requests' ids are not either.
        prefix = f"{os.getpid():06x}{os.urandom(8).hex()}"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.server = Server(snapshot.server, self._start, prefix, workers=snapshot.workers, files=files)
        self.pool = Pool(self.server.small)
        self.fetcher = Fetcher(self.pool)
        self.conditions = Conditions()
        self.fetched: dict[str, str] = {}  # cloud credentials, by provider; what the operator said last
        self.directory = Directory()
        self.tokens = Tokens(self._want)
        self.unread = 0  # key tables that could not be read
        self.informed = asyncio.Event()  # of which keys there are
        self.replay: Replay | None = None
        self.spend = Spend()
        self._gauges: Gauges | None = None
        self._shared: Shared | None = None
        self._redis_terms: Terms | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.once = Once()
        self.link: channel.WorkerLink | None = None
        self.redis: bool | None = None  # the operator's finding; kept while it is away
        self.stopped = asyncio.Event()
        self._listeners: list[asyncio.AbstractServer] = []
        self._lag = 0.0
        self._drain: asyncio.Task[None] | None = None
        self._linking: set[asyncio.Task[None]] = set()
        self.line = self._adopt(snapshot, set())

    def adopt(self, snapshot: Snapshot) -> None:
        """Takes a configuration over, from the next request on. Requests under way end under the one they began with."""
        self.journal.adopt(snapshot.journal_on_error)
        self.fetched = wiring.still_good(self.fetched, self.snapshot, snapshot)
        self.line.quota.rest(perf_counter() + self.server.epoch)  # where reloads come often, it may never have had enough looked up to do so itself
        active = self.line.routing.active
        after = {each.name: each for each in snapshot.providers}
        self.conditions.forget(each.name for each in self.snapshot.providers if after.get(each.name) != each)
        before = self.line
        self.line = self._adopt(snapshot, before.egress.relays)
        self.line.quota.inherit(before.quota)
        self.line.routing.queue.refused += before.routing.queue.refused
        self.line.routing.probed(active)  # of providers that are gone too: nobody asks for those

    def _adopt(self, snapshot: Snapshot, relays: set[Relay]) -> Line:
        gauges = self._counting(snapshot)
        self.conditions.lines = partial(Buckets, self._shared, spare=self.conditions.allowance) if self._shared is not None else None
        table = wiring.table(snapshot, self.catalogue, self.metrics, self.pool, self.fetched, conditions=self.conditions)
        self.vitals.adopt(tuple(table.seats), wiring.waiting(table))
        facts = Facts(snapshot.version, snapshot.data_dir, self.born, lambda: self.redis, lambda: self.server.draining)
        timing = Timing(snapshot.server.timeout, snapshot.heartbeat or math.inf, snapshot.heartbeat_early)
        local = Local(table, self.vitals, facts)
        inlay = wiring.inlay(snapshot, self.fetcher, self.metrics)
        egress = Egress(self.pool, self.formats, self.seals, (self.metrics, self.vitals), local, timing, inlay=inlay)
        egress.relays, egress.overload = relays, self.server.overload
        egress.shadows, egress.counter = self.shadows, self.counter
        admission = Admission(wiring.keys(snapshot, self.directory, self.tokens), self.formats, self.journal, self.seals)
        cors = snapshot.server.cors
        self.replay = wiring.replay(snapshot, self.formats, self.replay, self._shared)
        quota = wiring.quota(snapshot, gauges, self.metrics)
        self.once.whole_request = snapshot.server.timeout
        line = Line(admission, table, egress, self.ledger, cors.origins, cors.max_age, quota=quota, once=self.once, replay=self.replay)
        line.repeats = self.replay if self._shared is None else None
        self.server.adopt(snapshot.server, partial(gate, line=line), admission.identify)
        self.pool.forget(wiring.origins(snapshot))
        self.snapshot = snapshot
        self.garbage.freeze()
        return line

    async def run(self, listen: list[int], control_fd: int) -> None:
        line = control.attach(self.loop, control_fd, self._command, self._link)
        self.directory.awaited = True  # the supervisor has an operator, or soon will
        self.loop.add_signal_handler(signal.SIGTERM, self._command, control.Command.DRAIN)
        for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor's affair
            self.loop.add_signal_handler(number, lambda: None)
        await self._before()
        for fd, listener in zip(listen, self.snapshot.server.listeners, strict=True):
            tls = listener.tls
            files = (tls.cert, tls.key, tls.client_ca) if tls is not None else None
            sock = socket.socket(fileno=fd)
            self._listeners.append(await self.server.listen(sock, files, proxied=listener.proxy_protocol))
        line.ready()
        if any(seat.speaker.formats("response", "") for seat in self.line.routing.seats.values()):
            # Ids will have to be sealed: the library for it takes 25 ms to import, which the first of them need not wait for.
            self.loop.run_in_executor(None, self.seals.load)
        if self.tokens.issuers:
            self.loop.run_in_executor(None, self.tokens.load)
        clock = self.loop.create_task(self._clock())
        await self.stopped.wait()
        clock.cancel()
        await self.shadows.close()
        self.ledger.flush()
        if self._shared is not None:
            await self._shared.close()
        self.pool.close()
        self.fetcher.close()
        self.journal.close()

    async def _before(self) -> None:
        """Where keys were made at run time, connections wait for the operator's word on them: a worker that takes a dead one's place has it
        in no time, and refuses nobody; at a start nobody waits for an operator that is not up yet. But where tenants of the file may have
        entrusted keys of their own and no table says whether they did, all wait for it: ours must not stand in."""
        path = Path(self.snapshot.data_dir) / KEYS
        if path.exists() and not self.directory.open(path, confirmed=False):
            self.line.admission.forget()
            patience = PATIENCE
        elif self.snapshot.tenancy.tenants:
            patience = PATIENCE_AT_FIRST
        else:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.informed.wait()

    # -- requests ----------------------------------------------------------------------------------------------------

    def _start(self, x: Exchange) -> asyncio.Task[None] | None:
        line = self.line
        if line.repeats is not None and x.known is not None and repeat(x, line, line.repeats):
            return None
        # Not create_task: with a name given, none is formatted; half a microsecond a request.
        return asyncio.Task(serve(x, line), loop=self.loop, name=REQUEST)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _command(self, command: control.Command) -> None:
        match command:
            case control.Command.DRAIN | control.Command.ORPHANED:
                lame_duck = self.snapshot.server.lame_duck if command is control.Command.DRAIN else 0.0
                self._begin_drain(lame_duck, self.snapshot.server.drain_timeout)
            case control.Command.FAST:
                self._begin_drain(0.0, FAST_DRAIN)
            case control.Command.RELOAD:
                return  # the operator's

    def _begin_drain(self, lame_duck: float, patience: float) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self._drain = self.loop.create_task(self._draining(lame_duck, patience))

    async def _draining(self, lame_duck: float, patience: float) -> None:
        """Ready says no; for a while new connections are still served, and closed; then what is open may end."""
        self.server.draining = True
        await asyncio.sleep(lame_duck)
        for listener in self._listeners:
            listener.close()
        end = perf_counter() + patience
        while (self.server.connections or self.server.early or self.once.running) and perf_counter() < end:
            self.server.close_idle()
            await asyncio.sleep(0.05)
        for relay in list(self.line.egress.relays):
            relay.fail(ending())
        await asyncio.sleep(0.05)
        for task in asyncio.all_tasks():  # of requests that nobody is asked for just now: they wait for a turn, another attempt, media
            if task.get_name() == REQUEST:
                task.cancel()
        await asyncio.sleep(0.05)
        self.stopped.set()

    def _link(self, index: int, sock: socket.socket) -> None:
        reach = self.counter.connect(self.loop, sock) if index == HELPER else self._hello(sock)
        self._linking.add(linking := self.loop.create_task(reach))
        linking.add_done_callback(self._linking.discard)

    async def _hello(self, sock: socket.socket) -> None:
        self.conditions.doubt()
        self.link = await channel.worker_end(self.loop, sock, self._told)
        self.link.send(channel.Hello(self.index, os.getpid(), self.snapshot.generation))

    def _told(self, message: channel.Down) -> None:
        """The line is made once for two processes: what goes wrong here must not cost it."""
        try:
            self._obey(message)
        except Exception as error:  # noqa: BLE001  a bug of ours; the next message may say that a key was revoked
            traceback.print_exception(error, file=sys.stderr)

    def _obey(self, message: channel.Down) -> None:
        match message:
            case channel.Load(snapshot):
                if snapshot.generation != self.snapshot.generation or snapshot.digest != self.snapshot.digest:
                    self.adopt(snapshot)
            case channel.Mean(connections):
                self.server.uneven = len(self.server.connections) > max(8.0, connections * CROWDED)
            case channel.Found(redis):
                self.redis = redis
            case channel.Credentials(keys):
                self.conditions.forget(name for name, key in keys.items() if self.fetched.get(name) != key)
                self.fetched |= keys
                self.adopt(self.snapshot)
            case channel.Changed(changes):
                self.line.routing.hear(changes)
            case channel.Question(serial, path, headers, body, key, at):
                if self.link is not None:
                    told = explained(self.line.admission, self.line.routing, Asked(path, headers, body, key, at))
                    self.link.send(channel.Answer(serial, msgspec.json.encode(told)))
            case channel.Purge(tenant, model, tag):
                if self.replay is not None:
                    self.replay.store.purge(tenant, model, tag)
            case channel.Probed(providers):
                self.line.routing.probed(providers)
            case channel.Tables() | channel.Delta() | channel.Keysets():
                self._learn(message)

    def _want(self, issuer: str) -> None:
        if self.link is not None:
            self.link.send(channel.Wanted(issuer))

    def _learn(self, message: channel.Tables | channel.Delta | channel.Keysets) -> None:
        """Who may do what has changed."""
        directory = self.directory
        match message:
            case channel.Tables(keys, _, spend, since, absent):
                if absent:
                    self.informed.set()
                if spend:
                    self.spend.open(Path(self.snapshot.data_dir) / spend)
                if keys and not directory.holds(path := Path(self.snapshot.data_dir) / keys):
                    self.unread += bool(directory.open(path))
                    for delta in since:
                        directory.change(delta.serial, delta.entries)
                    self.line.admission.forget()
                    self.informed.set()
            case channel.Keysets(sets):
                if self.tokens.learn(sets):
                    self.line.admission.forget()
            case channel.Delta(serial, entries):
                if directory.change(serial, entries):
                    self.line.admission.forget()

    def tell(self, changes: list[Change]) -> None:
        """To the operator, which tells the other workers; to nobody while it is away."""
        if self.link is not None:
            self.link.send(channel.Changed(changes))

    def _alert(self, tenant: str, claim: Claim, share: float, spent: int) -> None:
        """A budget has passed one of its alerts."""
        data: dict[str, object] = {"tenant": tenant, "gauge": claim.gauge, "period": claim.period, "share": share}
        self._happened("budget_alert", data | {"spent_usd": spent / 1e9, "amount_usd": claim.limit / 1e9})

    def _turned(self, turn: Turn) -> None:
        """A Redis came or went."""
        if turn.reason:
            self._happened("redis_away", {"server": turn.node, "reason": turn.reason})
        else:
            self._happened("redis_back", {"server": turn.node})

    def _happened(self, kind: Event, data: dict[str, object]) -> None:
        """Tells the operator, if there is one just now."""
        if self.link is not None:
            self.link.send(channel.Told(kind, data))

    def _counting(self, snapshot: Snapshot) -> Gauges:
        """Where limits are counted: in Redis, if there is one; the present place, if nothing about it has changed."""
        tenancy, terms = snapshot.tenancy, snapshot.redis
        if terms != self._redis_terms or self._gauges is None:
            memory, before = Memory(self.spend, self._alert), self._shared
            self._shared = Shared(terms, memory, self.spend, self._turned, alert=self._alert) if terms is not None else None
            if before is not None:
                if self._shared is not None:
                    before.bequeath(self._shared)
                self._closing.add(closing := self.loop.create_task(before.close()))
                closing.add_done_callback(self._closing.discard)
            self._gauges = self._shared if self._shared is not None else memory
            self.once.share(self._shared)
            self._redis_terms = terms
        if self._shared is not None:
            policy = self._shared.policy
            policy.shares, policy.loss = tenancy.together, lambda _: tenancy.on_redis_loss
        return self._gauges

    # -- time --------------------------------------------------------------------------------------------------------

    async def _clock(self) -> None:
        beat = 0
        while True:
            before = perf_counter()
            await asyncio.sleep(TICK)
            now = perf_counter()
            lag = now - before - TICK
            self._lag = max(self._lag, lag)
            self.server.overload.beat(lag)
            self.server.strain()
            self.line.egress.tick(now)
            if self.conditions.changes:
                self.tell(self.conditions.take())
            beat += 1
            if beat % 2 == 0:
                self.server.sweep(now)
                self.pool.sweep(now)
            if beat % 4 == 0:
                self.journal.retry()
                if self.replay is not None:
                    self.replay.store.sweep(now)
                self.once.sweep(now)
                if self.log is not None:
                    self.log.flush()
                self.garbage.collect(idle=not self.line.egress.relays)
                self._report()

    def _report(self) -> None:
        self.vitals.age(perf_counter())
        metrics, server = self.metrics, self.server
        idle = sum(len(bay.idle) for bay in self.pool.bays.values())
        total = sum(len(bay.open) for bay in self.pool.bays.values())
        metrics.active = sum(1 for c in server.connections if c.active is not None)
        metrics.streams = sum(1 for relay in self.line.egress.relays if relay.streaming)
        metrics.gauges = {
            "llm_gateway_open_connections": {"": len(server.connections)},
            "llm_gateway_upstream_connections": {'state="idle"': idle, 'state="busy"': total - idle},
            "llm_gateway_body_bytes": {"": server.body_bytes},
            "llm_gateway_journal_rows_total": {"": self.journal.rows},
            "llm_gateway_journal_waiting_bytes": {"": self.journal.waiting_bytes},
            "llm_gateway_journal_errors_total": {"": self.journal.errors},
            "llm_gateway_journal_dropped_total": {"": self.journal.dropped},
            "llm_gateway_log_dropped_total": {"": self.log.dropped if self.log is not None else 0},
            "llm_gateway_key_table_errors_total": {"": self.unread},
            "llm_gateway_gc_pause_seconds_max": {"": self.garbage.longest},
            "llm_gateway_loop_lag_seconds_max": {"": self._lag},
            "llm_gateway_overload_refused_total": {f'reason="{reason}"': n for reason, n in server.overload.refused.items()},
            **self.line.routing.gauges(),
            **self.line.quota.report(),
            **self.once.report(),
            **self.counter.report(),
            **(self._shared.gauges() if self._shared is not None else {}),
            **(self.replay.gauges() if self.replay is not None else {}),
        }
        self._lag = 0.0
        if self.link is not None:
            self.link.send(
                channel.Report(
                    self.index,
                    os.getpid(),
                    self.snapshot.generation,
                    len(server.connections),
                    metrics.report(),
                    self.vitals.report(),
                )
            )


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="llm-gateway worker")
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--snapshot", type=int, required=True)
    parser.add_argument("--listen", type=lambda text: [int(fd) for fd in text.split(",")], required=True)
    args = parser.parse_args(argv)
    snapshot = msgspec.msgpack.decode(boot.read(args.snapshot), type=Snapshot)
    # A stream holds two descriptors; shells hand down a soft limit of 1024 for the sake of select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else MOST_FILES, hard))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(unheard)
        await Worker(args.index, snapshot, loop).run(args.listen, args.control)

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
