"""The collector's pauses: none while there is traffic, and requests make nothing that only a collector finds."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llm_gateway.telemetry.garbage import MIDDLE, NEVER, QUIET, YOUNG, Garbage


@pytest.fixture
def garbage() -> Iterator[Garbage]:
    before = gc.get_threshold()
    gc.unfreeze()
    made = Garbage()
    yield made
    gc.callbacks.remove(made._measure)
    gc.set_threshold(*before)
    gc.unfreeze()


class Fulls:
    """Counts full collections."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        self.count += phase == "start" and info["generation"] == 2


@pytest.fixture
def fulls() -> Iterator[Fulls]:
    made = Fulls()
    gc.callbacks.append(made)
    yield made
    gc.callbacks.remove(made)


def test_a_full_collection_never_starts_by_itself(garbage: Garbage) -> None:
    assert gc.get_threshold() == (YOUNG, MIDDLE, NEVER)


def test_the_first_freeze_is_at_once_and_nobody_waited_for_it(garbage: Garbage) -> None:
    garbage.freeze()
    assert gc.get_freeze_count() > 0
    assert garbage.longest == 0.0


def test_a_reload_under_load_waits_for_quiet(garbage: Garbage, fulls: Fulls) -> None:
    garbage.freeze()
    frozen, before = gc.get_freeze_count(), fulls.count
    kept = [[] for _ in range(1000)]
    garbage.freeze()
    garbage.collect(idle=False)
    assert (fulls.count, repr(garbage).endswith("freeze due>")) == (before, True)
    garbage.collect(idle=True)
    assert fulls.count == before + 1
    assert gc.get_freeze_count() > frozen + len(kept) / 2
    garbage.collect(idle=True)
    assert fulls.count == before + 1, "once"


def test_quiet_times_are_used_but_not_all_of_them(garbage: Garbage, fulls: Fulls) -> None:
    garbage.freeze()
    before = fulls.count
    for _ in range(QUIET - 1):
        garbage.collect(idle=True)
    assert fulls.count == before
    garbage.collect(idle=False)
    assert fulls.count == before, "never while something is being relayed"
    garbage.collect(idle=True)
    assert fulls.count == before + 1


def test_pauses_are_measured_whoever_causes_them(garbage: Garbage) -> None:
    garbage.freeze()
    gc.collect()
    assert garbage.longest > 0.0


CYCLES = """
import gc, socket, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from laws.line import Counter, Upstream, start
from laws.test_calls import ask, script
client = socket.create_connection(("127.0.0.1", start(Upstream(script).url, Path(tempfile.mkdtemp()), Counter())))
models = [("openai/gpt-4o", False), ("openai/gpt-4o", True), ("anthropic/claude-sonnet-4-5", True)]
for model, stream in models:
    ask(client, model, stream=stream)
gc.collect()
gc.disable()
for _ in range(20):
    for model, stream in models:
        ask(client, model, stream=stream)
print(gc.collect())
"""


def test_requests_make_no_cycles() -> None:
    """60 requests, plain, streamed and crossing: what a full collection finds afterwards is the clock's own few."""
    from pathlib import Path

    tests = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", CYCLES, tests], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60
