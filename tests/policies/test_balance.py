"""Orders of candidates: every function returns all of them, and puts first whom its rule says."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies import balance

COUNTS = st.integers(1, 8)


def test_weights_are_shares():
    dice = random.Random(7)
    first = Counter(balance.weighted([6, 3, 1], [dice.random() for _ in range(3)])[0] for _ in range(20_000))
    assert [round(first[place] / 20_000, 2) for place in range(3)] == pytest.approx([0.6, 0.3, 0.1], abs=0.02)


def test_the_second_is_drawn_by_weight_among_the_rest():
    dice = random.Random(7)
    second = Counter(balance.weighted([1, 3, 1], [dice.random() for _ in range(3)])[1] for _ in range(20_000) if True)
    assert second[0] == pytest.approx(second[2], rel=0.1)


def test_round_robin_begins_with_each_in_turn():
    assert [balance.rotated(3, turn)[0] for turn in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_least_loaded_first_and_equals_in_turn():
    assert balance.least([3, 1, 2], 0) == [1, 2, 0]
    assert {balance.least([1, 1], turn)[0] for turn in range(2)} == {0, 1}


def test_two_choices_takes_the_better_of_two_and_never_the_worst():
    dice = random.Random(3)
    first = Counter(balance.two_choices([1.0, 2.0, 9.0], (dice.random(), dice.random()))[0] for _ in range(6000))
    assert first[2] == 0
    assert first[0] == pytest.approx(4000, rel=0.05), "of three pairs, two hold the best"
    assert balance.two_choices([2.0, 1.0], (0.0, 0.0)) == [1, 0]


def test_what_nobody_knows_comes_last_by_price():
    assert balance.ranked([None, 5, 3], 0) == [2, 1, 0]


def test_blended_scores_are_relative_to_the_best():
    none = [0.0, 0.0]
    assert balance.blended((1.0, 1.0, 0.0), [1.0, 2.0], [10.0, 5.0], none) == [3.0, 3.0]
    assert balance.blended((1.0, 0.0, 0.0), [1.0, 4.0], [None, None], none) == [1.0, 4.0]
    unknown, known = balance.blended((1.0, 1.0, 0.0), [0.0, 2.0], [None, 2.0], none)
    assert unknown <= known, "the unknown is tried"
    good, bad = balance.blended((1.0, 1.0, 2.0), [1.0, 1.0], [1.0, 1.0], [0.0, 0.5])
    assert bad == 5 * good
    free, dear = balance.blended((0.0, 1.0, 0.0), [1.0, 1.0], [0.0, 3.0], none)
    assert free < dear


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=2, max_size=8, unique=True), st.binary(max_size=64))
def test_when_one_goes_only_its_own_sessions_move(names, key):
    weights = [1] * len(names)
    order = [names[place] for place in balance.rendezvous(names, weights, key)]
    fewer = [name for name in names if name != order[0]]
    assert [fewer[place] for place in balance.rendezvous(fewer, weights[1:], key)] == order[1:]


def test_sessions_spread_by_weight():
    first = Counter(balance.rendezvous([b"a", b"b"], [3, 1], b"%d" % n)[0] for n in range(8000))
    assert first[0] / 8000 == pytest.approx(0.75, abs=0.02)


@given(st.data())
def test_every_order_holds_everybody_once(data):
    count = data.draw(COUNTS)
    floats = st.lists(st.floats(0.1, 100), min_size=count, max_size=count)
    die = st.floats(0, 1, exclude_max=True)
    orders = [
        balance.rotated(count, data.draw(st.integers(0, 100))),
        balance.weighted(data.draw(floats), data.draw(st.lists(die, min_size=count, max_size=count))),
        balance.least(data.draw(floats), data.draw(st.integers(0, 100))),
        balance.two_choices(data.draw(floats), (data.draw(die), data.draw(die))),
        balance.ranked(data.draw(st.lists(st.none() | st.floats(0, 9), min_size=count, max_size=count)), 1),
        balance.rendezvous([b"%d" % n for n in range(count)], data.draw(floats), data.draw(st.binary(max_size=64))),
    ]
    assert all(sorted(order) == list(range(count)) for order in orders)
