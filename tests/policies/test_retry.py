"""When to try again, where, and after how long: every kind, and the bounds that hold whatever happens."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.retry import (
    LONGEST_RETRY_AFTER,
    OURS,
    PASSING,
    STALE,
    Move,
    Policy,
    clamp_retry_after,
)

CALLERS = [kind for kind in Kind if kind.blame == "caller"]
kinds = st.sampled_from(list(Kind))
jitters = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 20),
    base=st.floats(0, 10),
    cap=st.floats(0, 60),
    wait_retry_after=st.floats(0, 30),
    budget=st.floats(0, 1),
    budget_min=st.integers(0, 10),
)
retry_afters = st.one_of(st.none(), st.floats(0, LONGEST_RETRY_AFTER))


def fault(kind: Kind, retry_after: float | None = None, code: str | None = None) -> Fault:
    return Fault(kind, "no", retry_after=retry_after, code=code)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda each: each.name)
def test_the_table_of_moves(kind: Kind) -> None:
    """By name, so that a new kind has to be decided here."""
    same = {
        "UPSTREAM_CONNECT", "UPSTREAM_CUT", "UPSTREAM_BROKEN", "UPSTREAM_ERROR", "UPSTREAM_RATE_LIMIT", "UPSTREAM_CONFLICT",
        "OVERLOADED", "TIMEOUT",
    }  # fmt: skip
    onward = {"UPSTREAM_AUTH", "UPSTREAM_QUOTA", "UPSTREAM_NO_MODEL", "UPSTREAM_TLS", "UPSTREAM_DNS", "UNAVAILABLE", "ESCALATED"}
    expected = "same" if kind.name in same else "next" if kind.name in onward else "stop"
    assert Policy().after(fault(kind), 0, 2, 0.5).verdict == expected


def test_the_two_lists_share_nothing_and_blame_nobody_else() -> None:
    assert not PASSING & OURS
    assert all(kind.blame != "caller" for kind in PASSING | OURS)


@given(policies, st.sampled_from(CALLERS), st.integers(0, 9), st.integers(0, 9), jitters, retry_afters)
def test_a_callers_fault_is_never_tried_again(
    policy: Policy, kind: Kind, same: int, most: int, jitter: float, after: float | None
) -> None:
    assert policy.after(fault(kind, after), same, most, jitter) == Move("stop")


@given(policies, kinds, st.integers(0, 19), st.integers(0, 10), jitters, retry_afters)
def test_no_wait_is_longer_than_its_bound(
    policy: Policy, kind: Kind, same: int, most: int, jitter: float, after: float | None
) -> None:
    move = policy.after(fault(kind, after), same, most, jitter)
    assert 0 <= move.wait <= (policy.cap if after is None else policy.wait_retry_after)
    if move.verdict != "same":
        assert move.wait == 0, "moving on is at once"
    elif after is not None:
        assert move.wait == after, "what the upstream asked for, neither less nor more"


@given(policies, st.sampled_from(sorted(PASSING, key=str)), st.integers(0, 10), jitters, retry_afters)
def test_the_same_target_is_asked_again_at_most_so_often(
    policy: Policy, kind: Kind, most: int, jitter: float, after: float | None
) -> None:
    asked = 0
    while policy.after(fault(kind, after), asked, most, jitter).verdict == "same":
        asked += 1
        assert asked <= most


def test_pauses_double_and_jitter_is_full() -> None:
    policy = Policy()
    assert [policy.after(fault(Kind.OVERLOADED), same, 9, 0.999999).wait for same in range(6)] == pytest.approx(
        [0.5, 1, 2, 4, 8, 8], rel=1e-3
    )
    assert policy.after(fault(Kind.OVERLOADED), 3, 9, 0.0).wait == 0.0


@pytest.mark.parametrize(("after", "verdict"), [(0.0, "same"), (1.5, "same"), (2.0, "same"), (2.001, "next"), (3600.0, "next")])
def test_a_short_retry_after_is_waited_out_a_long_one_is_not(after: float, verdict: str) -> None:
    move = Policy().after(fault(Kind.UPSTREAM_RATE_LIMIT, after), 0, 2, 0.5)
    assert (move.verdict, move.wait) == (verdict, after if verdict == "same" else 0.0)


def test_a_stale_connection_is_replaced_once_even_without_retries() -> None:
    stale = fault(Kind.UPSTREAM_CUT, code=STALE)
    assert Policy().after(stale, 0, 0, 0.9) == Move("same")
    assert Policy().after(stale, 1, 0, 0.9) == Move("next")


def test_who_does_not_pick_up_is_not_waited_for_if_there_is_somebody_else() -> None:
    refused = fault(Kind.UPSTREAM_CONNECT)
    assert Policy().after(refused, 0, 2, 0.5, elsewhere=True) == Move("next")
    assert Policy().after(refused, 0, 2, 0.5).verdict == "same"
    assert Policy().after(fault(Kind.OVERLOADED), 0, 2, 0.5, elsewhere=True).verdict == "same"


def test_the_budget_is_a_share_of_active_requests_and_never_under_its_least() -> None:
    policy = Policy(budget=0.2, budget_min=3)
    assert [policy.affords(retrying, 1) for retrying in range(5)] == [True, True, True, False, False]
    assert policy.affords(19, 100)
    assert not policy.affords(20, 100)


@given(st.one_of(st.none(), st.floats()))
@example(math.nan)
@example(math.inf)
@example(-math.inf)
@example(-0.0)
def test_whatever_an_upstream_wrote_is_a_sane_wait_or_none(value: float | None) -> None:
    seconds = clamp_retry_after(value)
    assert seconds is None or 0 <= seconds <= LONGEST_RETRY_AFTER
    if value is None or math.isnan(value) or value < 0:
        assert seconds is None
