"""What the rows of the fault matrix share: a house of processes, and a place to say what was seen.

A test belongs to a row by `@pytest.mark.row(3)`; its docstring says how the fault is made. Where FAULTS_SEEN names a file,
what became of each test is appended there, for `report.py` to make a page of; one that skips leaves its reason.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.house import House
from faults.space import why_not

Seen = Callable[[str], None]


@pytest.fixture(scope="session", autouse=True)
def _linux() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("processes are watched through Linux's /proc")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for the quick rows of a file."""
    house = House(tmp_path_factory.mktemp("block"))
    yield house
    house.close()


@pytest.fixture(scope="session")
def _no_spaces() -> str:
    return why_not()


@pytest.fixture
def spaces(_no_spaces: str) -> None:
    if _no_spaces:
        pytest.skip(_no_spaces)


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Seen:
    """Says what was seen, with figures."""
    return lambda sentence: request.node.user_properties.append(("seen", sentence))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    file = os.environ.get("FAULTS_SEEN")
    marker = item.get_closest_marker("row")
    if file and marker is not None and (report.when == "call" or report.skipped or report.failed):
        function = getattr(item, "function", None)
        line = {
            "rows": list(marker.args),
            "test": item.name,
            "how": " ".join((getattr(function, "__doc__", None) or "").split()),
            "outcome": report.outcome,
            "seen": [value for name, value in item.user_properties if name == "seen"],
            "reason": str(report.longrepr[2]).removeprefix("Skipped: ") if report.skipped and isinstance(report.longrepr, tuple) else "",
            "seconds": round(report.duration, 1),
        }
        with Path(file).open("a") as out:
            out.write(json.dumps(line) + "\n")
    return report
