"""Keeps the garbage collector from stopping the loop: long-lived things are frozen, full collections wait for quiet.

Law: a full collection looks at every object there is (48-91 ms with 5,000 streams open), so the interpreter never starts
one by itself; the young generations stay automatic and are small. Full collections run when nothing is being relayed, or,
if it never gets quiet, not at all: requests make no cycles (a test counts). Pauses are measured, whoever caused them.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import Any

YOUNG, MIDDLE, NEVER = 5_000, 10, 1_000_000
QUIET = 30  # calls of `collect` between two full collections


class Garbage:
    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0
        self._calls = 0
        gc.set_threshold(YOUNG, MIDDLE, NEVER)
        gc.callbacks.append(self._measure)

    def freeze(self) -> None:
        """After a configuration is loaded: what lives now lives long, and is not looked at again."""
        gc.collect()
        gc.freeze()
        self.longest = 0.0

    def collect(self, *, idle: bool) -> None:
        """Called about once a second."""
        self._calls += 1
        if idle and self._calls >= QUIET:
            self._calls = 0
            gc.collect()

    def _measure(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.longest = max(self.longest, perf_counter() - self._began)
