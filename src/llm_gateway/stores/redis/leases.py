"""Who asks for a reply that is to be cached while all others wait for it, of all workers and replicas (replies.py has the replies).

    llmgw:l:{llmgw:c:HASH}  the token of whoever asks, for `TERM` seconds, renewed while its request is under way; `LOOSE` for a moment where its good
                            reply was not to be kept: those who waited for it go on by themselves. The reply's own key is the tag, so that
                            one script may look at both

Law: a lease saves calls and stands in the way of none. It is taken in the step that finds no reply; only its owner renews it or lets it go, which nobody
waits for; a killed one's ends by itself. Whatever goes wrong is `UNHEARD`: go on as if nobody else were there. A lease that is lost costs one call.
"""

from __future__ import annotations

import asyncio
import os
from enum import Enum, auto
from itertools import islice
from time import perf_counter
from typing import Any

from msgspec import Struct

from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.resp import Command, Failure, Nobody, pack
from llm_gateway.stores.redis.slots import slot

TERM = 4.0  # seconds
RENEWED = 1.5  # seconds after which a lease is renewed
MOMENT = 1.0  # seconds: more than anybody who waits lets pass between two looks
EVERY, AT_ONCE = 0.1, 500  # a sweep, and how many are renewed in it: 2 ms
LOOSE = b"-"


class Word(Enum):
    """Whose the lease is where there is no reply."""

    MINE = auto()
    TAKEN = auto()
    LOOSE = auto()
    UNHEARD = auto()


class Lease(Struct, eq=False):
    """Of one reply, wanted by one worker. `asked`: it may be ours; `renewed`: perf_counter, 0: never held."""

    leases: Leases
    reply: bytes
    key: bytes
    slot: int
    token: bytes
    asked: bool = False
    renewed: float = 0.0

    def hold(self) -> None:
        """It is ours, and what it is for is under way: renewed from now on."""
        self.leases.hold(self)

    def free(self) -> None:
        """Whoever asks next has it."""
        self.leases.end(self, b"", TERM)

    def loosen(self) -> None:
        """All who wait for it go."""
        self.leases.end(self, LOOSE, MOMENT)


class Leases:
    """Made on a running loop."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._held: dict[Lease, None] = {}  # whose turn it is to be renewed comes first
        self._timer: asyncio.TimerHandle | None = None
        self._name, self._serial = os.urandom(8).hex().encode(), 0

    def __repr__(self) -> str:
        return f"<Leases: {len(self._held)} held>"

    def lease(self, reply: bytes) -> Lease:
        """Nothing is asked yet. reply: its key."""
        self._serial += 1
        return Lease(self, reply, b"llmgw:l:{%b}" % reply, slot(reply), b"%b:%d" % (self._name, self._serial))

    def ask(self, lease: Lease, *, anyway: bool = False) -> asyncio.Future[Any]:
        """The reply and the milliseconds it has left, as a list; else whose the lease is, for `word`. anyway: whatever reply there is."""
        lease.asked = True
        future: asyncio.Future[Any] = self._loop.create_future()
        script = self._shared.scripts.look
        words = pack("EVALSHA", script.sha, 2, lease.reply, lease.key, lease.token, int(TERM * 1000), int(anyway))
        self._shared.client.send(Command(words, future, lease.slot, script))
        return future

    def word(self, lease: Lease, said: Any) -> Word:
        """said: what `ask` was answered where that is no reply."""
        if said is None or isinstance(said, Failure):
            return Word.UNHEARD
        if said == lease.token:
            return Word.MINE
        self._drop(lease)
        return Word.LOOSE if said == LOOSE else Word.TAKEN

    def hold(self, lease: Lease) -> None:
        lease.renewed = perf_counter()
        self._held.pop(lease, None)
        self._held[lease] = None
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY, self._renew)

    def end(self, lease: Lease, value: bytes, seconds: float) -> None:
        """value: what is there in its place, for so long; empty: nothing. Not where it is known to be another's."""
        if lease.asked:
            self._drop(lease)
            self._swap(lease, value, seconds)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _drop(self, lease: Lease) -> None:
        lease.asked = False
        self._held.pop(lease, None)

    def _renew(self) -> None:
        now = perf_counter()
        for lease in [*islice(self._held, AT_ONCE)]:
            if now - lease.renewed < RENEWED:
                break
            self.hold(lease)
            self._swap(lease, lease.token, TERM)
        self._timer = self._loop.call_later(EVERY, self._renew) if self._held else None

    def _swap(self, lease: Lease, value: bytes, seconds: float) -> None:
        script, client = self._shared.scripts.swap, self._shared.client
        if client.reaches(lease.slot):
            words = pack("EVALSHA", script.sha, 1, lease.key, lease.token, value, int(seconds * 1000))
            client.post(Command(words, Nobody(), lease.slot, script))
