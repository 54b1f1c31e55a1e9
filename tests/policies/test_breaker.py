"""The breaker as a table of what happens to it, and what it prints then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.policies.breaker import Breaker, Terms

HALF = 0.5


def failed(breaker: Breaker, times: int, now: float = 0.0) -> Breaker:
    for _ in range(times):
        breaker.fail(now)
    return breaker


def test_it_opens_at_the_fifth_failure_in_a_row():
    breaker = failed(Breaker(Terms()), 4)
    assert breaker.admit(1.0, HALF)
    assert breaker.fail(1.0)
    assert repr(breaker) == "<Breaker open 1x until 11>"
    assert not breaker.admit(10.9, HALF)


def test_one_success_between_begins_the_row_anew():
    breaker = failed(Breaker(Terms()), 4)
    breaker.succeed(0.0)
    assert not breaker.fail(0.0)
    assert repr(breaker) == "<Breaker closed 1 in a row>"


def test_it_opens_when_half_of_twenty_fail_within_the_window():
    breaker = Breaker(Terms(consecutive=0))
    opened = []
    for at in range(20):
        breaker.succeed(at / 10)
        opened.append(breaker.fail(at / 10))
    assert opened.index(True) == 9, "ten of each"


def test_what_was_before_the_window_is_forgotten():
    breaker = failed(Breaker(Terms(consecutive=0)), 19, now=100.0)
    assert not breaker.fail(131.0), "those nineteen were more than 30 s ago"


def test_what_is_within_the_window_counts_in_both_its_halves():
    breaker = failed(Breaker(Terms(consecutive=0)), 10, now=100.0)
    assert [breaker.fail(116.0) for _ in range(10)] == [False] * 9 + [True]


def test_good_calls_after_a_pause_count_too():
    breaker = Breaker(Terms(consecutive=0))
    for _ in range(30):
        breaker.succeed(140.0)
    assert [breaker.fail(141.0) for _ in range(30)] == [False] * 29 + [True]


def test_one_probe_decides():
    breaker = failed(Breaker(Terms()), 5)
    assert breaker.admit(10.0, HALF)
    assert repr(breaker) == "<Breaker half-open 1x until 10>"
    assert not breaker.admit(10.0, HALF), "one probe at a time"
    assert breaker.fail(10.5), "a probe that fails opens it again,"
    assert breaker.until == 30.5, "for twice as long"
    assert breaker.admit(31.0, HALF)
    assert breaker.succeed(31.5)
    assert repr(breaker) == "<Breaker recovering 0 in a row>"


def test_a_recovering_upstream_gets_a_share_that_grows():
    breaker = failed(Breaker(Terms()), 5)
    breaker.admit(10.0, HALF)
    breaker.succeed(10.0)
    assert [breaker.admit(10.0 + at, 0.45) for at in (0, 2, 4, 5, 9)] == [False, False, False, True, True]
    assert breaker.admit(20.0, 0.99)
    assert repr(breaker) == "<Breaker closed 0 in a row>"
    assert breaker.opened == 0


def test_a_failure_while_recovering_opens_it_for_longer():
    breaker = failed(Breaker(Terms()), 5)
    breaker.admit(10.0, HALF)
    breaker.succeed(10.0)
    assert breaker.fail(12.0)
    assert breaker.until == 32.0


def test_it_is_never_left_alone_for_longer_than_the_cap():
    breaker = Breaker(Terms())
    now = 0.0
    for _ in range(100):
        now = max(now, breaker.until)
        breaker.admit(now, HALF)
        failed(breaker, 5, now)
    assert breaker.until - now == 300.0


def test_what_another_process_found_is_an_ejection_too_however_often_it_is_told():
    breaker = Breaker(Terms())
    breaker.trip(0.0, 10.0)
    breaker.trip(1.0, 9.0)
    assert not breaker.admit(9.9, HALF)
    assert breaker.admit(10.0, HALF)
    assert breaker.fail(10.5)
    assert breaker.until == 30.5


def test_calls_that_were_under_way_when_it_opened_change_nothing():
    breaker = failed(Breaker(Terms()), 5)
    until = breaker.until
    assert not breaker.fail(5.0)
    assert not breaker.succeed(5.0)
    assert (breaker.open, breaker.until) == (True, until)


def test_with_nobody_else_one_call_a_second_finds_out():
    breaker = failed(Breaker(Terms()), 5)
    assert [breaker.knock(at) for at in (0.5, 1.0, 1.1)] == [False, True, False]
    breaker.fail(1.2)
    assert [breaker.knock(at) for at in (1.3, 2.3)] == [False, True]
    assert breaker.succeed(2.4)


def test_while_that_one_is_under_way_no_other_is_sent_however_long_it_takes():
    breaker = failed(Breaker(Terms()), 5)
    assert [breaker.knock(at) for at in (1.0, 2.5, 60.0)] == [True, False, False]


def test_so_it_is_where_something_else_stands_against_it():
    breaker = Breaker(Terms())
    assert [breaker.knock(at, held=False) for at in (5.0, 5.1)] == [True, True]
    assert [breaker.knock(at, held=True) for at in (5.2, 5.3, 6.3)] == [True, False, False]
    breaker.fail(6.4)
    assert breaker.knock(6.5, held=True)
    breaker.succeed(6.6)
    assert [breaker.knock(at, held=True) for at in (7.0, 7.6)] == [False, True]


def test_without_a_time_to_recover_all_calls_go_there_again_at_once():
    breaker = failed(Breaker(Terms(recovery=0.0)), 5)
    breaker.admit(10.0, HALF)
    breaker.succeed(10.0)
    assert breaker.admit(10.0, 0.99)


def test_a_probe_without_a_verdict_is_forgotten():
    breaker = failed(Breaker(Terms()), 5)
    assert breaker.knock(1.0)
    breaker.forget()
    assert breaker.knock(2.0)


def test_panic_asks_whatever_it_says():
    breaker = failed(Breaker(Terms(panic=True)), 5)
    assert all(breaker.knock(0.1) for _ in range(5))


def test_disabled_it_never_opens():
    breaker = failed(Breaker(Terms(enabled=False)), 50)
    assert breaker.admit(0.0, HALF)


@given(st.lists(st.tuples(st.sampled_from(["admit", "knock", "succeed", "fail", "forget"]), st.floats(0, 20), st.floats(0, 1, exclude_max=True)), max_size=60))
def test_whatever_happens_it_can_always_be_closed_again(steps):
    breaker, now = Breaker(Terms()), 0.0
    for step, later, die in steps:
        now += later
        match step:
            case "admit":
                breaker.admit(now, die)
            case "knock":
                breaker.knock(now)
            case "succeed":
                breaker.succeed(now)
            case "fail":
                breaker.fail(now)
            case _:
                breaker.forget()
        assert breaker.until - now <= 300.0
    breaker.forget()
    now += 301.0
    assert breaker.admit(now, 0.0)
    breaker.succeed(now)
    assert breaker.admit(now + 10.0, 0.99)
    assert not breaker.open
