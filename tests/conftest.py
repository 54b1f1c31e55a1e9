"""Shared by all tests."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from databases import Migrated
from postgres import Postgres, postgres_server
from schedule import FromBothEnds

# Processes that tests start keep their bytecode, as those of users do: an operator that compiles all it imports takes 3 s more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# How long an example takes is the machine's affair, and what others do on it.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
collect_ignore = [] if find_spec("litellm") else ["clients"]  # `make clients` has them, in an environment of their own


@pytest.fixture(scope="session")
def checkout() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    return Migrated(tmp_path_factory.mktemp("migrated"))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that workers and the operator run on."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FromBothEnds | None:
    return FromBothEnds(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_sessionstart() -> None:
    """What is collected stays: looking through it for garbage, again and again, is a third of collecting."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Where FAILED_TESTS names a file, the names of those that failed go there (scripts/test.sh asks them once more, alone)."""
    file = os.environ.get("FAILED_TESTS")
    if file and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(file).open("a") as names:
            names.write(f"{report.nodeid}\n")
        if report.when == "???":  # what xdist says of a test whose process died in it
            with Path(f"{file}.died").open("a") as died:
                died.write(f"{report.nodeid}\n")
