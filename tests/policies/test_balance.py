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


@given(st.lists(st.integers(1, 9), min_size=1, max_size=balance.MOST_DEALT), st.floats(0, 1, exclude_max=True))
def test_a_deck_deals_by_weight_and_what_follows_by_weight_among_the_rest(weights, die):
    deck = balance.Deck(weights)
    assert sorted(deck.deal(die)) == list(range(len(weights)))
    assert deck.ends[-1] == pytest.approx(1.0)
    chances = dict(zip(deck.orders, [end - before for end, before in zip(deck.ends, [0.0, *deck.ends], strict=False)], strict=True))
    for place, weight in enumerate(weights):
        assert sum(chance for order, chance in chances.items() if order[0] == place) == pytest.approx(weight / sum(weights))
    first, *rest = deck.deal(die)
    if rest:
        first_chance = sum(chance for order, chance in chances.items() if order[0] == first)
        second = sum(chance for order, chance in chances.items() if order[:2] == (first, rest[0]))
        assert second / first_chance == pytest.approx(weights[rest[0]] / (sum(weights) - weights[first]))


PRICES = st.none() | st.tuples(*3 * [st.integers(0, 4)])


@given(st.lists(PRICES, min_size=1, max_size=6), st.integers(1, 1000), st.floats(0, 1), st.integers(1, 1000), st.integers(0, 20))
def test_where_prices_are_settled_every_request_gives_the_same_order(slopes, prompt, hit, output, turn):
    ranks = balance.settled(slopes)
    if ranks is None:
        return
    cached = prompt * hit
    costs = [None if each is None else (prompt - cached) * each[0] + cached * each[1] + output * each[2] for each in slopes]
    assert [costs[place] for place in balance.least(ranks, turn)] == pytest.approx([costs[place] for place in balance.ranked(costs, turn)])
    assert balance.least(ranks, turn) == balance.ranked(costs, turn)


def test_what_depends_on_the_request_is_not_settled():
    assert balance.settled([(1, 1, 4), (2, 2, 1)]) is None, "cheap to read, or cheap to write"
    assert balance.settled([(1, 3, 4), (2, 2, 8)]) is None, "one has cheap caches"
    assert balance.settled([(2, 1, 8), None, (1, 1, 4), (1, 1, 4)]) == [1, 2, 0, 0]


def plainly(weights, latencies, costs, errors):
    """What `blended` says it does, as its documentation has it."""
    fastest = min([value for value in latencies if value], default=1.0)
    cheapest = min([value for value in costs if value is not None], default=1.0)
    return [
        (weights[0] * (latency / fastest if latency else 1.0) + weights[1] * (cost / cheapest if cost is not None and cheapest else 1.0 + (cost or 0.0)))
        * (1 + weights[2] * 4 * wrong)
        for latency, cost, wrong in zip(latencies, costs, errors, strict=True)
    ]


@given(st.data())
def test_scores_are_the_same_in_one_step_or_in_three(data):
    count, some = data.draw(COUNTS), st.floats(0.01, 100)
    latencies, errors = (data.draw(st.lists(st.sampled_from([0.0]) | some, min_size=count, max_size=count)) for _ in range(2))
    costs = data.draw(st.lists(st.none() | st.just(0.0) | some, min_size=count, max_size=count))
    weights = data.draw(st.tuples(some, some, some))
    assert balance.blended(weights, latencies, costs, errors) == pytest.approx(plainly(weights, latencies, costs, errors))
