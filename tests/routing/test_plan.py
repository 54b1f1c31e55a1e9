"""One request's walk: tests are the walks, written as what failed and where it went next."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.breaker import Terms
from llm_gateway.policies.retry import STALE, Policy
from llm_gateway.routing.condition import Conditions
from llm_gateway.routing.plan import Course, Tally
from routing.conftest import asked

MODELS = """
providers:
  one: {type: openai_compatible, base_url: "http://127.0.0.1:1", keys: [{key: k1, name: a}, {key: k2, name: b}]}
  two: {type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k3}
models:
  m: {targets: [one/x], fallbacks: [two/y]}
"""
AT_ONCE = Policy(base=0.0)


@pytest.fixture
def course(table):
    def made(policy: Policy = AT_ONCE, tally: Tally | None = None) -> Course:
        plan, _ = table(MODELS).course(asked("m"))
        targets = plan.targets(0)
        tally = tally or Tally()
        tally.active += 1
        return Course(targets, policy, tally, targets[0])

    return made


def walk(course: Course, *faults: Fault | Kind, left: float = 100.0) -> str:
    """Where each fault leads, e.g. `one.a one.b two.0`; `!` where it is given up."""
    way = [f"{course.target.provider}.{course.target.key_id}"]
    for each in faults:
        fault = each if isinstance(each, Fault) else Fault(each, "no")
        try:
            course.failed(fault, left)
        except Fault:
            return " ".join([*way, "!"])
        way.append(f"{course.target.provider}.{course.target.key_id}")
    return " ".join(way)


def test_what_may_pass_is_tried_twice_more_then_moved_on_from(course) -> None:
    one = course()
    assert walk(one, *[Kind.OVERLOADED] * 5) == "one.a one.a one.a two.0 two.0 !"
    assert (one.attempts, one.fallbacks) == (5, 1), "five attempts in all, none wasted on another key to a broken provider"


def test_where_there_is_only_another_key_it_is_tried(table) -> None:
    _, one = table(MODELS).course(asked("one/x"))
    one.policy = AT_ONCE
    first, second = (target.key_id for target in one.targets)
    assert walk(one, *[Kind.OVERLOADED] * 5) == f"one.{first} one.{first} one.{first} one.{second} one.{second} !"
    assert one.fallbacks == 0, "another key is no fallback"


@pytest.mark.parametrize("kind", [Kind.UPSTREAM_TLS, Kind.UPSTREAM_DNS, Kind.UPSTREAM_CONNECT, Kind.UNAVAILABLE])
def test_where_nobody_is_reached_the_next_target_is_asked_at_once(course, kind: Kind) -> None:
    assert walk(course(), kind).startswith("one.a two.0")


@pytest.mark.parametrize("kind", [Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA, Kind.UPSTREAM_NO_MODEL])
def test_what_is_the_keys_trouble_goes_to_the_next_key_then_the_next_target_at_once(course, kind: Kind) -> None:
    one = course()
    assert walk(one, kind, kind, kind) == "one.a one.b two.0 !"
    assert one.fallbacks == 1


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.blame == "caller"])
def test_a_callers_fault_ends_it(course, kind: Kind) -> None:
    assert walk(course(), kind) == "one.a !"


def test_each_target_has_retries_of_its_own(course) -> None:
    one = course(Policy(base=0.0, max_attempts=20))
    assert walk(one, *[Kind.OVERLOADED] * 9) == "one.a one.a one.a two.0 two.0 two.0 !"


def test_a_long_retry_after_moves_on(course) -> None:
    limited = Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=30.0)
    assert walk(course(), limited, limited, limited) == "one.a one.b two.0 !"


def test_a_short_retry_after_is_waited_out(course) -> None:
    one = course()
    assert one.failed(Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=1.5), 100.0) == 1.5
    assert repr(one) == "<Course attempt 2 at <Target one/x key a>>"


def test_a_wait_that_does_not_fit_before_the_deadline_is_not_waited(course) -> None:
    one = course()
    assert walk(one, Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=1.5), left=1.0) == "one.a one.b"


def test_after_the_deadline_nothing_is_tried(course) -> None:
    assert walk(course(), Kind.UPSTREAM_AUTH, left=0.0) == "one.a !"


def test_with_the_budget_spent_it_moves_on_instead_of_asking_again(course) -> None:
    tally = Tally()
    policy = Policy(base=0.0, budget=0.0, budget_min=1)
    first, second = course(policy, tally), course(policy, tally)
    assert walk(first, Kind.OVERLOADED, Kind.OVERLOADED) == "one.a one.a one.a"
    assert walk(second, *[Kind.OVERLOADED] * 2) == "one.a two.0 !"
    first.done()
    third = course(policy, tally)
    assert walk(third, Kind.OVERLOADED) == "one.a one.a"


def test_connections_that_died_of_age_are_replaced_whatever_the_budget(course) -> None:
    """An upstream that restarts closes all idle connections at once; every request that meets one gets another."""
    tally, policy = Tally(), Policy(base=0.0, budget=0.0, budget_min=0)
    for one in [course(policy, tally) for _ in range(20)]:
        assert walk(one, Fault(Kind.UPSTREAM_CONNECT, "closed", code=STALE)) == "one.a one.a"
    assert tally.retrying == 0


def test_when_the_first_target_is_dead_everybody_is_served_by_the_next(course) -> None:
    """Moving on is not budgeted: else 80 of 100 clients of a dead provider would get its error."""
    tally = Tally()
    walks = [course(Policy(base=0.0), tally) for _ in range(100)]
    served = 0
    for each in walks:
        while each.target.provider == "one":
            each.failed(Fault(Kind.OVERLOADED, "no"), 100.0)
        served += 1
    assert served == 100
    retries = sum(each.attempts - 2 for each in walks)
    assert retries <= 20 * 2, "at most a fifth of them asked the dead one again"


def test_a_tally_comes_back_to_nothing(course) -> None:
    tally = Tally()
    walks = [course(AT_ONCE, tally) for _ in range(7)]
    for each in walks:
        walk(each, Kind.OVERLOADED, Kind.UPSTREAM_AUTH)
    assert (tally.active, tally.retrying) == (7, 3)
    for each in walks:
        each.done()
    assert (tally.active, tally.retrying) == (0, 0)


@settings(max_examples=200)
@given(
    faults=st.lists(st.tuples(st.sampled_from(list(Kind)), st.one_of(st.none(), st.floats(0, 10))), max_size=30),
    most=st.integers(1, 8),
    left=st.floats(-1, 20),
)
def test_every_walk_is_bounded_and_only_goes_forward(faults, most: int, left: float) -> None:
    class Place:
        """All that a walk reads of a target."""

        class limits:  # noqa: N801
            retries = 2

        def __init__(self, provider: str) -> None:
            self.provider, self.model = provider, "m"
            self.condition = Conditions().of((provider, "k", "m"), (), Terms())

    targets = [Place(name) for name in "aabc"]
    policy = Policy(max_attempts=most)
    walked = Course(targets, policy, Tally(), targets[0])  # type: ignore[arg-type]
    before = 0
    for kind, after in faults:
        try:
            wait = walked.failed(Fault(kind, "no", retry_after=after), left)
        except Fault:
            break
        assert kind.blame != "caller"
        assert 0 <= wait < left
        assert before <= walked.place < len(targets)
        assert walked.fallbacks == max(0, walked.place - 1), "the second a is another key, no fallback"
        before = walked.place
    assert walked.attempts <= most
