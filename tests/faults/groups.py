"""A memory cgroup of a test's own, of either version.

Law: made below the root, named after this process, removed when its processes are gone; nobody else's group is touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Group:
    def __init__(self, path: Path, *, modern: bool) -> None:
        self.path = path
        self._modern = modern

    @property
    def before(self) -> list[str]:
        """Words in front of a command that is to run in it."""
        return ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$0" "$@"']

    def killed(self) -> int:
        """How many processes the kernel killed for want of memory."""
        lines = (self.path / ("memory.events" if self._modern else "memory.oom_control")).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def peak(self) -> float:
        """MB, page cache included."""
        return int((self.path / ("memory.peak" if self._modern else "memory.max_usage_in_bytes")).read_text()) / 1e6


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Group]:
    """Skips the test where no group can be made."""
    modern = (V2 / "cgroup.controllers").exists()
    if modern and "memory" not in (V2 / "cgroup.subtree_control").read_text():
        pytest.skip("the memory controller is not given to cgroups below the root")
    path = (V2 if modern else V1) / f"llm-gateway-faults-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup of one's own here: {error.strerror}")
    try:
        (path / ("memory.max" if modern else "memory.limit_in_bytes")).write_text(str(limit))
        yield Group(path, modern=modern)
    finally:
        with contextlib.suppress(OSError):
            path.rmdir()
