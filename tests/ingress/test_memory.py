"""What a container's memory lets request bodies take: cgroup files of either version, as they lie around."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_gateway.ingress.memory import bodies, limit_of

V1_NONE = "9223372036854771712"
MIB = 1 << 20


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        pytest.param("0::/", {"memory.max": "536870912"}, 512 * MIB, id="v2, a namespace of its own"),
        pytest.param("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "1048576"}, MIB, id="v2, the parent's"),
        pytest.param("0::/", {"memory.max": "max"}, None, id="v2, none"),
        pytest.param("0::/", {}, None, id="v2, the machine's root"),
        pytest.param("4:memory:/x", {"memory/x/memory.limit_in_bytes": "2097152", "memory/memory.limit_in_bytes": V1_NONE}, 2 * MIB, id="v1"),
        pytest.param("4:cpu,memory:/docker/1", {"memory/memory.limit_in_bytes": "2097152"}, 2 * MIB, id="v1, a path only the host knows"),
        pytest.param("4:memory:/\n3:cpu:/", {"memory/memory.limit_in_bytes": V1_NONE}, None, id="v1, none"),
        pytest.param("0::/\n4:memory:/", {"memory/memory.limit_in_bytes": "2097152", "memory.max": "1048576"}, MIB, id="both"),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, groups: str, files: dict[str, str], limit: int | None):
    assert limit_of(machine(tmp_path, groups, files)) == limit


def test_where_there_are_no_groups_there_is_no_limit(tmp_path: Path):
    assert limit_of(tmp_path) is None
    assert bodies(1, 32 * MIB, tmp_path) == bodies(64, 32 * MIB, tmp_path) == 256 * MIB
    assert bodies(1, 512 * MIB, tmp_path) == 512 * MIB, "or a body that is allowed would be told for ever to come again"


@pytest.mark.parametrize(("workers", "share"), [(1, 256), (2, 128), (64, 32)])
def test_workers_share_a_quarter_and_the_largest_body_still_fits(tmp_path: Path, workers: int, share: int):
    root = machine(tmp_path, "0::/", {"memory.max": str(1024 * MIB)})
    assert bodies(workers, 32 * MIB, root) == share * MIB
