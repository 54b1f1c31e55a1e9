"""Token buckets: what is taken, what is waited for, and that no more than the rate ever goes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.bucket import Bucket


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
