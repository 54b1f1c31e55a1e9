"""A second attempt beside a slow first one: whoever says something first is the reply, the other is dropped.

Law: opt-in per alias (`hedge`), so that the rule of one task a request holds for everybody else. Each runner has a copy of the exchange and
a `Lane` in place of the client; the first lane that sends anything has won, and only it is heard. What the winner's copy says in the end
is the exchange's. The loser's connection is closed at once, it stands among the attempts as `hedged`, and it says nothing of its target's
health. Before anything was said both may fail: then the first one's fault is the attempt's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from time import perf_counter
from typing import Any

from msgspec import Struct

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Attempt, Exchange
from llm_gateway.egress.absorbed import absorbed, unheard
from llm_gateway.routing.plan import Course, Hedge
from llm_gateway.routing.target import Target

SOONEST = 0.02  # seconds
USUAL = 2.0  # before enough is known of a target
_KEPT = frozenset({"client", "task", "settled", "attempts", "keep_alive", "held"})

Try = Callable[[Exchange, Target], Awaitable[bytes]]


class Odds(Struct):
    """How many requests there were, and how many of them were hedged: a provider that is slow for all must not be asked twice by all."""

    requests: int = 0
    hedged: int = 0

    def affords(self, budget: float) -> bool:
        return self.hedged < max(1.0, budget * self.requests)

    def fade(self) -> None:
        if self.requests > 1000:
            self.requests //= 2
            self.hedged //= 2


class Lane:
    """Stands between one runner and the client."""

    def __init__(self, race: Race, x: Exchange) -> None:
        self._race = race
        self._x = x
        self._sink: Any = None

    @property
    def alive(self) -> bool:
        return self._x.client.alive

    @property
    def paused(self) -> bool:
        return self._race.winner is self and self._x.client.paused

    @property
    def sink(self) -> Any:
        return self._sink

    @sink.setter
    def sink(self, value: Any) -> None:
        self._sink = value
        if self._race.winner is self:
            self._x.client.sink = value

    def send(self, data: bytes) -> None:
        if self._race.claim(self):
            self._x.client.send(data)

    def hold(self, x: Exchange, size: int) -> bool:
        return self._x.client.hold(self._x, size)

    def release(self, x: Exchange) -> None:
        """The body is the exchange's; the other runner may need it until there is a winner."""
        if self._race.claim(self):
            self._x.client.release(self._x)
            x.body, x.peek, x.marked, x.call, x.filled = b"", None, None, None, None

    def finish(self, x: Exchange, data: bytes) -> None:
        raise AssertionError("the ledger finishes the exchange, not its copies")

    def abort(self, x: Exchange) -> None:
        raise AssertionError("the ledger ends the exchange, not its copies")


