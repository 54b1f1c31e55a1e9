"""When a worker has enough to do: what it counts, and what that means for whoever comes next. Pure; lag is an argument.

Law: below STOP_KEEP_ALIVE of every bound nothing is different; above it replies end their connection, so that clients may
find another worker or replica; above REFUSE new work is refused, and what is under way goes on. A loop is late only when it
was late several beats in a row: a single pause (a stopped process, a slow disk) has passed by the time it is seen.
"""

from __future__ import annotations

import math

from llm_gateway.core.errors import Fault, Kind

STOP_KEEP_ALIVE, REFUSE = 0.92, 0.95
SUSTAINED = 2

CONNECTIONS, STREAMS, LAG, BODIES = "connections", "streams", "loop_lag", "body_memory"
_WORDS = {
    CONNECTIONS: "Too many open connections; try again.",
    STREAMS: "Too many streams are open; try again.",
    LAG: "The gateway has too much to do; try again.",
    BODIES: "Too many request bodies are held in memory; try again.",
}


class Overload:
    """`streams`: under way now; whoever opens one counts it. `full`: with so many, no other begins.

    `crowded`: replies end their connection. `late`: new work is refused. `refused`: how often, by reason."""

    __slots__ = ("_beats", "_crowded_streams", "_most_lag", "crowded", "full", "late", "refused", "streams")

    def __init__(self) -> None:
        self.streams = 0
        self.crowded = self.late = False
        self.refused = dict.fromkeys(_WORDS, 0)
        self._beats = 0
        self.adopt(None, 0.0)

    def adopt(self, max_streams: int | None, max_lag: float) -> None:
        """None: any number of streams; 0.0: however late the loop."""
        self.full = math.inf if max_streams is None else max(int(max_streams * REFUSE), 1)
        self._crowded_streams = math.inf if max_streams is None else max(int(max_streams * STOP_KEEP_ALIVE), 1)
        self._most_lag = max_lag or math.inf

    def beat(self, lag: float) -> None:
        """lag: seconds that the loop was late since the last beat, at worst."""
        self._beats = self._beats + 1 if lag > self._most_lag * STOP_KEEP_ALIVE else 0
        sustained = self._beats >= SUSTAINED
        self.late = sustained and lag > self._most_lag * REFUSE
        self.crowded = sustained or self.streams >= self._crowded_streams

    def refuse(self, reason: str) -> Fault:
        """Counts a refusal and says it."""
        self.refused[reason] += 1
        return Fault(Kind.OVERLOADED, _WORDS[reason], retry_after=1.0)
