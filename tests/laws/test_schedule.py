"""How files are dealt to the processes of the tests (tests/schedule.py): all of them once, whole, from both ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from schedule import FromBothEnds

SIZES = {"many": 9, "some": 6, "few": 5, "one": 4}


@dataclass(frozen=True)
class Gate:
    id: str


@dataclass(eq=False)
class Process:
    """Stands where one of xdist's processes stands: it is told numbers of tests, and runs none."""

    gateway: Gate
    told: list[int] = field(default_factory=list)
    shutting_down: bool = False

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.told += numbers

    def shutdown(self) -> None:
        self.shutting_down = True


@pytest.fixture
def names() -> list[str]:
    return [f"tests/test_{file}.py::test_{number}" for file, size in sorted(SIZES.items()) for number in range(size)]


Deal = Callable[[int], list[Process]]


@pytest.fixture
def deal(pytestconfig: pytest.Config, names: list[str], monkeypatch: pytest.MonkeyPatch) -> Deal:
    def made(count: int) -> list[Process]:
        monkeypatch.setattr(pytestconfig.option, "tx", ["popen"] * count)
        return dealt(FromBothEnds(pytestconfig), names, count)

    return made


def dealt(made: FromBothEnds, names: list[str], count: int) -> list[Process]:
    """What `count` processes were told, where each does a test in its turn."""
    processes = [Process(Gate(f"gw{number}")) for number in range(count)]
    for each in processes:
        made.add_node(each)
        made.add_node_collection(each, names)
    made.schedule()
    done = dict.fromkeys(processes, 0)
    while made.has_pending:
        assert sum(len(files) for files in made.assigned_work.values()) <= 2 * count, "what is done is forgotten"
        for each in processes:
            if done[each] < len(each.told):
                made.mark_test_complete(each, each.told[done[each]])
                done[each] += 1
    assert made.tests_finished
    return processes


def files(process: Process, names: list[str]) -> list[str]:
    """In their order, each as often as it came without another between."""
    order: list[str] = []
    for number in process.told:
        file = names[number].partition("::")[0].removeprefix("tests/test_").removesuffix(".py")
        if order[-1:] != [file]:
            order.append(file)
    return order


def test_one_has_those_with_many_tests_and_the_other_those_with_few(deal: Deal, names: list[str]) -> None:
    first, second = deal(2)
    assert (files(first, names)[0], files(second, names)[0]) == ("many", "one")
    assert sorted(files(first, names) + files(second, names)) == sorted(SIZES), "a file is one process's"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_test_is_run_once_and_all_are_sent_home(deal: Deal, names: list[str], count: int) -> None:
    processes = deal(count)
    assert sorted(number for each in processes for number in each.told) == list(range(len(names)))
    assert all(each.shutting_down for each in processes)
