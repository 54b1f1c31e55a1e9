"""Clocks that lie to one process tree: libfaketime, preloaded into it.

Law: the machine's clock is never touched. `faster` speeds all clocks of the tree up; `Skew` moves its wall clock alone, and
may move it again while it runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1", "/usr/lib64/faketime/libfaketimeMT.so.1")


def library() -> str:
    """Skips the test where there is none."""
    for each in _PLACES:
        for found in Path("/").glob(each[1:]):
            return str(found)
    pytest.skip("no libfaketime here")


def faster(times: int) -> dict[str, str]:
    """Environment of a process whose clocks run so many times as fast."""
    return {"LD_PRELOAD": library(), "FAKETIME": f"+0 x{times}"}


class Skew:
    """The wall clock of whatever is started with `env`; its monotonic clock stays true."""

    def __init__(self, folder: Path, seconds: float = 0) -> None:
        self._file = folder / f"clock-{id(self)}"
        self.set(seconds)
        self.env = {
            "LD_PRELOAD": library(), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }  # fmt: skip

    def set(self, seconds: float) -> None:
        self._file.write_text(f"{seconds:+g}\n")