class Runner(Struct, eq=False):
    x: Exchange
    lane: Lane
    target: Target
    task: asyncio.Task[bytes]

    @property
    def good(self) -> bool:
        """Whether it has replied, and well."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None


class Race:
    """One request's runners."""

    def __init__(self, x: Exchange, run: Try) -> None:
        self.winner: Lane | None = None
        self._x = x
        self._run = run
        self._runners: list[Runner] = []
        self._lost = 0  # nano-USD, by whoever was not the reply

    @property
    def both(self) -> bool:
        """Whether there was a second one."""
        return len(self._runners) > 1

    def claim(self, lane: Lane) -> bool:
        """Whether this lane is, or hereby becomes, the winner's."""
        if self.winner is None:
            self.winner = lane
            self._x.client.sink = lane.sink
            for runner in self._runners:
                if runner.lane is not lane:
                    runner.task.cancel()
        return self.winner is lane

    async def first_of(self, course: Course, seconds: float, other: Target) -> bytes:
        """The reply's last bytes; the course is then at whoever gave them. Raises Fault."""
        winner: Runner | None = None
        try:
            await self._start(course.target, seconds)
            if self._undecided() and await course.spare(other) and self._undecided():
                await self._start(other, None)
            winner = won = await self._won()
        finally:  # also for a client that leaves: what it has heard is billed
            try:
                await self._clear(winner)
            finally:
                heard = winner if winner is not None else next((each for each in self._runners if each.lane is self.winner), None)
                if heard is not None:
                    self._merge(heard, course)
        return won.task.result()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _undecided(self) -> bool:
        return not self._runners[0].task.done() and self.winner is None

    async def _start(self, target: Target, seconds: float | None) -> None:
        x = copy(self._x)
        lane = Lane(self, self._x)
        x.client, x.attempts, x.tries = lane, [], self._x.tries + len(self._runners)
        if self._runners and not _alike(self._runners[0].target, target):
            x.fallbacks += 1
        task = asyncio.ensure_future(self._run(x, target))
        self._runners.append(Runner(x, lane, target, task))
        if seconds is not None:
            await asyncio.wait([task], timeout=seconds)

    async def _won(self) -> Runner:
        """The one that replied, else one whose reply was sent back, else the first."""
        while True:
            running = [runner.task for runner in self._runners if not runner.task.done()]
            good = next((each for each in self._runners if each.good), None)
            if good is not None:
                return good
            spoke = next((each for each in self._runners if each.lane is self.winner and each.task.done()), None)
            if spoke is not None:
                return spoke
            if not running:
                return next((each for each in self._runners if each.x.makeshift is not None), self._runners[0])
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def _clear(self, winner: Runner | None) -> None:
        """Nobody runs on, and what became of the others is known."""
        losers = [runner for runner in self._runners if runner is not winner]
        for runner in losers:  # all before any wait: this may itself be cancelled
            runner.task.cancel()
        outcomes = await asyncio.gather(*(runner.task for runner in losers), return_exceptions=True)
        for runner, outcome in zip(losers, outcomes, strict=True):
            x, target = runner.x, runner.target
            if (winner is None and self.winner in (None, runner.lane)) or not x.upstream_started:
                continue  # of one that was not given up for another nothing is known, or all by who was heard
            code = outcome.code if isinstance(outcome, Fault) else "hedged"
            status = (outcome.status or 0) if isinstance(outcome, Fault) else 0
            if isinstance(outcome, Fault):
                target.condition.bad(perf_counter(), outcome)
            ms = round((perf_counter() - x.upstream_started) * 1e3, 3)
            if x.wasted is None and code == "hedged":
                x.wasted = unheard(x)
            attempt = absorbed(x, target, code, status, ms)
            self._lost += attempt.cost
            self._x.attempts.append(attempt)

    def _merge(self, winner: Runner, course: Course) -> None:
        x, won, tries = self._x, winner.x, self._x.tries + len(self._runners)
        for field in Exchange.__struct_fields__:
            if field not in _KEPT:
                setattr(x, field, getattr(won, field))
        x.tries = tries
        if x.passage is not None:  # its runner may not have come to its end
            x.characters, x.partial = x.passage.characters, x.passage.usage
        x.absorbed += self._lost
        x.late = self._lost
        if x.cost is not None:
            x.cost += self._lost
        if x.attempts and winner.good:
            target = winner.target
            x.attempts.append(Attempt(target.provider, target.model, target.key_id, "ok", 200, round(x.upstream_ms, 3)))
        if course.target is not winner.target:
            course.overtaken(winner.target)
        x.client.sink = None


def _alike(one: Target, other: Target) -> bool:
    return (one.provider, one.model) == (other.provider, other.model)


def due(hedge: Hedge, target: Target) -> float:
    """Seconds after which a second attempt is worth it: as configured, or the quantile of this target's recent times to the first token."""
    if hedge.seconds is not None:
        return hedge.seconds
    seen = target.condition.meter.recent.quantile(hedge.quantile)
    return max(SOONEST, USUAL if seen is None else seen)
