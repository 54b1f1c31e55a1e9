"""What was spent before: known only once the operator has said so."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llm_gateway.admission.spend import Spend
from llm_gateway.core.tenancy import Claim, Period, place
from llm_gateway.stores.tables import write

NOON = 1_764_000_000.0  # 2025-11-24T16:00:00Z


def claim(holder: str, period: Period) -> Claim:
    return Claim(holder, "budget", 100, period)


def table(folder: Path, **spent: tuple[str, int]) -> Path:
    path = folder / "spend.table"
    write(path, [(place(name), msgspec.msgpack.encode(value)) for name, value in spent.items()], 1)
    return path


def test_nothing_is_known_before_there_is_a_table() -> None:
    assert Spend().spent(claim("key:1", "day"), NOON) is None


def test_what_the_table_says_of_the_present_window_was_spent(tmp_path: Path) -> None:
    spend = Spend()
    spend.open(table(tmp_path, **{
        "key:1 budget day": ("2025-11-24", 7), "key:1 budget month": ("2025-10", 9), "key:1 budget total": ("", 16), "key:1 budget week": ("2025-W48", 8),
    }))  # fmt: skip
    periods: tuple[Period, ...] = ("day", "month", "total", "week", "hour")
    assert [spend.spent(claim("key:1", period), NOON) for period in periods] == [7, 0, 16, 8, 0]
    assert spend.spent(claim("key:2", "day"), NOON) == 0


def test_a_damaged_table_is_not_taken(tmp_path: Path) -> None:
    spend = Spend()
    path = table(tmp_path, **{"key:1 budget day": ("2025-11-24", 7)})
    spend.open(path)
    bad = tmp_path / "bad"
    bad.write_bytes(path.read_bytes()[:-5])
    spend.open(bad)
    spend.open(tmp_path / "none")
    assert (spend.spent(claim("key:1", "day"), NOON), spend.unread) == (7, 2)
