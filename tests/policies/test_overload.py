"""When a worker has enough to do, and who is told."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Kind
from llm_gateway.policies.overload import BODIES, CONNECTIONS, LAG, STREAMS, Overload


def overload(streams: int | None = None, lag: float = 1.0) -> Overload:
    made = Overload()
    made.adopt(streams, lag)
    return made


def test_one_late_beat_is_nobodys_business_and_two_are():
    each = overload()
    for lag, late in ((5.0, False), (0.0, False), (5.0, False), (1.2, True), (0.96, True), (0.93, False), (0.0, False)):
        each.beat(lag)
        assert each.late is late, lag


def test_between_the_two_marks_connections_end_and_nobody_is_refused():
    each = overload()
    each.beat(0.93)
    each.beat(0.93)
    assert (each.crowded, each.late) == (True, False)
    each.beat(0.5)
    assert each.crowded is False


def test_a_loop_may_be_as_late_as_it_likes_where_nobody_minds():
    each = overload(lag=0.0)
    for _ in range(9):
        each.beat(60.0)
    assert (each.crowded, each.late) == (False, False)


@pytest.mark.parametrize(("most", "full", "crowded_from"), [(100, 95, 92), (10, 9, 9), (1, 1, 1)])
def test_streams_end_connections_first_and_are_refused_then(most: int, full: int, crowded_from: int):
    each = overload(most)
    assert each.full == full
    each.streams = crowded_from - 1
    each.beat(0.0)
    assert each.crowded is False
    each.streams = crowded_from
    each.beat(0.0)
    assert each.crowded is True


def test_without_a_bound_there_is_none():
    each = overload()
    each.streams = 10**9
    each.beat(0.0)
    assert each.crowded is False
    assert each.streams < each.full


@pytest.mark.parametrize("reason", [CONNECTIONS, STREAMS, LAG, BODIES])
def test_a_refusal_says_when_to_come_back_and_is_counted(reason: str):
    each = overload()
    fault = each.refuse(reason)
    assert (fault.kind, fault.retry_after) == (Kind.OVERLOADED, 1.0)
    assert {name: count for name, count in each.refused.items() if count} == {reason: 1}
