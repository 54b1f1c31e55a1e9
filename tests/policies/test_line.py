"""Who is next: priority, then tenants in turn, then first come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.line import Line


def names(line: Line) -> str:
    return " ".join(ticket.item for ticket in line.order())


def test_tenants_take_turns_however_many_one_sends():
    line = Line()
    for item in ("a1", "a2", "a3", "a4"):
        line.join(item, "a", 0)
    line.join("b1", "b", 0)
    line.join("b2", "b", 0)
    assert names(line) == "a1 b1 a2 b2 a3 a4"


def test_turns_are_by_cost():
    line = Line()
    for item in ("a1", "a2"):
        line.join(item, "a", 0, cost=10)
    for item in ("b1", "b2", "b3"):
        line.join(item, "b", 0, cost=1)
    assert names(line) == "a1 b1 b2 b3 a2"


def test_priority_goes_first():
    line = Line()
    line.join("low", "a", -1)
    line.join("normal", "a", 0)
    line.join("high", "b", 1)
    assert names(line) == "high normal low"


def test_who_comes_later_starts_behind_who_was_served():
    line = Line()
    first = [line.join(f"a{n}", "a", 0) for n in range(4)]
    line.serve(first[0])
    line.serve(first[1])
    for item in ("b1", "b2", "b3"):
        line.join(item, "b", 0)
    assert names(line) == "b1 a2 b2 a3 b3", "a newcomer does not get what it did not ask for before"


def test_who_has_left_is_passed_over_wherever_it_stood():
    line = Line()
    tickets = [line.join(f"a{n}", "a", 0) for n in range(4)]
    line.leave(tickets[2])
    line.serve(tickets[1])
    assert (names(line), len(line)) == ("a0 a3", 2)


def test_with_nobody_left_all_is_forgotten():
    line = Line()
    tickets = [line.join("a", "a", 0, cost=100) for _ in range(3)]
    for ticket in tickets:
        line.leave(ticket)
        line.leave(ticket)
    assert len(line) == 0
    line.join("a", "a", 0)
    line.join("b", "b", 0)
    assert names(line) == "a b"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.floats(0.1, 9)), max_size=40), st.data())
def test_everybody_who_waits_is_served_once(joins, data):
    line = Line()
    tickets = [line.join(n, tenant, priority, cost) for n, (tenant, priority, cost) in enumerate(joins)]
    gone = set(data.draw(st.sets(st.integers(0, max(0, len(joins) - 1)), max_size=len(joins)))) if joins else set()
    for n in gone:
        line.leave(tickets[n])
    served = []
    while len(line):
        ticket = line.order()[0]
        served.append(ticket.item)
        line.serve(ticket)
    assert sorted(served) == sorted(set(range(len(joins))) - gone)
