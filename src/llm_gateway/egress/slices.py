"""Work on a large request that lets others have the loop every millisecond.

Law: knows the clock and the loop, not the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")
LARGE = 256 << 10  # bytes of a body; what is smaller crosses in a millisecond or two
SLICE = 0.001  # seconds


async def sliced(steps: Generator[None, None, T]) -> T:
    """What the steps come to. Begins after a turn of the loop: who got here has looked through the whole body in this one."""
    await asyncio.sleep(0)
    until = perf_counter() + SLICE
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            result: T = ended.value
            return result
        if perf_counter() > until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE
