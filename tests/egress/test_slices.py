"""Others have the loop while a large request is worked on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

import pytest

from llm_gateway.egress.slices import SLICE, sliced


def work(count: int, seconds: float) -> Generator[None, None, str]:
    for _ in range(count):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        yield
    return "done"


def turns(steps: Generator[None, None, str]) -> tuple[str, int]:
    async def run() -> tuple[str, int]:
        task = asyncio.create_task(sliced(steps))
        had = 0
        while not task.done():
            await asyncio.sleep(0)
            had += 1
        return task.result(), had

    return asyncio.run(run())


def test_the_loop_turns_after_every_step_that_takes_a_slice() -> None:
    result, had = turns(work(20, SLICE * 1.2))
    assert result == "done"
    assert had >= 20


def test_short_steps_share_a_slice() -> None:
    _, had = turns(work(200, SLICE / 1000))
    assert had < 100


def test_a_fault_comes_through() -> None:
    def wrong() -> Generator[None, None, str]:
        yield
        raise ValueError("messages[1]")

    with pytest.raises(ValueError, match="messages"):
        turns(wrong())
