"""What operator and worker say to each other: a closed set of messages, each a length and that much msgpack.

Law: values and framing only; what a message does is its receiver's affair. Light: a worker imports it.

A link lives as long as both of its processes; the supervisor hands both a new socketpair when either is restarted, so
framing always starts clean and nothing of a dead process's half-sent message is ever read (docs/adr/001).

Invariants
- Messages arrive whole and in order, or the link is lost.
- `send` never blocks and never waits. A message that may be superseded (a report, a mean, a finding) is dropped while the other side
  does not read; the others (`KEPT`) are always kept, since there are few and nobody repeats them.
- After `on_lost` nothing more arrives.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec
from msgspec import Struct

from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.changes import Change
from llm_gateway.core.happenings import Kind

HEADER = 4
LIMIT = 64 << 20
HIGH_WATER = 1 << 20

Received = TypeVar("Received")
Sent = TypeVar("Sent", bound=Struct)


class Load(Struct, frozen=True, tag="load"):
    """Use this configuration from the next request on."""

    snapshot: Snapshot


class Mean(Struct, frozen=True, tag="mean"):
    """Open client connections per worker, on average: one far above answers `Connection: close` for a while."""

    connections: float


class Found(Struct, frozen=True, tag="found"):
    """What the operator found of the dependencies, for a worker's /health. `redis`: None where none is configured."""

    redis: bool | None


class Credentials(Struct, frozen=True, tag="credentials"):
    """What the operator fetched from clouds, by provider. A provider that is not named keeps what it has."""

    keys: dict[str, str]

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self.keys)})"


class Changed(Struct, frozen=True, tag="changed"):
    """Up: what this worker found out. Down: what others did, or what held before this one came."""

    changes: list[Change]


class Probed(Struct, frozen=True, tag="probed"):
    """What the operator's own requests found, by provider: healthy, and the latency in ms. Providers it does not ask are missing."""

    providers: dict[str, tuple[bool, float | None]]


class Question(Struct, frozen=True, tag="question"):
    """Where would this request go? `key`: the name of the client's key, "" for nobody's; `at`: where it stands in the key table, if it was made at
    run time. Answered by an `Answer` of the same serial."""

    serial: int
    path: str
    headers: dict[str, str]
    body: bytes
    key: str = ""
    at: bytes = b""


class Purge(Struct, frozen=True, tag="purge"):
    """Take out of the cache what is of this tenant and this model and bears this tag; None is not asked."""

    tenant: str | None = None
    model: str | None = None
    tag: str | None = None


class Delta(Struct, frozen=True, tag="delta"):
    """What the key table does not know yet: place -> record (msgpack), None for one that is gone. `serial`: the revision that it leads to."""

    serial: int
    entries: dict[bytes, bytes | None]

    def __repr__(self) -> str:
        return f"Delta({self.serial}, {len(self.entries)} entries)"


class Tables(Struct, frozen=True, tag="tables"):
    """Look keys and spending up in these files of data_dir from now on; "": there is none yet. `serial`: of the revision that the key table
    holds. `since`: what it does not hold, in one message with it, so that no key is unknown in between. `absent`: nobody can say which keys
    there are, the database is away and no table is left of an earlier run."""

    keys: str
    serial: int
    spend: str = ""
    since: tuple[Delta, ...] = ()
    absent: bool = False


class Keysets(Struct, frozen=True, tag="keysets"):
    """What the operator fetched of the public keys of issuers of tokens: issuer -> JWK set."""

    sets: dict[str, str]


Down = Load | Mean | Found | Credentials | Changed | Probed | Question | Purge | Tables | Delta | Keysets


class Hello(Struct, frozen=True, tag="hello"):
    """First on every link. `generation`: of the configuration the worker serves with."""

    index: int
    pid: int
    generation: int


class Answer(Struct, frozen=True, tag="answer"):
    """JSON."""

    serial: int
    body: bytes


class Report(Struct, frozen=True, tag="report"):
    """A worker's counters since it started, once a second.

    families: metric family -> rendered labels (`provider="openai",code="200"`) -> value, or for a histogram the counts of
    its buckets and, last, its sum. providers: name -> (healthy, latency in ms if known).
    """

    index: int
    pid: int
    generation: int
    connections: int
    families: dict[str, dict[str, int | float | list[float]]]
    providers: dict[str, tuple[bool, float | None]]


class Told(Struct, frozen=True, tag="told"):
    """Something happened that people want to hear of; the operator makes an event of it."""

    kind: Kind
    data: dict[str, Any]


class Wanted(Struct, frozen=True, tag="wanted"):
    """A token bears a key of this issuer that is not known."""

    issuer: str


Up = Hello | Report | Changed | Answer | Told | Wanted
KEPT = (Load, Credentials, Changed, Question, Answer, Told, Purge, Tables, Delta, Keysets)


class Link(asyncio.Protocol, Generic[Received, Sent]):
    """One end of a channel, once connected."""

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[Received],
        on_message: Callable[[Received], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._decoder = decoder
        self._encoder = msgspec.msgpack.Encoder()
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._full = False

    def send(self, message: Sent) -> bool:
        """False if the message was dropped: the link is lost, or the other side is behind and this one can be missed."""
        if self._transport is None or (self._full and not isinstance(message, KEPT)):
            return False
        payload = self._encoder.encode(message)
        self._transport.write(len(payload).to_bytes(HEADER, "big") + payload)
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport is one that writes; uvloop's does not inherit the class that says so.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for payload in self._frames():
                self._on_message(self._decoder.decode(payload))
        except (msgspec.MsgspecError, FrameError):
            # The two ends are of one release and one machine: this is a bug, and a fresh start is the only cure.
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_lost()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def _frames(self) -> list[bytes]:
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER:
            end = start + HEADER + int.from_bytes(self._buffer[start : start + HEADER], "big")
            if end - start > LIMIT:
                raise FrameError(f"a message of {end - start} bytes")
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[start + HEADER : end]))
            start = end
        del self._buffer[:start]
        return frames


class FrameError(Exception):
    """A length that no message has."""


WorkerLink = Link[Down, Up]
OperatorLink = Link[Up, Down]


def _nobody() -> None:
    return


async def worker_end(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    on_message: Callable[[Down], None],
    on_lost: Callable[[], None] = _nobody,
) -> WorkerLink:
    """The worker's end. It says `Hello` first, then a `Report` each second; it hears all of `Down`."""
    link: WorkerLink = Link(msgspec.msgpack.Decoder(Down), on_message, on_lost)
    sock.setblocking(False)
    await loop.create_unix_connection(lambda: link, sock=sock)
    return link


async def operator_end(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    on_message: Callable[[Up], None],
    on_lost: Callable[[], None] = _nobody,
) -> OperatorLink:
    """The operator's end of the link to one worker."""
    link: OperatorLink = Link(msgspec.msgpack.Decoder(Up), on_message, on_lost)
    sock.setblocking(False)
    await loop.create_unix_connection(lambda: link, sock=sock)
    return link
