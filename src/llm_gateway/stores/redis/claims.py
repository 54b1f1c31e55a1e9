"""Idempotency keys in Redis: who runs a request, and what became of it, for all workers and replicas.

    llmgw:i:HASH    msgpack of (the body's hash, whose it is, how it stands, when it ended, the reply); HASH: of tenant and key

Law: a key is claimed for `LEASE` seconds, renewed while its owner lives, so that a killed one's is free again; only its owner writes to it. Whoever finds it
claimed asks again until there is a reply, or nobody has it any more. Nothing is raised: where Redis says nothing, the answer is `UNHEARD`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from enum import Enum, auto
from hashlib import blake2b
from time import perf_counter, time_ns
from typing import Any

import msgspec
from msgspec import Struct

from llm_gateway.stores.memory import Kept, Place
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.replies import redated
from llm_gateway.stores.redis.resp import Call, Command, Failure, pack
from llm_gateway.stores.redis.slots import slot

LEASE = 10.0  # seconds
HOPE = 1.0  # seconds for which a Redis that hung up, or is not connected yet, is waited for
RENEWED = 3.0  # seconds after which a claim is renewed


class Word(Enum):
    """What there is of a key beside a reply. GONE: its reply was not kept."""

    MINE = auto()
    RUNNING = auto()
    GONE = auto()
    OTHER = auto()  # of another body
    FREE = auto()
    UNHEARD = auto()


class Entry(Struct, frozen=True, array_like=True):
    """`mark`: the body's hash; `ended`: Unix seconds, 0 while it runs."""

    mark: bytes
    owner: bytes
    ended: float = 0.0
    kept: Kept | None = None


_decoder = msgspec.msgpack.Decoder(Entry)


class Claim(Struct, eq=False):
    """One key that a request of this worker has, or wants. `value`: what stands in Redis while it is ours; `renewed`: perf_counter."""

    key: bytes
    slot: int
    mark: bytes
    value: bytes
    renewed: float = 0.0


class Claims:
    """Made on a running loop."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._loop = asyncio.get_running_loop()

    def claim(self, place: Place, mark: bytes) -> Claim:
        """Nothing is asked yet."""
        key = b"llmgw:i:" + blake2b(place.tenant.encode() + b"\0" + place.mark, digest_size=20).hexdigest().encode()
        return Claim(key, slot(key), mark, msgspec.msgpack.encode(Entry(mark, os.urandom(8))))

    async def take(self, claim: Claim) -> Kept | Word:
        """MINE where nobody had it; else how it stands."""
        said = await self._ask(claim, "SET", claim.key, claim.value, "NX", "PX", int(LEASE * 1000))
        if isinstance(said, Failure):
            return Word.UNHEARD
        if said is None:
            return await self.look(claim)
        claim.renewed = perf_counter()
        return Word.MINE

    async def look(self, claim: Claim) -> Kept | Word:
        """How it stands; FREE if nobody has it any more."""
        said = await self._ask(claim, "GET", claim.key)
        if isinstance(said, Failure):
            return Word.UNHEARD
        if said is None:
            return Word.FREE
        try:
            entry = _decoder.decode(said)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Word.GONE  # of a gateway that keeps them otherwise: rather not sent again
        if entry.mark != claim.mark:
            return Word.OTHER
        if not entry.ended:
            return Word.MINE if said == claim.value else Word.RUNNING
        return Word.GONE if entry.kept is None else redated(entry.kept, perf_counter() - max(0.0, time_ns() / 1e9 - entry.ended))

    def renew(self, claim: Claim, now: float) -> None:
        """Call it once a second; also takes what Redis did not hear of, if nobody has it. now: perf_counter."""
        if now - claim.renewed >= RENEWED:
            claim.renewed = now
            self._swap(claim, claim.value, LEASE)

    def reaches(self, claim: Claim) -> bool:
        """Whether Redis would hear of it now."""
        return self.shared.client.reaches(claim.slot)

    def worth_waiting(self, claim: Claim) -> bool:
        """Whether Redis hung up just now, or is about to be there."""
        return self.shared.client.hung_up(claim.slot, HOPE)

    def end(self, claim: Claim, kept: Kept | None, seconds: float, heard: Callable[[], object], age: float = 0.0) -> None:
        """It was answered, `age` seconds ago; for `seconds` more others get its reply. kept None: by more than is kept. heard: called where Redis knows
        of it, or somebody else has it by now."""
        entry = Entry(claim.mark, b"", time_ns() / 1e9 - age, kept)
        self._swap(claim, msgspec.msgpack.encode(entry), seconds, lambda reply: isinstance(reply, Failure) or heard())

    def free(self, claim: Claim) -> None:
        """It failed, or its client left before it was sent: whoever asks next runs it."""
        self._swap(claim, b"", LEASE)

    def _ask(self, claim: Claim, *words: bytes | str | int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.shared.client.send(Command(pack(*words), future, claim.slot))
        return future

    def _swap(self, claim: Claim, value: bytes, seconds: float, told: Callable[[Any], object] | None = None) -> None:
        script = self.shared.scripts.swap
        words = pack("EVALSHA", script.sha, 1, claim.key, claim.value, value, int(seconds * 1000))
        self.shared.client.send(Command(words, Call(told or _told), claim.slot, script))  # not Nobody, for whom nothing is sent on where a slot has moved


def _told(reply: Any) -> None:
    """Whatever came of it: what a claim is now, who asks next sees."""
