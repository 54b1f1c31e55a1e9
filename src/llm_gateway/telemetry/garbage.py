"""Keeps the garbage collector from stopping the loop: long-lived things are frozen, full collections wait for quiet.

Law: a full collection looks at every object there is (48-91 ms with 5,000 streams open), so the interpreter never starts
one by itself; the young generations stay automatic and are small. Full collections run when nothing is being relayed, or,
if it never gets quiet, not at all: requests make no cycles (a test counts). That holds for a reload under load as well: its
freeze waits. Pauses are measured, whoever caused them.
"""

from __future__ import annotations

import gc
from time import perf_counter
from typing import Any

YOUNG, MIDDLE, NEVER = 1_000, 3, 1_000_000  # 18 ms with 5,000 streams at 5,000 and 10, 5 ms at 2,000 and 4
QUIET = 30  # calls of `collect` between two full collections


class Garbage:
    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0
        self._calls = 0
        self._due = False
        gc.set_threshold(YOUNG, MIDDLE, NEVER)
        gc.callbacks.append(self._measure)

    def __repr__(self) -> str:
        return f"<Garbage longest {self.longest * 1e3:.1f} ms{', freeze due' if self._due else ''}>"

    def freeze(self) -> None:
        """After a configuration is loaded: what lives now lives long, and is not looked at again. At once at the start,
        later at the next quiet moment."""
        if gc.get_freeze_count():
            self._due = True
            return
        gc.collect()
        gc.freeze()
        self.longest = 0.0  # nobody waited for this one

    def collect(self, *, idle: bool) -> None:
        """Called about once a second."""
        self._calls += 1
        if idle and (self._due or self._calls >= QUIET):
            self._calls = 0
            gc.collect()
            if self._due:
                self._due = False
                gc.freeze()

    def _measure(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.longest = max(self.longest, perf_counter() - self._began)
