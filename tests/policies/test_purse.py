"""Money: what is reserved is as good as spent, and nothing is ever lost between the two."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.purse import Purse

DAY = 86_400.0


def test_what_was_spent_before_has_to_be_told_in_the_first_window_only() -> None:
    purse = Purse("day")
    purse.turn(1000.0)
    assert not purse.seeded
    purse.seed(30)
    assert purse.left(100) == 70
    purse.turn(DAY + 1)
    assert (purse.seeded, purse.left(100)) == (True, 100)


def test_a_window_that_begins_under_way_is_known_though_the_last_one_was_not() -> None:
    purse = Purse("day")
    purse.turn(1000.0)
    purse.turn(DAY - 1)
    assert not purse.seeded
    purse.turn(DAY)
    assert (purse.seeded, purse.left(100)) == (True, 100)


def test_a_reservation_of_the_last_window_is_settled_in_this_one() -> None:
    purse = Purse("day", seeded=True)
    purse.turn(1000.0)
    purse.take(50)
    purse.turn(DAY + 1)
    assert purse.left(100) == 50
    purse.settle(50, 20)
    assert (purse.spent, purse.reserved) == (20, 0)


def test_each_alert_is_given_once_a_window_the_largest_first() -> None:
    purse = Purse("day", seeded=True)
    purse.turn(1000.0)
    purse.spent = 79
    assert purse.alert(100, (0.8, 1.0)) == 0.0
    purse.spent = 80
    assert [purse.alert(100, (0.8, 1.0)) for _ in range(2)] == [0.8, 0.0]
    purse.spent = 170
    assert [purse.alert(100, (0.8, 1.0)) for _ in range(2)] == [1.0, 0.0]
    purse.turn(DAY + 1)
    purse.spent = 100
    assert purse.alert(100, (0.8, 1.0)) == 1.0


def test_a_small_share_is_told_in_every_window() -> None:
    purse = Purse("day", seeded=True)
    for day in (0, 1):
        purse.turn(day * DAY + 1000.0)
        purse.spent = 10
        assert purse.alert(100, (0.1, 0.2)) == 0.1


def test_what_a_budget_that_was_lowered_has_passed_is_told() -> None:
    purse = Purse("day", seeded=True)
    purse.turn(1000.0)
    purse.spent = 60
    assert purse.alert(100, (0.5, 1.0)) == 0.5
    purse.adopt(50, (0.5, 1.0))
    assert [purse.alert(50, (0.5, 1.0)) for _ in range(2)] == [1.0, 0.0]


def test_a_budget_of_nothing_is_passed_by_whoever_spends_anything_and_by_nobody_else() -> None:
    purse = Purse("day", seeded=True)
    purse.turn(1000.0)
    assert purse.alert(0, (1.0,)) == 0.0
    purse.spent = 1
    assert purse.alert(0, (1.0,)) == 1.0


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), max_size=60), st.integers(1, 200), st.integers(1, 8))
def test_spending_exceeds_the_budget_only_by_what_replies_cost_beyond_their_reservations(
    asked: list[tuple[int, int]], amount: int, at_once: int
) -> None:
    purse = Purse("total", seeded=True)
    purse.turn(1.0)
    under_way: list[tuple[int, int]] = []
    beyond = 0
    for bound, cost in asked:
        if purse.left(amount) >= bound:
            purse.take(bound)
            under_way.append((bound, cost))
        if len(under_way) >= at_once:
            reserved, cost_of_it = under_way.pop(0)
            purse.settle(reserved, cost_of_it)
            beyond += max(0, cost_of_it - reserved)
        assert purse.spent + purse.reserved <= amount + beyond
    for reserved, cost in under_way:
        purse.settle(reserved, cost)
    assert purse.reserved == 0
