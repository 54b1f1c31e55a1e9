"""The limit finds what an upstream can take: a simulated queue that serves so many at once."""

from __future__ import annotations

from llm_gateway.policies.gradient import Bounds, Gradient


def settle(capacity: int, rounds: int = 3000) -> float:
    """Every call beyond `capacity` makes all of them wait in proportion."""
    gradient = Gradient.of(Bounds())
    for _ in range(rounds):
        busy = int(gradient.limit)
        gradient.add(0.2 * max(1.0, busy / capacity), busy)
    return gradient.limit


def test_it_grows_where_nothing_gets_slower():
    assert settle(10_000) > 500


def test_it_stays_within_reach_of_what_is_taken():
    assert 30 < settle(50) < 250


def test_it_does_not_move_while_it_is_not_used():
    gradient = Gradient.of(Bounds())
    for _ in range(100):
        gradient.add(0.1, 1)
    assert gradient.limit == 20


def test_refusals_make_it_smaller_but_never_nothing():
    gradient = Gradient.of(Bounds())
    for _ in range(100):
        gradient.drop()
    assert gradient.limit == 4
