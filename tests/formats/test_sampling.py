"""The part of the recorded traffic that `make test` takes: no recording is left out of a file, and `make replay` takes all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from formats import test_bedrock_recorded, test_ollama_recorded, test_recorded, test_responses_recorded, test_sdk_types
from formats.sampling import EVERY_CUT, LEAST, generated, offers, taken

ROOT = Path(__file__).parents[2]
SHARED = [test_recorded, test_bedrock_recorded, test_ollama_recorded, test_responses_recorded]
modules = pytest.mark.parametrize("module", SHARED, ids=lambda module: module.__name__)


@modules
def test_each_recording_is_taken_at_least_once_in_a_file(module: ModuleType) -> None:
    offered = offers(module)
    all_of_them = {one.id for interactions, _ in offered.values() for one in interactions}
    assert {one.id for name in offered for one in taken(offered, name, every=False)} == all_of_them


@modules
def test_each_test_takes_some_of_each_api_and_in_all_it_is_a_part(module: ModuleType) -> None:
    offered = offers(module)
    for name, (interactions, _) in offered.items():
        there = Counter(one.row["api"] for one in interactions)
        found = Counter(one.row["api"] for one in taken(offered, name, every=False))
        assert {api: min(count, LEAST) for api, count in there.items()} == {api: min(count, LEAST) for api, count in found.items()}, name
    whole = sum(len(interactions) for interactions, _ in offered.values())
    assert sum(len(taken(offered, name, every=False)) for name in offered) <= whole / 2


def test_all_are_taken_where_all_are_wanted() -> None:
    for module in SHARED:
        offered = offers(module)
        assert {name: taken(offered, name, every=True) for name in offered} == {name: interactions for name, (interactions, _) in offered.items()}


def test_a_third_is_a_third() -> None:
    offered = offers(test_sdk_types)
    for name, (interactions, part) in offered.items():
        assert part == 3
        assert abs(len(taken(offered, name, every=False)) - len(interactions) / 3) <= len(interactions) / 10 + LEAST


def test_examples_are_fewer_and_never_too_few() -> None:
    def examples(of: int) -> int:
        def test() -> None:
            """Of nothing."""

        return generated(of)(test)._hypothesis_internal_use_settings.max_examples

    assert (examples(300), examples(20)) == ((300, 20) if EVERY_CUT else (60, 10))


def test_make_replay_takes_all_that_is_marked() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nreplay:")[2].partition("\n\n")[0]
    assert "EVERY_CUT=1" in recipe
    assert "tests/formats -m sampled" in recipe
    assert offers(test_sdk_types).keys() == {"test_replies", "test_streams"}, "found by the same mark"
