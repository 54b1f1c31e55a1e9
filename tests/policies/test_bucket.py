"""Token buckets: what is taken, what is waited for, and that no more than the rate ever goes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.bucket import Allowance, Bucket, Rate


def test_a_minutes_worth_at_once_then_the_rate():
    bucket = Bucket.per_minute(60)
    assert [bucket.take(1, 100.0) for _ in range(60)] == [0.0] * 60
    assert bucket.take(1, 100.0) == pytest.approx(1.0)
    assert bucket.take(1, 101.0) == 0.0


def test_what_is_not_taken_is_not_charged():
    bucket = Bucket.per_minute(60)
    assert bucket.take(50, 1.0) == 0.0
    assert bucket.take(20, 1.0) == pytest.approx(10.0)
    assert bucket.take(10, 1.0) == 0.0


def test_more_than_it_can_ever_hold_goes_when_it_is_full():
    bucket = Bucket.per_minute(60)
    assert bucket.take(1000, 1.0) == 0.0
    assert bucket.wait(1, 1.0) == pytest.approx(941.0), "and everybody waits for the debt"


def test_who_looks_often_waits_no_longer_and_who_never_looks_gets_no_more_than_the_burst():
    bucket = Bucket.per_minute(60)
    bucket.take(60, 1.0)
    assert [bucket.wait(30, now) for now in (11.0, 21.0, 31.0)] == [pytest.approx(20.0), pytest.approx(10.0), 0.0]
    assert [bucket.take(30, 1000.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(30.0)]


def test_a_limit_that_was_lowered_holds_at_once_and_at_its_own_rate():
    bucket = Bucket.per_minute(6000)
    bucket.take(1000, 1.0)
    bucket.resize(120)
    assert bucket.take(120, 1.0) == 0.0
    assert bucket.wait(10, 1.0) == pytest.approx(5.0)


def test_an_estimate_is_corrected_both_ways():
    bucket = Bucket.per_minute(60)
    bucket.take(30, 1.0)
    bucket.correct(-20)
    assert bucket.level == 50
    bucket.correct(+70)
    assert bucket.wait(10, 1.0) == pytest.approx(30.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 100)), max_size=100))
def test_never_more_than_the_burst_and_the_rate(calls):
    bucket, now, taken = Bucket.per_minute(120), 1.0, 0.0
    for later, cost in calls:
        now += later
        if bucket.take(cost, now) == 0.0:
            taken += cost
        assert taken <= 120 + 2 * (now - 1.0) + 1e-6


def allowance(requests: float | None, tokens: float | None) -> Allowance:
    made = Allowance()
    made.adopt(Rate(requests, tokens))
    return made


@pytest.mark.parametrize(
    ("rate", "room"),
    [((2, 100), [0.0, 0.0, 30.0]), ((60, 100), [0.0, 0.0, 12.0]), ((2, None), [0.0, 0.0, 30.0]), ((None, 100), [0.0, 0.0, 12.0]), ((None, None), [0.0] * 3)],
)
def test_a_call_waits_for_whichever_limit_is_the_tighter(rate, room):
    made = allowance(*rate)
    waits = []
    for _ in room:
        waits.append(made.wait(40, 1.0))
        made.take(40, 1.0)
    assert waits == pytest.approx(room)


def test_a_call_is_counted_by_what_it_used_and_one_that_was_not_made_by_nothing():
    made = allowance(2, 100)
    made.take(90, 1.0)
    assert made.wait(60, 1.0) == pytest.approx(30.0)
    made.correct(-50)
    assert made.wait(60, 1.0) == 0.0, "its tokens are back"
    made.take(60, 1.0)
    assert made.wait(0, 1.0) == pytest.approx(30.0), "but it was a request"
    made.give_back(60)
    assert made.wait(60, 1.0) == 0.0
    assert made.wait(61, 1.0) > 0
    for only in (allowance(2, None), allowance(None, 100), allowance(None, None)):
        only.correct(50)
        only.give_back(10)


def test_new_limits_go_on_from_where_the_old_ones_were():
    made = allowance(6, 100)
    for _ in range(6):
        made.take(10, 1.0)
    made.adopt(Rate(60, 100))
    assert made.wait(40, 1.0) == pytest.approx(1.0), "what is used up stays so, and comes back faster"
    assert made.wait(40, 2.0) == 0.0
    made.adopt(Rate(None, 20))
    made.take(20, 2.0)
    assert made.wait(20, 2.0) == pytest.approx(60.0)
    made.adopt(Rate())
    assert made.wait(10_000, 2.0) == 0.0
