"""That no row of the matrix vanishes from the page, whatever became of it."""

from __future__ import annotations

import re
from pathlib import Path

from faults.matrix import MATRIX, OPEN
from faults.report import page, replaced

HERE = Path(__file__).parent


def line(row: int, outcome: str, **more: object) -> dict[str, object]:
    return {"rows": [row], "test": "test_it", "how": "by hand", "outcome": outcome, "seen": [], "reason": ""} | more


def test_every_row_has_tests_or_a_reason_and_not_both():
    marked = {int(each) for file in HERE.glob("test_*.py") for each in re.findall(r"mark\.row\((\d+)\)", file.read_text())}
    assert marked | OPEN.keys() == set(MATRIX)
    assert not marked & OPEN.keys()


def test_what_passed_what_failed_what_skipped_and_what_is_missing_all_stand_there():
    made = page(
        [
            line(1, "passed", seen=["10 of 10 a|b"]), line(1, "passed", seen=["again"]), line(2, "failed"),
            line(3, "skipped", reason="no root"), line("regions", "passed", seen=["cut"]),
        ],  # type: ignore[arg-type]
        "a machine",
    )  # fmt: skip
    rows = {row.split(" | ")[0].strip("| "): row for row in made.splitlines() if row.startswith("| ")}
    assert "10 of 10 a\\|b.<br>Again." in rows["1"]
    assert rows["1"].count("by hand") == 1
    assert "**Failed** (test_it)" in rows["2"]
    assert "*Skipped here:* no root." in rows["3"]
    assert "no test of it ran" in rows["22"]
    assert "no test of it ran" in rows["4"]
    assert len(re.findall(r"^\| \d+ \|", made, re.MULTILINE)) == len(MATRIX)
    assert "| regions |" in made


def test_a_test_that_ran_again_takes_its_own_place():
    before = [line(1, "failed", test="one"), line(2, "passed", test="other")]
    after = [line(1, "passed", test="one", seen=["now"]), line(3, "passed", test="new")]
    assert replaced(before, after) == [before[1], *after]  # type: ignore[arg-type]
    assert replaced([], after) == after  # type: ignore[arg-type]
