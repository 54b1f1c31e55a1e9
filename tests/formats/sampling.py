"""What `make test` takes of what is recorded and of what can be generated: a part. `make replay`, which CI runs as well, takes all (EVERY_CUT=1).

Law: the part is the same each time, and hangs on nothing but a test's own file. In each file every recording that its tests take is
taken by one of them, every test takes some of each API, and which test takes which is drawn by the recording's name.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from replay.recordings import Interaction

EVERY_CUT = bool(os.environ.get("EVERY_CUT"))
LEAST = 3  # of each API, for each test
GENERATED = 5  # one in so many examples

Offer = tuple[tuple[Interaction, ...], int]


def each(interactions: Iterable[Interaction], one_in: int = 0) -> pytest.MarkDecorator:
    """A test for each of them, or of a part, as `interaction`. one_in: the part; without it the file's tests share them."""
    return pytest.mark.sampled(tuple(interactions), one_in)


def generated(examples: int, **more: Any) -> Callable[[Any], Any]:
    """Hypothesis's settings; `examples` are those of `make replay`."""
    chosen = settings(max_examples=examples if EVERY_CUT else max(examples // GENERATED, 10), **more)
    return lambda test: pytest.mark.sampled(chosen(test))


def offers(module: ModuleType) -> dict[str, Offer]:
    """What the module's tests take, by their names."""
    found = {}
    for name, function in vars(module).items():
        for mark in getattr(function, "pytestmark", ()):
            if mark.name == "sampled" and mark.args:
                found[name] = mark.args
    return found


def taken(offered: dict[str, Offer], name: str, *, every: bool = EVERY_CUT) -> tuple[Interaction, ...]:
    """What the test of that name takes of what it was offered."""
    interactions, one_in = offered[name]
    if every:
        return interactions
    takers: dict[str, list[str]] = defaultdict(list)
    for taker, (those, part) in offered.items():
        for one in those if not part else ():
            takers[one.id].append(taker)
    chosen = {one.id for one in interactions if (_turn(one, one_in) == 0 if one_in else takers[one.id][_turn(one, len(takers[one.id]))] == name)}
    strata: dict[str, list[Interaction]] = defaultdict(list)
    for one in interactions:
        strata[one.row["api"]].append(one)
    for those in strata.values():
        those.sort(key=lambda one: (one.id not in chosen, crc32(one.id.encode())))
        chosen |= {one.id for one in those[:LEAST]}
    return tuple(one for one in interactions if one.id in chosen)


def _turn(one: Interaction, count: int) -> int:
    return crc32(one.id.encode()) % count
