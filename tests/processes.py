"""What tests of processes share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def eventually(check: Callable[[], object], seconds: float = 20.0, *not_yet: type[Exception]) -> object:
    """The first true answer of `check`, whose failures count as not yet. seconds: how long a machine that does five other things may take."""
    end = time.monotonic() + seconds
    failure: Exception | None = None
    pause = 0.01  # ever longer: a check often asks a process that others wait for, too
    while time.monotonic() < end:
        try:
            if answer := check():
                return answer
        except (OSError, AssertionError, ValueError, IndexError, *not_yet) as error:
            failure = error
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    raise AssertionError(f"not within {seconds} s: {failure}")
