"""Windows of the UTC calendar."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.core.tenancy import Period
from llm_gateway.policies.windows import ends, window

PERIODS: tuple[Period, ...] = get_args(Period)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("period", "now", "name", "end"),
    [
        ("hour", "2026-11-27T01:59:59.9", "2026-11-27T01", "2026-11-27T02:00:00"),
        ("day", "2026-12-31T23:59:59", "2026-12-31", "2027-01-01T00:00:00"),
        ("week", "2027-01-01T12:00:00", "2026-W53", "2027-01-04T00:00:00"),
        ("week", "2026-11-30T00:00:00", "2026-W49", "2026-12-07T00:00:00"),
        ("month", "2026-12-05T00:00:00", "2026-12", "2027-01-01T00:00:00"),
        ("month", "2028-02-29T23:00:00", "2028-02", "2028-03-01T00:00:00"),
    ],
)
def test_a_window_has_a_name_and_an_end(period: Period, now: str, name: str, end: str) -> None:
    assert (window(period, at(now)), ends(period, at(now))) == (name, at(end))


def test_the_total_never_ends() -> None:
    assert (window("total", 0.0), ends("total", 5e9)) == ("", inf)


@given(st.sampled_from(PERIODS), st.integers(0, 7_000_000_000))
def test_its_end_is_the_first_moment_of_the_next(period: Period, now: int) -> None:
    end = ends(period, now)
    assert end > now
    if end < inf:
        assert window(period, end - 1) == window(period, now) < window(period, end)
