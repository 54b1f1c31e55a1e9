"""Where requests wait while every target is at its limit: bounded in number and time, fair between tenants.

Law: opt-in (`resilience.queue`). Nobody waits who could be served, nobody is served before somebody who is next in line unless that one's
own targets have no room. One timer for all; it runs only while somebody waits.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.policies.line import Line, Ticket
from llm_gateway.routing import ask
from llm_gateway.routing.plan import Course

SOONEST, LATEST = 0.005, 0.5  # seconds between two looks


class Patience(Struct, frozen=True):
    """`wait`: seconds; `length`: requests."""

    wait: float = 0.0
    length: int = 1000


class Waiting(Struct, eq=False):
    """`whom`: everybody it could go to."""

    course: Course
    turn: asyncio.Future[None]
    whom: tuple[int, ...]


class Queue:
    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.refused = 0
        self._line = Line()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._line)

    def takes(self, fault: Fault) -> bool:
        """Whether it is worth waiting for what `fault` says."""
        waits = fault.kind is Kind.UPSTREAM_RATE_LIMIT and (fault.retry_after or 0.0) <= self.patience.wait
        return waits and self.patience.wait > 0

    async def wait(self, x: Exchange, course: Course) -> None:
        """Until the course has a target. Raises the Fault that says why it has none when patience, room or the deadline ends."""
        if len(self._line) >= self.patience.length:
            self.refused += 1
            raise Fault(
                Kind.UPSTREAM_RATE_LIMIT, "Too many requests are waiting for the model's providers.", code="queue_full", retry_after=self.patience.wait
            )
        loop = asyncio.get_running_loop()
        waiting = Waiting(course, loop.create_future(), tuple(id(target.condition) for target in course.targets))
        tenant = x.principal.tenant if x.principal is not None else ""
        course.asks = False  # of nobody yet
        ticket = self._line.join(waiting, tenant, ask.priority(x), max(1, course.tokens))
        self._arm(loop, SOONEST)
        patience = min(self.patience.wait, max(0.0, x.deadline - perf_counter()))
        try:
            async with asyncio.timeout(patience):
                await waiting.turn
                while course.asks:
                    await self._secure(waiting, ticket)
        except TimeoutError:
            if waiting.turn.cancelled():  # else its turn came at the same moment
                course.enter()  # the last try says what is still missing
            if course.asks:
                await course.secure()
        finally:
            self._line.leave(ticket)

    def poke(self) -> None:
        """Room may have come free."""
        if len(self._line) and self._timer is not None:
            self._timer.cancel()
            self._look()

    async def _secure(self, waiting: Waiting, ticket: Ticket) -> None:
        """Its turn here; now it is about what other workers left. Whoever wants the same waits behind it meanwhile."""
        try:
            await waiting.course.secure()
        except Fault as fault:
            if fault.kind is not Kind.UPSTREAM_RATE_LIMIT:
                raise
            wait = fault.retry_after or LATEST
        else:
            self._line.serve(ticket)
            self.poke()
            return
        loop = asyncio.get_running_loop()
        waiting.turn = loop.create_future()
        self._arm(loop, max(SOONEST, min(LATEST, wait)))
        await waiting.turn

    def _arm(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._look)

    def _look(self) -> None:
        """Serves all whose turn it is; comes back when the next may be."""
        self._timer = None
        soonest = LATEST
        tried: dict[tuple[int, ...], int] = {}  # for whom there is no room, and for how many tokens not: asked once, not by each
        for ticket in self._line.order():
            waiting: Waiting = ticket.item
            tokens = waiting.course.tokens
            if tokens >= tried.get(waiting.whom, tokens + 1):
                continue
            if waiting.turn.done() and waiting.course.asks:
                tried[waiting.whom] = 0  # Redis is being asked for it
                continue
            seconds = self._try(ticket)
            if seconds:
                soonest = min(soonest, seconds)
                tried[waiting.whom] = tokens
        if len(self._line):
            self._arm(asyncio.get_running_loop(), max(SOONEST, soonest))

    def _try(self, ticket: Ticket) -> float:
        """0 if it is served; else the seconds until it may be."""
        waiting: Waiting = ticket.item
        if waiting.turn.done():
            return 0.0
        try:
            waiting.course.enter()
        except Fault as fault:
            if fault.kind is Kind.UPSTREAM_RATE_LIMIT:
                return fault.retry_after or LATEST
            waiting.turn.set_exception(fault)
        else:
            waiting.turn.set_result(None)
            if waiting.course.asks:
                return 0.0
        self._line.serve(ticket)
        return 0.0
