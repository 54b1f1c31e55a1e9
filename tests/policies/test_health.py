"""Fall and rise, counted."""

from __future__ import annotations

import pytest

from llm_gateway.policies.health import Bounds, Pulse


@pytest.mark.parametrize(
    ("results", "bounds", "states"),
    [
        ("", Bounds(), ""),
        ("xxx", Bounds(3, 2), "uud"),
        ("xx.xx.xxx", Bounds(3, 2), "uuuuuuuud"),
        ("xxx..", Bounds(3, 2), "uuddu"),
        ("xxx.x.x..", Bounds(3, 2), "uuddddddu"),
        ("x.", Bounds(1, 1), "du"),
        ("x..", Bounds(1, 3), "ddd"),
        ("x...", Bounds(1, 3), "dddu"),
    ],
)
def test_it_falls_and_rises_as_bounded(results: str, bounds: Bounds, states: str) -> None:
    pulse, seen, changes = Pulse(), "", 0
    for result in results:
        changes += pulse.beat(bounds, good=result == ".")
        seen += "u" if pulse.healthy else "d"
    assert seen == states
    assert changes == sum(one != other for one, other in zip(f"u{states}", states, strict=False))


def test_it_prints_itself() -> None:
    pulse = Pulse()
    assert repr(pulse) == "<Pulse up>"
    pulse.beat(Bounds(), good=False)
    assert repr(pulse) == "<Pulse up, 1 against>"
    pulse.beat(Bounds(2), good=False)
    assert repr(pulse) == "<Pulse down>"
