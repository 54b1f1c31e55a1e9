"""The response cache in Redis: one for all workers and replicas, each reply for its time.

    llmgw:c:HASH        msgpack of (what was purged last when it was asked for, when it was kept, the reply), for as long as it counts; HASH: of tenant
                        and mark, so that a cluster spreads them
    llmgw:{c}:purged    hash: [tenant, model, tag] as JSON -> its number; `#` the last number there was

Law: whatever goes wrong is a miss. A look-up is one round trip: the reply, and the number of the last purge beside it; only where that is news the
purges are read too. A reply counts as long as nothing that names it was purged after it was asked for: a purge is one write, and holds everywhere at
once. Where the numbers are gone all that was kept before is, too. There are at most `MOST` purges; one more and all is purged in their place.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from itertools import product
from time import perf_counter, time_ns
from typing import Any

import msgspec

from llm_gateway.stores.memory import Kept, Place
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.leases import Lease, Leases, Word
from llm_gateway.stores.redis.resp import Call, Command, Failure, Nobody, pack
from llm_gateway.stores.redis.scripts import EVERYTHING
from llm_gateway.stores.redis.slots import slot

PURGED = b"llmgw:{c}:purged"
LAST = b"#"
MOST_PENDING = 1000

Named = tuple[str | None, str | None, str | None]
_shelved = msgspec.msgpack.Decoder(tuple[int, float, Kept])


class Replies:
    """As stores.memory.Memory, for whoever awaits `get`. `purges`: the number of the last purge this worker
    heard of, 0: that is to be asked."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.purges = 0
        self.leases = Leases(shared)
        self._numbers: dict[Named, int] = {}
        self._pending: dict[bytes, None] = {}  # purges that Redis has not confirmed
        self._slot = slot(PURGED)
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Replies in {self.shared.client}, {len(self._numbers)} purges>"

    def inherit(self, other: Replies) -> None:
        """Tells the Redis that is reached from now on what the one before has not heard of: it may be the same."""
        self._pending = dict(other._pending)

    async def get(self, place: Place, now: float) -> Kept | None:
        key = _key(place)
        found, rest, number = self._ask("GET", key), self._ask("PTTL", key), self._ask("HGET", PURGED, LAST)
        last = await number
        if isinstance(last, Failure) or (self._new(last) and not await self._learn(begun=last is not None)):
            return None
        shelved, left = await found, await rest
        if not shelved or isinstance(shelved, Failure) or isinstance(left, Failure):
            return None
        return self._standing(place, shelved, now, left / 1000)

    def lease(self, place: Place) -> Lease:
        return self.leases.lease(_key(place))

    async def take(self, place: Place, lease: Lease, oldest: float) -> Kept | Word:
        """The reply, if it was kept no earlier than `oldest`, by perf_counter; else whose the lease is: ours now if it was nobody's. Where
        there is a reply that does not count, that is a second round trip."""
        asked, number = self.leases.ask(lease), self._ask("HGET", PURGED, LAST)
        last = await number
        if isinstance(last, Failure) or (self._new(last) and not await self._learn(begun=last is not None)):
            return Word.UNHEARD
        said = await asked
        if isinstance(said, list):
            kept = self._standing(place, said[0], perf_counter(), said[1] / 1000)
            if kept is not None and kept.born >= oldest:
                lease.asked = lease.renewed > 0
                return kept
            said = await self.leases.ask(lease, anyway=True)
        return self.leases.word(lease, said)

    def put(self, place: Place, kept: Kept) -> None:
        """Nobody waits for it. Not kept where nobody knows what was purged."""
        milliseconds = int((kept.until - kept.born) * 1000)
        if self.purges and milliseconds > 0:
            key = _key(place)
            value = msgspec.msgpack.encode((self.purges, time_ns() / 1e9, kept))
            self.shared.client.post(Command(pack("SET", key, value, "PX", milliseconds), Nobody(), slot(key)))

    def purge(self, tenant: str | None = None, model: str | None = None, tag: str | None = None) -> None:
        """Of all workers' replies those that all of this is true of. Told again until Redis has heard it; meanwhile nothing is found here."""
        if len(self._pending) >= MOST_PENDING:
            self._pending = {EVERYTHING: None}
        name = msgspec.json.encode((tenant, model, tag))
        self._pending[name] = None
        self._tell(name)

    def sweep(self, _now: float) -> None:
        """Once a second."""
        for name in [*self._pending] if self.shared.ready else ():
            self._tell(name)

    def report(self) -> dict[str, dict[str, float]]:
        """Sizes are Redis' own to tell."""
        return {}

    # -- inside ------------------------------------------------------------------------------------------------------

    def _ask(self, *words: bytes | str) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self.shared.client.send(Command(pack(*words), future, slot(words[1] if isinstance(words[1], bytes) else words[1].encode())))
        return future

    def _write(self, name: bytes, sink: Any, *, begin: bool = False) -> None:
        script = self.shared.scripts.purge
        words = pack("EVALSHA", script.sha, 1, PURGED, name, int(begin))
        self.shared.client.send(Command(words, sink, self._slot, script))

    def _tell(self, name: bytes) -> None:
        def told(reply: Any) -> None:
            if not isinstance(reply, Failure):
                self._pending.pop(name, None)

        self.purges = 0  # what is under way was asked for before
        self._write(name, Call(told))

    def _new(self, last: bytes | None) -> bool:
        """Whether the number of the last purge is not the one that was heard of; what is no number never is."""
        try:
            return last is None or int(last) != self.purges
        except ValueError:
            return True

    async def _learn(self, *, begun: bool) -> bool:
        """What was purged. begun: there are numbers; else they begin now, and nothing from before counts."""
        if not begun:
            future: asyncio.Future[Any] = self._loop.create_future()
            self._write(EVERYTHING, future, begin=True)
            if isinstance(await future, Failure):
                return False
        said = await self._ask("HGETALL", PURGED)
        if isinstance(said, Failure) or not said:
            return False
        try:
            numbers = dict(zip(said[::2], map(int, said[1::2]), strict=True))
            last = numbers.pop(LAST, 0)
            self._numbers = {msgspec.json.decode(name, type=Named): number for name, number in numbers.items()}
        except ValueError:  # msgspec's are too: somebody else wrote there
            return False
        self.purges = last
        return self.purges > 0

    def _standing(self, place: Place, shelved: bytes, now: float, left: float) -> Kept | None:
        """The reply, by this process' clock; None if it was purged, or is of a gateway that keeps others. left: seconds that Redis will have it;
        how old it is only that tells, since the clocks of replicas may differ."""
        if left <= 0 or self._pending:
            return None
        try:
            asked, _, kept = _shelved.decode(shelved)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        models = (None, kept.name, kept.model, f"{kept.provider}/{kept.model}")
        known = self._numbers
        if any(known.get(named, 0) > asked for named in product((None, place.tenant), models, (None, *kept.tags))):
            return None
        return redated(kept, now - max(0.0, kept.until - kept.born - left))


def redated(kept: Kept, born: float) -> Kept:
    """As if it had been kept here, `born` by perf_counter."""
    return msgspec.structs.replace(kept, born=born, until=born + kept.until - kept.born)


def _key(place: Place) -> bytes:
    return b"llmgw:c:" + blake2b(place.tenant.encode() + b"\0" + place.mark, digest_size=20).hexdigest().encode()
