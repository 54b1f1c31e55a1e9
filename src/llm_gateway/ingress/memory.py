"""How much memory request bodies may take where nobody said: a quarter of what the container has.

Law: reads cgroup files (v2 `memory.max`, v1 `memory.limit_in_bytes`) of this process's group and those above it, of which
the smallest counts. Where no group has a limit a gigabyte is taken for it, for each worker: the machine has more.
Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

SHARE = 4
ASSUMED = 1 << 30
UNLIMITED = 1 << 60  # v1 says "no limit" with a number close to 2**63


def bodies(workers: int, largest: int, root: Path = Path("/")) -> int:
    """Bytes for one of so many workers; at least the `largest` body that is allowed."""
    limit = limit_of(root)
    return max(ASSUMED // SHARE if limit is None else limit // SHARE // workers, largest)


def limit_of(root: Path = Path("/")) -> int | None:
    """What this process and its siblings may use in all; None where nothing limits them."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits: list[int] = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            limits += _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits(mount: Path, path: str, name: str) -> list[int]:
    """Of a group and its ancestors. A container may see its own group as the root, under a path that only the host knows."""
    below = PurePosixPath(path.lstrip("/"))
    found = []
    for group in (below, *below.parents):
        try:
            text = (mount / group / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < UNLIMITED:
            found.append(int(text))
    return found
