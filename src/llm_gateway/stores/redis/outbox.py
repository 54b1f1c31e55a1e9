"""What requests have cost in truth, on its way to Redis: sent at once, and kept while it is away until it is back.

Law: a settlement is sent as often as it takes, and counts once: Redis knows for some minutes which it has seen. Only so many are kept one by
one; of those beyond, the money is added up by account and nothing else is lost but the early end of reservations, which end by themselves. What
was settled within the last seconds is settled again where Redis comes back empty: rather twice than not at all.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import Command, Failure
from llm_gateway.stores.redis.scripts import UNSEEDED

MOST = 50_000
AT_ONCE = 250  # settlements under way at once when Redis is back: no request waits behind more, however slow it is
EVERY = 0.02
RECENT = 12.0  # seconds: of what seeds may not know (scripts.LAG), and until an empty server is noticed
MOST_ERRORS = 3  # of a kind that another attempt will not cure


class Teller(Protocol):
    """The account that a settlement is of."""

    lasting: bool
    urgent: bool
    slot: int

    def write(self, settlement: Settlement, age: int, seeds: bytes | None) -> Command: ...

    def seeds(self, wall: float) -> bytes: ...

    def settled(self, spent: list[int]) -> None: ...


class Settlement:
    """One request's truth; the sink of its own command. `tokens`: beyond what was reserved; `cost`: nano-USD; `at`: perf_counter; `late`: it was kept,
    and is on its way now."""

    __slots__ = ("_asked", "_errors", "_outbox", "_teller", "at", "cost", "done_", "late", "request", "tokens", "wall")

    def __init__(self, outbox: Outbox, teller: Teller, request: str, tokens: int, cost: int, wall: float) -> None:
        self.request = request
        self.tokens = tokens
        self.cost = cost
        self.wall = wall
        self.at = perf_counter()
        self.done_ = self.late = False
        self._outbox = outbox
        self._teller = teller
        self._errors = 0
        self._asked = False

    @property
    def teller(self) -> Teller:
        return self._teller

    def command(self, *, late: bool, seeded: bool = False) -> Command:
        age = int((perf_counter() - self.at) * 1000) if late else 0
        return self._teller.write(self, age, self._teller.seeds(self.wall) if seeded else None)

    def done(self) -> bool:
        return self.done_

    def set_result(self, result: Any, /) -> None:
        unseeded = not isinstance(result, Failure) and result[0] == UNSEEDED
        if unseeded and not self._asked:
            self._asked = True
            self._outbox.send(self.command(late=True, seeded=True))
            return
        if self.late:
            self.late = False
            self._outbox.under_way -= 1
        if isinstance(result, Failure):
            self._asked = False  # what was asked for may not have arrived
            self._errors += result.kind == "error"
            if self._teller.lasting and self._errors < MOST_ERRORS:
                self._outbox.keep(self)
        elif not unseeded:
            self.done_ = True
            self._teller.settled(result[1:])
            if self.cost:
                self._outbox.remember(self)

    def move(self, outbox: Outbox) -> None:
        """To another one, which keeps it."""
        self._outbox = outbox
        outbox.keep(self)

    def again(self) -> None:
        """Redis has forgotten it."""
        self.done_ = self._asked = False
        self._outbox.keep(self)


class Outbox:
    """`send`: to Redis, with what is sent next; `hurry`: at once; `reaches`: whether whoever has a slot is there."""

    def __init__(
        self, send: Callable[[Command], None], reaches: Callable[[int], bool], meter: Meter, hurry: Callable[[Command], None] | None = None
    ) -> None:
        self.send = send
        self._hurry = send if hurry is None else hurry
        self._reaches = reaches
        self._meter = meter
        self._kept: deque[Settlement] = deque()
        self._recent: deque[Settlement] = deque(maxlen=MOST)
        self._owed: dict[Teller, tuple[int, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.under_way = 0  # of those that were kept
        self._passed = 0  # in a row, of those whose server is away
        self._heir: Outbox | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._kept) + len(self._owed)

    def settle(self, teller: Teller, request: str, tokens: int, cost: int, wall: float) -> None:
        """A slot is free for others when the client has its reply, so that is not kept for the next write."""
        command = teller.write(Settlement(self, teller, request, tokens, cost, wall), 0, None)
        if teller.urgent:
            self._hurry(command)
        else:
            self.send(command)

    def keep(self, settlement: Settlement) -> None:
        """Until Redis is back."""
        if self._heir is not None:
            settlement.move(self._heir)
        elif len(self._kept) < MOST:
            self._kept.append(settlement)
        elif settlement.cost:
            self._owe(settlement.teller, settlement.cost, settlement.wall)
        self.wake(EVERY)

    def inherit(self, other: Outbox) -> None:
        """Takes over what another one keeps, and what comes back to it yet."""
        other._heir = self
        while other._kept:
            other._kept.popleft().move(self)
        for teller, (cost, wall) in other._owed.items():
            self._owe(teller, cost, wall)
        other._owed = {}
        self.wake(EVERY)

    def remember(self, settlement: Settlement) -> None:
        """What it cost may not be where budgets are seeded from yet, should Redis lose it now."""
        recent, horizon = self._recent, settlement.at - RECENT
        recent.append(settlement)
        while recent and recent[0].at < horizon:
            recent.popleft()

    def recall(self, lost: Callable[[int], bool]) -> None:
        """A server came back empty: what was settled just before is settled again, by whoever has those slots."""
        recent, self._recent = self._recent, deque(maxlen=MOST)
        horizon = perf_counter() - RECENT
        for each in recent:
            if each.at >= horizon and lost(each.teller.slot):
                each.again()
            else:
                self._recent.append(each)

    def resume(self) -> None:
        """A server turned ready."""
        self._passed = 0
        self.wake()

    def wake(self, seconds: float = 0.0) -> None:
        if len(self) and self._timer is None:
            self._timer = self._loop.call_later(seconds, self._deliver)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _owe(self, teller: Teller, cost: int, wall: float) -> None:
        self._owed[teller] = self._owed.get(teller, (0, 0.0))[0] + cost, wall

    def _deliver(self) -> None:
        self._timer = None
        if self._owed and len(self._kept) < MOST:
            owed, self._owed = self._owed, {}
            self._kept.extend(Settlement(self, teller, f"owed-{os.urandom(8).hex()}", 0, cost, wall) for teller, (cost, wall) in owed.items())
        for _ in range(min(AT_ONCE - self.under_way, len(self._kept))):
            settlement = self._kept.popleft()
            if self._reaches(settlement.teller.slot):
                self._meter.booked += 1
                self._passed = 0
                settlement.late = True
                self.under_way += 1
                self.send(settlement.command(late=True))
            else:
                self._passed += 1
                self._kept.append(settlement)
        if self._passed < len(self._kept) or (self._owed and not self._kept):  # else nobody who could take them is there; whoever turns ready wakes us
            self.wake(EVERY)
