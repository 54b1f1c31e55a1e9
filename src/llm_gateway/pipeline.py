"""The line: one request, top to bottom.

    ingress -> admission -> routing -> provider -> upstream -> egress -> accounting

`gate` runs when a request's head is complete, `serve` when its body is. Everything they call is one stage's own business.
"""

from __future__ import annotations

import asyncio
from time import perf_counter

from llm_gateway.accounting.ledger import Ledger
from llm_gateway.admission.access import Admission
from llm_gateway.admission.quota import Quota
from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.deliver import Egress
from llm_gateway.egress.slices import LARGE
from llm_gateway.egress.tape import play
from llm_gateway.ingress import cors
from llm_gateway.ingress.routes import match, voiced
from llm_gateway.routing.once import HEADER, LOOKS, Once
from llm_gateway.routing.plan import Course, Plan
from llm_gateway.routing.replay import Replay
from llm_gateway.routing.table import Table


class Line:
    """The stages, wired by the worker; replaced whole when the configuration changes."""

    def __init__(
        self,
        admission: Admission,
        routing: Table,
        egress: Egress,
        ledger: Ledger,
        origins: tuple[str, ...] = (),
        cors_max_age: int = 600,
        *,
        quota: Quota,
        once: Once,
        replay: Replay | None = None,
    ) -> None:
        """replay: None where nothing is cached."""
        self.quota = quota
        self.once = once
        self.admission = admission
        self.routing = routing
        self.egress = egress
        self.ledger = ledger
        self.origins = origins
        self.cors_max_age = cors_max_age
        self.replay = replay
        self.repeats: Replay | None = None  # where it answers without waiting for anybody


def gate(x: Exchange, line: Line) -> None:
    """Refuses by the head alone: no such path, no such key, no room."""
    if line.origins:
        x.extra = cors.lines(x.headers, line.origins, line.cors_max_age)
    x.route, x.params = match(x.method, x.path)
    if x.route.stream or not x.route.body:
        x.route = voiced(x.route, x.headers, x.query)
    line.admission.identify(x)


def repeat(x: Exchange, line: Line, replay: Replay) -> bool:
    """Answers at once, without a task, what was asked before in the very same words; False where it is to be served."""
    kept = replay.recall(x)
    if kept is None:
        return False
    last = b""
    try:
        line.quota.reserve(x, None, None)
        last = play(x, kept, replay.meter, perf_counter())
    except Fault as fault:
        last = line.egress.refuse(x, fault)
    except Exception as error:  # noqa: BLE001  as in `serve`
        last = line.egress.crash(x, error)
    line.ledger.settle(x, last)
    return True


async def serve(x: Exchange, line: Line) -> None:
    """Answers one request and settles it, whatever happens."""
    last, course = b"", None
    try:
        if x.fault is not None:
            raise x.fault
        if not x.route.body:
            last = line.egress.local(x)
            return
        if x.bytes_in > LARGE:
            await line.admission.hash(x)
        line.admission.read(x)
        if HEADER in x.headers and x.method not in LOOKS and (last := await line.once.join(x)):
            return
        if line.replay is not None and (last := await _replayed(x, line.replay, line)):
            return
        plan, course = line.routing.course(x)
        try:
            line.egress.expect(x, plan, course)
            if (reserving := line.quota.reserve(x, plan, course)) is not None:
                await reserving
            if course.waits:
                await line.routing.queue.wait(x, course)
        except BaseException:
            course.forgo()
            raise
        if plan.shadow is not None:
            line.egress.copy(x, plan.shadow)
        last = await _sent(x, line, plan, course)
    except Fault as fault:
        last = line.egress.refuse(x, fault)
    except asyncio.CancelledError:
        last = line.egress.abandon(x)
    except Exception as error:  # noqa: BLE001  a bug of ours: told as a 500 and in the log, and the row is kept
        last = line.egress.crash(x, error)
    finally:
        if course is not None:
            course.done()
        line.ledger.settle(x, last)


async def _sent(x: Exchange, line: Line, plan: Plan, course: Course) -> bytes:
    """The reply of whoever gives one; raises the last one's Fault."""
    x.fallbacks = course.fallbacks
    if course.asks:
        await _secured(x, line, course)
    while True:
        try:
            hedge = plan.hedge
            last = await (line.egress.attempt(x, course.target) if hedge is None else line.egress.race(x, course, hedge))
            if x.measured:
                line.routing.learn(x, course)
            return last
        except Fault as fault:
            left = line.egress.record(x, course.target, fault)
            wait = course.failed(fault, left)
            x.fallbacks = course.fallbacks
        if wait:
            await asyncio.sleep(wait)
        if course.asks:
            await line.routing.secure(x, course)
        await _covered(x, line, course)


async def _secured(x: Exchange, line: Line, course: Course) -> None:
    """Room with the first target, as all workers count what its provider allows; or with another, which may be dearer."""
    first = course.target
    await line.routing.secure(x, course)
    if course.target is not first:
        await _covered(x, line, course)


async def _covered(x: Exchange, line: Line, course: Course) -> None:
    """Money for what the next attempt may cost; where there is none it is not made."""
    try:
        if x.hold is not None and (covering := line.quota.cover(x, course.target)) is not None:
            await covering
    except BaseException:
        course.forgo()
        raise


async def _replayed(x: Exchange, replay: Replay, line: Line) -> bytes:
    """The whole reply from the cache; b"" where the request is to be sent."""
    kept = await replay.seek(x, line.routing)
    if kept is None:
        return b""
    if (reserving := line.quota.reserve(x, None, None)) is not None:
        await reserving
    return play(x, kept, replay.meter, perf_counter())
