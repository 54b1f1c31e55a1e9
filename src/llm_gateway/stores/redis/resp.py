"""Commands in RESP2, and one connection that carries many of them at once.

    send --end of the tick: one write--> Redis --in order--> replies, each to the sink of the command that waits longest

Law: replies belong to commands by their order alone, so the reply to somebody who left is still read, and dropped. Nothing is raised at a
caller: what goes wrong is a `Failure`. Deadlines are one timer per connection, not one per command. A reply that is late stalls the
connection: all who wait are told, and whoever comes is told at once, until everything that is owed was read.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command
from msgspec import Struct

from llm_gateway.stores.redis.meter import BOUNDS, Meter

POST = 0.004  # seconds
GRACE = 0.005  # seconds: whoever finds a deadline passed reads once more first: it may have been the loop that was late

# The first word of an error reply, or the one a script quotes -> what it is called here.
KINDS = {
    "LOADING": "loading", "OOM": "oom", "READONLY": "readonly", "MASTERDOWN": "masterdown", "CLUSTERDOWN": "clusterdown",
    "TRYAGAIN": "tryagain", "WRONGPASS": "auth", "NOAUTH": "auth", "NOPERM": "auth", "BUSY": "busy", "MISCONF": "misconf",
    "NOREPLICAS": "noreplicas", "MOVED": "moved", "ASK": "moved", "UNBLOCKED": "readonly",
}  # fmt: skip


class Failure(Struct, frozen=True, gc=False):
    """`kind`: `away` (nothing was sent), `timeout`, `lost` (it may have been carried out), one of KINDS, or `error`."""

    kind: str
    text: str = ""

    @property
    def uncertain(self) -> bool:
        return self.kind in ("timeout", "lost")


AWAY = "away"


class Sink(Protocol):
    """Who waits for a reply: a future, or anything like it."""

    def done(self) -> bool: ...

    def set_result(self, result: Any, /) -> None: ...


class Nobody:
    """Left before the reply came."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any, /) -> None:
        raise AssertionError(result)


class Call:
    """A sink that calls."""

    __slots__ = ("_call", "_done")

    def __init__(self, call: Callable[[Any], object]) -> None:
        self._call = call
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: Any, /) -> None:
        self._done = True
        self._call(result)


class Script(Struct, frozen=True):
    sha: bytes
    text: bytes


class Command:
    """`slot`: of its keys in a cluster; `script`: loaded where the server does not know it; `hops`: how often it was sent on."""

    __slots__ = ("at", "hops", "payload", "script", "sink", "slot")

    def __init__(self, payload: bytes, sink: Sink, slot: int = 0, script: Script | None = None) -> None:
        self.payload = payload
        self.sink = sink
        self.slot = slot
        self.script = script
        self.at = 0.0
        self.hops = 0

    def answer(self, reply: Any) -> None:
        if not self.sink.done():
            self.sink.set_result(reply)


class Owner(Protocol):
    """Whose connection it is."""

    def refused(self, connection: Connection, command: Command, text: str) -> None: ...

    def stalled(self, connection: Connection) -> None: ...

    def thawed(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """timeout: seconds, of each command."""

    __slots__ = (
        "_buffer", "_gets", "_loop", "_meter", "_owner", "_posted", "_reader", "_scheduled", "_timer", "_transport", "closed", "pending", "stuck", "timeout",
    )  # fmt: skip

    def __init__(self, owner: Owner, meter: Meter, timeout: float) -> None:
        self.timeout = timeout
        self.pending: deque[Command] = deque()
        self.stuck = False
        self.closed = False
        self._owner = owner
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._gets = self._reader.gets
        self._buffer: list[bytes] = []
        self._scheduled = False
        self._posted: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"<Connection {'closed' if self.closed else 'stuck' if self.stuck else 'open'}, {len(self.pending)} waiting>"

    def send(self, command: Command) -> None:
        if not command.at:
            command.at = perf_counter()
        self.pending.append(command)
        self._buffer.append(command.payload)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def post(self, command: Command) -> None:
        """As `send`, but with whatever is sent next, or in a few milliseconds: nobody waits for it, and a write and a wake-up are saved."""
        command.at = perf_counter()
        self.pending.append(command)
        self._buffer.append(command.payload)
        if not self._scheduled and self._posted is None:
            self._posted = self._loop.call_later(POST, self._flush)

    def ask(self, *words: bytes | str | int) -> asyncio.Future[Any]:
        """One command of no script, for whoever sets the connection up."""
        future = self._loop.create_future()
        self.send(Command(pack(*words), future))
        return future

    def hurry(self, timeout: float) -> None:
        """Another timeout, from now on."""
        self.timeout = timeout
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.pending:
            self._sweep()

    def close(self) -> None:
        """At once; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    # -- of the transport --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit the class that says that they write.
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        reader_gets, pending, counts = self._gets, self.pending, self._meter.counts
        now, spent = perf_counter(), 0.0
        try:
            self._reader.feed(data)
            while (reply := reader_gets()) is not False:
                if not pending:
                    raise ProtocolError("it answers what nobody asked")
                command = pending.popleft()
                taken = now - command.at
                counts[bisect_left(BOUNDS, taken)] += 1
                spent += taken
                if type(reply) is ReplyError:
                    self._owner.refused(self, command, str(reply))
                elif not (sink := command.sink).done():
                    sink.set_result(reply)
        except ProtocolError:
            self.close()
            return
        finally:
            self._meter.seconds.sum += spent
        if self.stuck and not pending:
            self.stuck = False
            self._owner.thawed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        if self._posted is not None:
            self._posted.cancel()
            self._posted = None
        if self.closed or self._transport is None or not self._buffer:
            return
        buffer, self._buffer = self._buffer, []
        self._transport.write(buffer[0] if len(buffer) == 1 else b"".join(buffer))
        if self._timer is None:
            self._timer = self._loop.call_later(self.timeout - GRACE, self._sweep)

    def _sweep(self) -> None:
        if not self.pending:
            self._timer = None
            return
        left = self.timeout - GRACE - (perf_counter() - self.pending[0].at)
        if left > 0:
            self._timer = self._loop.call_later(max(left, 0.001), self._sweep)
        else:
            self._timer = self._loop.call_later(GRACE, self._judge)

    def _judge(self) -> None:
        """After the loop has read what there was to read."""
        self._timer = None
        if self.pending and perf_counter() - self.pending[0].at >= self.timeout - GRACE / 2:
            self.stuck = True
            waiting = [(command, command.sink) for command in self.pending]
            for command, _ in waiting:
                command.sink = Nobody()
            self._owner.stalled(self)
            self._meter.fail("timeout", len(waiting))
            for _, sink in waiting:
                if not sink.done():
                    sink.set_result(Failure("timeout"))
        elif self.pending:
            self._sweep()

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        for timer in (self._timer, self._posted):
            if timer is not None:
                timer.cancel()
        waiting, self.pending = self.pending, deque()
        self._owner.lost(self)
        if waiting:
            self._meter.fail("lost", len(waiting))
        for command in waiting:
            command.answer(Failure("lost"))


def pack(*words: bytes | str | int) -> bytes:
    packed: bytes = pack_command(words)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # its stub knows tuples of one word
    return packed


def kind(text: str) -> str:
    """Of an error reply. Older servers quote a script's own error in the middle of theirs."""
    first = text.partition(" ")[0]
    if first in KINDS:
        return KINDS[first]
    return next((KINDS[word] for word in ("OOM", "READONLY", "MISCONF", "NOREPLICAS") if f"-{word} " in text), "error")
