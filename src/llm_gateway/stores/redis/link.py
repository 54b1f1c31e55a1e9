"""One server, for as long as the worker lives: its connection, made again whenever it goes, and whether it may be used now.

    connecting --signed in, scripts loaded, a key written--> ready
    ready --a reply is late--> stalled --all that was owed is read--> ready; or --2 s--> connecting
    ready --5 failures in 60 s--> open --a key is written--> ready
    any --the connection is lost--> connecting (after 50 ms, at most 1 s)

Law: `gate` is the connection that commands may go to, None while there is none; nothing else is asked on the hot path. Whoever finds out that a
server is well again is a probe, never a request; that it is not, often a look at its mark, every few seconds. A server that turned read-only is
left: its name, or its sentinel, may know another one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol

from msgspec import Struct

from llm_gateway.policies.breaker import Breaker
from llm_gateway.policies.breaker import Terms as BreakerTerms
from llm_gateway.stores.redis.dial import Unreachable, answer, sign_in
from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import AWAY, Call, Command, Connection, Failure, Script, kind, pack
from llm_gateway.stores.redis.terms import Login, Node

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
OPENING = 2.5  # seconds, of a connection with all that is said first
BEAT = 5.0
STUCK = 2.0  # seconds of a stall until the connection is given up
BREAKER = BreakerTerms(consecutive=0, ratio=0.0, volume=5, window=60.0, ejection=0.5, cap=2.0, recovery=0.0)
PROBE = "llmgw:{probe}"
ELSEWHERE = frozenset({"readonly", "masterdown", "loading"})  # another server may be the one by now
MOST_HOPS = 4


class Setup(Struct, frozen=True):
    """What every connection is told first. `timeout`: seconds of one operation."""

    login: Login
    db: int
    timeout: float
    scripts: tuple[Script, ...]


class Watcher(Protocol):
    """Who is told what becomes of a link."""

    def turned(self, link: Link, reason: str) -> None:
        """It is ready (reason ""), or not any more."""
        ...

    def emptied(self, link: Link) -> None:
        """It has lost what it knew."""
        ...

    def redirected(self, link: Link, command: Command, text: str) -> None:
        """The server says that another one has these keys: MOVED, ASK or TRYAGAIN."""
        ...


class Link:
    """`dial`: opens a connection for this server, wherever it is now."""

    def __init__(
        self, node: Node, dial: Callable[[Callable[[], Connection]], Awaitable[Connection]], setup: Setup, watcher: Watcher, meter: Meter
    ) -> None:
        self.node = node
        self.gate: Connection | None = None
        self._probe_key = PROBE
        self._epoch: bytes | None = None
        self.reason = "connecting"
        self.turned_at = perf_counter()
        self._dial = dial
        self._setup = setup
        self._watcher = watcher
        self._meter = meter
        self._breaker = Breaker(BREAKER)
        self._connection: Connection | None = None
        self._gone = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def __repr__(self) -> str:
        return f"<Link to {self.node[0]}:{self.node[1]} {self.reason or 'ready'}, {self._breaker}>"

    def probe(self, key: str) -> None:
        """A key that is this server's, where not all are."""
        if key != self._probe_key:
            self._probe_key, self._epoch = key, None

    def close(self) -> None:
        self._closed = True
        self._task.cancel()
        self._later(0.0, None)
        if self._connection is not None:
            self._connection.close()

    # -- of its connection -------------------------------------------------------------------------------------------

    def refused(self, connection: Connection, command: Command, text: str) -> None:
        """An error reply. What can be cured is cured; else whoever waits is told, and the breaker."""
        word = text.partition(" ")[0]
        if word == "NOSCRIPT" and command.script is not None and command.hops < MOST_HOPS:
            command.hops += 1
            connection.send(Command(pack("SCRIPT", "LOAD", command.script.text), Call(_heard)))
            connection.send(command)
            return
        if word in ("MOVED", "ASK", "TRYAGAIN") and command.hops < MOST_HOPS and not command.sink.done():
            command.hops += 1
            self._watcher.redirected(self, command, text)
            return
        what = kind(text)
        self._meter.fail(what)
        command.answer(Failure(what, text))
        if connection is self.gate and self._breaker.fail(perf_counter()):
            self._open(what)
        if what == "readonly":
            self._leave()

    def stalled(self, connection: Connection) -> None:
        if connection is self._connection:
            self._breaker.fail(perf_counter())
            self._shut("timeout")
            self._later(STUCK, self._leave)

    def thawed(self, connection: Connection) -> None:
        if connection is self._connection:
            if self._breaker.open:
                self._open("timeout")
            else:
                self._ready()

    def lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._shut("lost")
            self._gone.set()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(OPENING):
                    await self._connect()
            except OSError as error:
                self._drop()
                self._shut(error.kind if isinstance(error, Unreachable) else AWAY if not isinstance(error, TimeoutError) else "timeout")
                await asyncio.sleep(pause * (0.5 + os.urandom(1)[0] / 256))
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            await self._gone.wait()
            await asyncio.sleep(pause)

    async def _connect(self) -> None:
        """OSError, and all that is known of a failure by its kind."""
        self._gone.clear()
        self._connection = None
        setup = self._setup
        connection = await self._dial(lambda: Connection(self, self._meter, setup.timeout))
        connection.hurry(OPENING)
        self._connection = connection
        await sign_in(connection, setup.login)
        if setup.db:
            await answer(connection.ask("SELECT", setup.db))
        for script in setup.scripts:
            await answer(connection.ask("SCRIPT", "LOAD", script.text))
        await self._write(connection)
        connection.hurry(setup.timeout)
        self._breaker = Breaker(BREAKER)
        self._ready()

    async def _write(self, connection: Connection) -> None:
        """A server that answers may still take nothing in: only one that wrote something is ready. A cluster's node that knows whose the
        key is, is."""
        try:
            await answer(connection.ask("SET", self._probe_key, "1", "PX", "1000"))
        except Unreachable as error:
            if error.kind != "moved":
                raise

    def _open(self, reason: str) -> None:
        """The breaker is: the next thing that goes there is a probe."""
        self._shut(reason)
        if reason in ELSEWHERE:
            self._leave()
        else:
            self._later(max(0.0, self._breaker.until - perf_counter()), self._try)

    def _try(self) -> None:
        if self._connection is not None:
            self._connection.send(Command(pack("SET", self._probe_key, "1", "PX", "1000"), Call(self._probed)))

    def _probed(self, reply: Any) -> None:
        if isinstance(reply, Failure) and reply.kind != "moved":
            self._breaker.trip(perf_counter())
            if self._connection is not None and not reply.uncertain:
                self._open(reply.kind)
        elif self._connection is not None and not self._connection.stuck:
            self._breaker = Breaker(BREAKER)
            self._ready()

    def _ready(self) -> None:
        self._later(0.0, None)
        if self.gate is None:
            self.gate, self.reason, self.turned_at = self._connection, "", perf_counter()
            self._watcher.turned(self, "")
            self._beat()

    def _shut(self, reason: str) -> None:
        self._later(0.0, None)
        fresh = self.gate is not None or self.reason in ("", "connecting")
        if self.gate is not None:
            self.turned_at = perf_counter()
        self.gate, self.reason = None, reason
        if self._pulse is not None:
            self._pulse.cancel()
        if fresh and not self._closed:
            self._watcher.turned(self, reason)

    def _beat(self) -> None:
        """A connection that nobody used for long may be gone without a word, and a server that answers may have been emptied: who first finds no
        mark makes one, and who finds another's than the one it knew has come to a server that knows nothing."""
        if self.gate is not None:
            mark = f"{self._probe_key}:epoch"
            self.gate.send(Command(pack("SET", mark, os.urandom(8).hex(), "NX"), Call(_heard)))
            self.gate.send(Command(pack("GET", mark), Call(self._beaten)))
            self._pulse = self._loop.call_later(BEAT, self._beat)

    def _beaten(self, epoch: Any) -> None:
        if isinstance(epoch, bytes):
            known, self._epoch = self._epoch, epoch
            if known not in (None, epoch):
                self._watcher.emptied(self)

    def _leave(self) -> None:
        """Of a connection that is no good any more; another one is opened."""
        if self._connection is not None:
            self._connection.close()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _later(self, seconds: float, step: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, step) if step is not None else None


def _heard(reply: Any) -> None:
    """Of SCRIPT LOAD the command behind it tells how it went; of a mark, GET does."""
