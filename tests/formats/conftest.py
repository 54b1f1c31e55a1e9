"""Golden files: compared, or written with --update-golden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from formats.sampling import offers, taken

GOLDEN = Path(__file__).parents[1] / "golden"


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")


def pytest_generate_tests(metafunc):
    """Recorded interactions for tests marked by `formats.sampling.each`."""
    if metafunc.function.__name__ in (offered := offers(metafunc.module)):
        interactions = taken(offered, metafunc.function.__name__)
        metafunc.parametrize("interaction", interactions, ids=[one.id for one in interactions])


@pytest.fixture
def golden(request):
    def compare(name: str, told: object) -> None:
        path = GOLDEN / f"{name}.json"
        text = json.dumps(shortened(told), indent=1, ensure_ascii=False) + "\n"
        if request.config.getoption("--update-golden", default=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"no golden file {path.name}: run with --update-golden and read it"
        assert json.loads(path.read_text(encoding="utf-8")) == json.loads(text)

    return compare


def shortened(value):
    """Long strings by their ends: what they say is tested elsewhere, a golden file shows where they go."""
    if isinstance(value, str):
        return value if len(value) <= 200 else f"{value[:80]}…{len(value)} characters…{value[-40:]}"
    if isinstance(value, list):
        return [shortened(each) for each in value]
    if isinstance(value, dict):
        return {name: shortened(each) for name, each in value.items()}
    return value
