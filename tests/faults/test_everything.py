"""Row 40: all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.conftest import Seen
from faults.everything import run

pytestmark = pytest.mark.slow


@pytest.mark.row(40)
def test_whatever_happens_together_the_books_agree_with_what_clients_hold(tmp_path: Path, seen: Seen) -> None:
    """Two gateways of two workers on one Redis and PostgreSQL; for a minute, by seeded dice: SIGKILL, SIGSTOP and SIGTERM of every process, reloads, Redis and
    PostgreSQL frozen, restarted, hanging up, an upstream of twelve moods, clients that leave. `make chaos` goes on for longer."""
    crowd, troubles, found = run(tmp_path, 60.0, 40)
    assert not found, "\n".join(found)
    assert len(crowd.held) > 300
    assert troubles.done.total() > 15
    again = sum(len(each) > 1 for each in crowd.once.values())
    seen(
        f"{troubles.done.total()} troubles; {len(crowd.held)} whole replies, each with its one row at the cost that was told; {again} idempotency keys used "
        "again and none paid for twice; rows, hours, days and what Redis counts as spent agree to the nano-dollar; nobody left under way, no exception in a log"
    )


@pytest.mark.row(40)
def test_so_they_do_where_redis_is_a_cluster(tmp_path: Path, seen: Seen) -> None:
    """The same on a Valkey cluster of three masters and their replicas, which moreover take over in order, and whose slots move; idempotency keys asked for
    while a part of it is away are left out."""
    crowd, troubles, found = run(tmp_path, 45.0, 41, "cluster")
    assert not found, "\n".join(found)
    assert len(crowd.held) > 200
    assert troubles.done.total() > 10
    seen(f"On a cluster: {troubles.done.total()} troubles; {len(crowd.held)} whole replies, each with its one row at the cost that was told, and the same sums")
