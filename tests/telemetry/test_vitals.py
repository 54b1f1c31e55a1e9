"""Health by traffic."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.telemetry.vitals import FAILURES, FALL, MEMORY, Vitals, joint

DOWN = Fault(Kind.UPSTREAM_CONNECT, "refused")


def vitals(*names: str) -> Vitals:
    made = Vitals()
    made.adopt(names)
    return made


def test_a_provider_nobody_used_is_healthy_without_a_latency() -> None:
    assert vitals("a").report() == {"a": (True, None)}


def test_a_provider_that_waits_for_credentials_is_not_healthy_until_they_come() -> None:
    made = vitals("a", "b")
    made.adopt(("a", "b"), frozenset({"a"}))
    assert made.report() == {"a": (False, None), "b": (True, None)}
    made.adopt(("a", "b"))
    assert made.report() == {"a": (True, None), "b": (True, None)}


def test_five_failures_in_a_row_and_one_answer() -> None:
    made = vitals("a")
    for number in range(FALL):
        assert made.report()["a"][0], number
        made.failed("a", DOWN)
    assert not made.report()["a"][0]
    made.answered("a", 100.0)
    assert made.report()["a"] == (True, 100.0)


def test_an_answer_in_between_starts_anew() -> None:
    made = vitals("a")
    for _ in range(3 * FALL):
        made.failed("a", DOWN)
        made.answered("a", 1.0)
    assert made.report()["a"][0]


def test_latency_follows_slowly_and_arrives() -> None:
    made = vitals("a")
    made.answered("a", 100.0)
    made.answered("a", 900.0)
    assert made.report()["a"][1] == 200.0
    for _ in range(100):
        made.answered("a", 900.0)
    assert round(made.report()["a"][1] or 0) == 900


def test_a_reload_keeps_what_is_known_of_those_that_stay() -> None:
    made = vitals("a", "b")
    made.answered("a", 50.0)
    made.failed("b", DOWN)
    made.adopt(("a", "c"))
    assert made.report() == {"a": (True, 50.0), "c": (True, None)}
    made.failed("b", DOWN)
    made.answered("b", 1.0)
    assert "b" not in made.report()


@pytest.mark.parametrize(
    "fault",
    [*(Fault(kind, "no") for kind in Kind if kind not in FAILURES), Fault(Kind.TIMEOUT, "no", code="request_timeout")],
    ids=lambda fault: fault.code,
)
def test_no_client_can_make_a_provider_look_ill(fault: Fault) -> None:
    """Nor is a rate limit an illness; and nothing of the caller's counts."""
    made = vitals("a")
    for _ in range(3 * FALL):
        made.failed("a", fault)
    assert made.report()["a"][0]


def test_what_is_no_answer_does_not_heal_either() -> None:
    made = vitals("a")
    for _ in range(FALL):
        made.failed("a", DOWN)
        made.failed("a", Fault(Kind.UPSTREAM_RATE_LIMIT, "no"))
    assert not made.report()["a"][0]


def test_a_latency_is_forgotten_when_nobody_was_answered_for_long() -> None:
    made = vitals("a", "b")
    made.answered("a", 100.0)
    made.age(1000.0)
    made.age(1000.0 + MEMORY)
    assert made.report()["a"] == (True, 100.0)
    made.answered("a", 100.0)
    made.age(1001.0 + MEMORY)
    made.age(1000.0 + 2 * MEMORY)
    assert made.report()["a"] == (True, 100.0)
    made.age(1002.0 + 2 * MEMORY)
    assert made.report() == {"a": (True, None), "b": (True, None)}
    made.answered("a", 50.0)
    assert made.report()["a"] == (True, 50.0), "the mean begins anew"


def test_a_failure_is_not_forgotten_with_it() -> None:
    made = vitals("a")
    for _ in range(FALL):
        made.failed("a", DOWN)
    made.age(10 * MEMORY)
    assert made.report()["a"] == (False, None)


@pytest.mark.parametrize(
    ("passive", "active", "both"),
    [
        ((True, 5.0), None, (True, 5.0)),
        ((True, 5.0), (True, 9.0), (True, 5.0)),
        ((True, None), (True, 9.0), (True, 9.0)),
        ((True, 5.0), (False, None), (False, 5.0)),
        ((False, None), (True, 9.0), (False, 9.0)),
        ((True, None), (True, None), (True, None)),
    ],
)
def test_healthy_is_what_both_traffic_and_probes_find(passive, active, both) -> None:
    assert joint(passive, active) == both
