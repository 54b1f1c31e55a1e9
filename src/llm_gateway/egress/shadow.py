"""Copies of a share of requests to another target: its answers are thrown away, what they took is compared in the metrics.

Law: opt-in per alias (`shadow`). The client never waits for it, hears of it or pays for it; its failures are nobody's. Its cost is real, so it
has a row of its own in the journal, under the key `shadow` and no tenant. Copies are few at once; what would be more is not sent.
"""

from __future__ import annotations

import asyncio
from copy import copy
from random import random
from time import perf_counter
from typing import Any

from msgspec.structs import replace

from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import SHADOW, Exchange, Principal
from llm_gateway.egress.deliver import Egress
from llm_gateway.routing import ask
from llm_gateway.routing.plan import Shadow
from llm_gateway.routing.target import Target
from llm_gateway.telemetry.metrics import Metrics

MOST_AT_ONCE = 100
MOST_BYTES = 32 << 20  # of requests' bodies that copies hold, which nothing else counts
NOBODY = Principal(SHADOW, "")


class Void:
    """A client that nothing reaches."""

    alive = True
    paused = False
    sink: Any = None

    def send(self, data: bytes) -> None:
        """Thrown away."""

    def hold(self, x: Exchange, size: int) -> bool:
        return False

    def release(self, x: Exchange) -> None:
        x.body, x.peek, x.marked, x.call, x.filled = b"", None, None, None, None

    def finish(self, x: Exchange, data: bytes) -> None:
        """Thrown away."""

    def abort(self, x: Exchange) -> None:
        """Nothing to end."""


class Shadows:
    """Copies under way. `settle`: books one, when it is over."""

    def __init__(self, metrics: Metrics, settle: Any) -> None:
        self._metrics = metrics
        self._settle = settle
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def cast(self, x: Exchange, shadow: Shadow, egress: Egress) -> None:
        """Sends a copy along, by lot."""
        if random() >= shadow.share:  # noqa: S311  no secret
            return
        target = shadow.stop.keys[0]
        full = len(self._tasks) >= MOST_AT_ONCE or self._bytes + x.bytes_in > MOST_BYTES
        # What is bound to the account that knows its ids is no other's to answer.
        if full or target.condition.until or (x.pin is not None and not x.pin.mark):
            self._metrics.shadow(x.model, "skipped")
            return
        tokens = 0
        if target.condition.allowances or target.condition.line is not None:
            tokens = ask.prompt(x) + ask.output(x, target.condition.meter.output.value)
            if target.condition.full(perf_counter(), tokens):
                self._metrics.shadow(x.model, "skipped")
                return
            target.condition.take(perf_counter(), tokens)
        twin = copy(x)
        twin.client, twin.principal, twin.id, twin.attempts = Void(), NOBODY, f"{x.id}-shadow", []
        twin.route = replace(x.route, label=SHADOW)
        twin.task = twin.cascade = twin.hold = None
        twin.measured = False
        self._bytes += x.bytes_in
        task = asyncio.ensure_future(self._follow(twin, target, egress, tokens))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ends them; they are booked."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, x: Exchange, target: Target, egress: Egress, tokens: int) -> None:
        line = target.condition.line
        if line is not None and await target.condition.claim(line, tokens) is None:
            self._bytes -= x.bytes_in
            self._metrics.shadow(x.model, "skipped")
            return
        begun = perf_counter()
        try:
            await egress.attempt(x, target)
            x.status = 200
            self._metrics.shadow(x.model, "ok", perf_counter() - begun)
        except Fault as fault:
            egress.refuse(x, fault)
            if x.upstream_started:  # else nothing was sent, and the target has said nothing
                target.condition.bad(perf_counter(), fault)
            self._metrics.shadow(x.model, fault.code)
        except asyncio.CancelledError:
            egress.abandon(x)
        finally:
            self._bytes -= x.bytes_in
            self._settle(x, b"")
