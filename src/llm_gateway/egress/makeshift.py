"""A reply that was sent back (policies/cascade.py), kept for the case that nobody gives a better one: an answer that will not quite do is
better than an error.

Law: whoever's reply it was, the client and the row are told so: its target, its times, its cost, once. What the attempts behind it have cost is
paid beside it, as ever.
"""

from __future__ import annotations

from time import perf_counter

from msgspec import Struct

from llm_gateway.core.exchange import Exchange
from llm_gateway.formats.contract import Format
from llm_gateway.routing.target import Target

LINE = b"x-gateway-escalation: failed\r\n"
SENT_BACK = "escalated_"  # what the codes of such attempts begin with


class Makeshift(Struct):
    """`status`, `headers`, `body`: as they came; `form`: the client's shape, `spoken`: the reply's. The rest is as the exchange had it then."""

    target: Target
    status: int
    headers: dict[bytes, bytes]
    body: bytes
    form: Format
    spoken: Format
    upstream_ms: float
    upstream_id: str
    dropped: tuple[str, ...]
    fallbacks: int

    def resume(self, x: Exchange) -> None:
        """The exchange is at this reply again; its attempt, booked as one that came to nothing, is taken back."""
        place = max(at for at, attempt in enumerate(x.attempts) if attempt.outcome.startswith(SENT_BACK))
        attempt = x.attempts.pop(place)
        x.absorbed -= attempt.cost
        x.target, x.upstream_ms, x.upstream_id = self.target, self.upstream_ms, self.upstream_id
        x.upstream_started = perf_counter() - self.upstream_ms / 1e3  # as if it had come just now: what failed since is not our share
        x.dropped, x.fallbacks = self.dropped, self.fallbacks
        x.stands_in = True
        x.extra += LINE
