"""What a worker asks of the helper process, and what it hears: counts of tokens, many at a time over one channel.

Law: nobody ever waits for the helper longer than a deadline, and its absence is an answer like any other: None, and the caller estimates.
Light: a worker imports it; the tokenizer is the other side's.

The channel is a socketpair that the supervisor makes, as that between worker and operator: no path, no permission, nobody else can reach it.
Frames are channel.py's. Times are of the clock that all processes of a machine share, so that the helper does not count what nobody waits for.
"""

from __future__ import annotations

import asyncio
import socket
from time import monotonic

import msgspec
from msgspec import Struct

from llm_gateway.supervisor.channel import Link

HELPER = 1  # the number of a worker's link to the helper; its link to the operator is 0
PATIENCE = 0.25  # seconds
PER_CHARACTER = 0.25e-6  # seconds more; the tokenizer itself needs 0.01 to 0.06 µs
MOST_WAITING = 256
MOST_CHARACTERS = 4 << 20  # what one turn of a worker's loop may encode and send


class Ask(Struct, frozen=True):
    """How many tokens are these texts, together? `until`: time.monotonic after which nobody waits."""

    serial: int
    encoding: str
    until: float
    texts: list[str]


class Counted(Struct, frozen=True):
    """`tokens` None: not counted."""

    serial: int
    tokens: int | None


class TokenCounter:
    """A worker's end. `outcomes`: exact, late, away, full (of us, or of it), large."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {"exact": 0, "late": 0, "away": 0, "full": 0, "large": 0}
        self._link: Link[Counted, Ask] | None = None
        self._waiting: dict[int, asyncio.Future[int | None]] = {}
        self._serial = 0

    @property
    def up(self) -> bool:
        return self._link is not None

    async def connect(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Over a fresh channel from now on; the one before is of a dead process."""
        link: Link[Counted, Ask] = Link(msgspec.msgpack.Decoder(Counted), self._heard, lambda: self._lost(link))
        sock.setblocking(False)
        await loop.create_unix_connection(lambda: link, sock=sock)
        before, self._link = self._link, link
        if before is not None:
            before.close()

    async def count(self, encoding: str, texts: list[str]) -> int | None:
        """Tokens of all texts together, each counted alone; None if the helper did not say in time."""
        tokens, outcome = await self._count(encoding, texts)
        self.outcomes[outcome] += 1
        return tokens

    def report(self) -> dict[str, dict[str, int | float | list[float]]]:
        counts: dict[str, int | float | list[float]] = {f'outcome="{name}"': n for name, n in self.outcomes.items()}
        return {"llm_gateway_helper_up": {"": int(self.up)}, "llm_gateway_helper_counts_total": counts}

    async def _count(self, encoding: str, texts: list[str]) -> tuple[int | None, str]:
        link, characters = self._link, sum(map(len, texts))
        if link is None:
            return None, "away"
        if characters > MOST_CHARACTERS:
            return None, "large"
        if len(self._waiting) >= MOST_WAITING:
            return None, "full"
        self._serial += 1
        serial = self._serial
        patience = PATIENCE + characters * PER_CHARACTER
        if not link.send(Ask(serial, encoding, monotonic() + patience, texts)):
            return None, "full"
        answer = self._waiting[serial] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(patience):
                tokens = await answer
        except TimeoutError:
            return None, "late"
        finally:
            self._waiting.pop(serial, None)
        if tokens is None:
            return None, "away" if self._link is not link else "full"
        return tokens, "exact"

    def _heard(self, message: Counted) -> None:
        answer = self._waiting.get(message.serial)
        if answer is not None and not answer.done():
            answer.set_result(message.tokens)

    def _lost(self, link: Link[Counted, Ask]) -> None:
        if self._link is not link:
            return
        self._link = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(None)
