"""Who is next among those who wait: by priority, then tenants in turn, then first come. Pure.

Law: a tenant's many requests wait behind each other, never in front of another tenant's few. Taking turns is by the cost served so far
(start-time fair queueing, Goyal, Vin and Cheng, 1996): each ticket starts where its tenant's last one ended.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from msgspec import Struct


class Ticket(Struct, eq=False):
    """`item`: whatever waits; `gone`: it has given up."""

    item: Any
    gone: bool = False


class Line:
    """`len` counts those who still wait."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, int, Ticket]] = []
        self._ends: dict[str, float] = {}
        self._now = 0.0
        self._serial = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def join(self, item: Any, tenant: str, priority: int, cost: float = 1.0) -> Ticket:
        start = max(self._now, self._ends.get(tenant, 0.0))
        self._ends[tenant] = start + cost
        self._serial += 1
        self._waiting += 1
        ticket = Ticket(item)
        heappush(self._heap, (-priority, start, self._serial, ticket))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        if not ticket.gone:
            ticket.gone = True
            self._waiting -= 1
            self._rest()

    def order(self) -> list[Ticket]:
        """All who wait, the next one first."""
        return [ticket for _, _, _, ticket in sorted(self._heap) if not ticket.gone]

    def serve(self, ticket: Ticket) -> None:
        """It is its turn: whoever comes later starts behind it."""
        start = next((start for _, start, _, each in self._heap if each is ticket), self._now)
        self._now = max(self._now, start)
        self.leave(ticket)

    def _rest(self) -> None:
        """Forgets who is gone; with nobody left, everything."""
        while self._heap and self._heap[0][3].gone:
            heappop(self._heap)
        if not self._waiting:
            self._heap.clear()
            self._ends.clear()
            self._now = 0.0
