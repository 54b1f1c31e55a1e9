"""What stands against a target, told as what happened to it; time is the test's."""

from __future__ import annotations

import math
from time import perf_counter

import pytest

from llm_gateway.core.changes import Change
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.breaker import Terms
from llm_gateway.policies.bucket import Rate
from llm_gateway.policies.gradient import Bounds
from llm_gateway.routing import condition
from llm_gateway.routing.condition import Condition, Conditions


def one(known: Conditions, model: str = "m", key: str = "k", account: str = "s", **more: object) -> Condition:
    return known.of(("p", key, model), (account,), Terms(**more))


def failing(target: Condition, times: int = 5, now: float = 0.0) -> None:
    for _ in range(times):
        target.bad(now, Fault(Kind.UPSTREAM_ERROR, "no"))


@pytest.fixture
def known() -> Conditions:
    return Conditions()


def said(known: Conditions) -> list[str]:
    return [f"{change.what} {change.key}/{change.model}" for change in known.take()]


def test_nothing_stands_against_what_nobody_has_asked(known):
    assert repr(one(known)) == "<Condition of p/m free, 0 busy, <Breaker closed 0 in a row>>"
    assert not one(known).until


def test_five_failures_open_it_and_a_good_probe_closes_it(known):
    target = one(known)
    failing(target)
    assert target.until
    assert not target.admit(9.0, 0.0)
    assert target.admit(10.0, 0.0)
    target.good(10.5)
    assert said(known) == ["breaker_opened k/m", "breaker_closed k/m"]
    assert target.why(10.5) == "recovering for 10.0 s"
    assert target.troubled, "what comes of its next calls is looked at"
    assert target.admit(21.0, 0.99)
    assert not target.until
    for at in range(60):
        target.good(50.0 + at)
    assert not target.troubled, "the hot path need not tell its good calls any more"


def test_a_429_that_says_when_is_kept_to_the_second_and_counts_as_no_failure(known):
    target = one(known)
    target.bad(100.0, Fault(Kind.UPSTREAM_RATE_LIMIT, "slow down", retry_after=30.0))
    assert not target.admit(129.9, 0.0)
    assert not target.knock(129.9), "not even where nobody else is left"
    assert target.wait(110.0) == 20.0
    assert target.admit(130.0, 0.0)
    assert target.breaker.row == 0


def test_a_429_that_does_not_say_when_holds_nothing(known):
    target = one(known)
    target.bad(100.0, Fault(Kind.UPSTREAM_RATE_LIMIT, "slow down"))
    assert not target.until


def test_an_absurd_retry_after_is_an_hour(known):
    target = one(known)
    target.bad(0.0, Fault(Kind.UPSTREAM_RATE_LIMIT, "slow down", retry_after=1e9))
    assert target.until == 3600.0


def test_a_refused_key_is_left_alone_everywhere(known):
    one_model, other = one(known), one(known, "n")
    one_model.bad(0.0, Fault(Kind.UPSTREAM_AUTH, "who?", status=401))
    assert not other.admit(1.0, 0.0)
    assert not one(known, "new").admit(1.0, 0.0), "also for models asked for later"
    assert one(known, key="other").admit(1.0, 0.0)
    assert said(known) == ["key_disabled k/"], "said once, of the whole key"
    assert other.admit(300.0, 0.0), "then one call finds out"


def test_a_forbidden_model_says_nothing_of_the_key(known):
    one_model, other = one(known), one(known, "n")
    one_model.named = True
    one_model.bad(0.0, Fault(Kind.UPSTREAM_AUTH, "not for you", status=403))
    assert not one_model.admit(1.0, 0.0)
    assert not other.until, "or any client could disable a key by naming a model"
    assert not one(known, "later").until, "nor one that is asked for later"
    assert said(known) == ["key_disabled k/m"]


def test_a_good_call_gives_the_key_back(known):
    target, other = one(known), one(known, "n")
    target.bad(0.0, Fault(Kind.UPSTREAM_QUOTA, "empty", status=402))
    assert target.knock(2.0)
    target.good(2.1)
    assert not target.holds
    assert not other.holds
    assert said(known) == ["key_disabled k/", "key_restored k/"]


def test_another_key_or_address_under_the_same_name_starts_afresh(known):
    failing(one(known))
    assert one(known).until
    assert not one(known, account="rotated").until


def test_callers_faults_and_clients_deadlines_say_nothing(known):
    target = one(known)
    for fault in (Fault(Kind.INVALID, "bad"), Fault(Kind.TIMEOUT, "late", code="request_timeout"), Fault(Kind.CONTEXT_LENGTH, "long")):
        for _ in range(9):
            target.bad(0.0, fault)
    assert not target.until


def test_what_another_worker_found_holds_here_and_is_not_told_again(known):
    target = one(known)
    known.hear(Change("p", "k", "m", "breaker_opened", 10.0), 5.0)
    assert not target.admit(14.0, 0.0)
    known.hear(Change("p", "k", "m", "breaker_closed"), 14.5)
    assert target.admit(14.6, 0.05), "though a share of the calls first"
    known.hear(Change("p", "", "", "provider_down"), 15.0)
    assert target.holds["down"] == math.inf
    assert target.knock(17.0), "with nobody else it is asked now and then"
    known.hear(Change("p", "", "", "provider_up"), 18.0)
    known.hear(Change("q", "", "", "provider_down"), 18.0)
    assert "down" not in target.holds
    assert known.take() == []


def test_bounds_are_found_per_target(known):
    target = known.of(("p", "k", "m"), (), Terms(), Bounds(initial=4))
    assert target.gradient is not None
    limit = target.gradient.limit
    target.bad(0.0, Fault(Kind.UPSTREAM_RATE_LIMIT, "full"))
    assert target.gradient.limit <= limit
    assert known.of(("p", "k", "m"), (), Terms(), Bounds(initial=8)).gradient.limit == 8, "a reload may change it"
    assert known.of(("p", "k", "m"), (), Terms()).gradient is None, "or turn it off"


def test_names_that_clients_choose_cannot_fill_memory(known, monkeypatch):
    monkeypatch.setattr(condition, "MOST", 50)
    failing(one(known, "broken"))
    for number in range(500):
        one(known, f"any-{number}")
    assert len(known) <= 51
    assert one(known, "broken").until, "what is known of trouble is kept longest"


def test_what_others_found_holds_for_targets_that_nobody_asked_for_yet(known):
    now = perf_counter()
    for change in (
        Change("p", "k", "m", "breaker_opened", 30.0), Change("p", "k", "over", "breaker_opened", 30.0), Change("p", "k", "over", "breaker_closed"),
        Change("p", "lost", "", "key_disabled", 30.0), Change("other", "", "", "provider_down"),
    ):  # fmt: skip
        known.hear(change, now)
    assert one(known).holds.keys() == {"breaker"}
    assert not one(known).admit(now + 1, 0.0)
    assert not one(known, "over").holds
    assert one(known, key="lost").holds.keys() == {"key"}
    assert known.changes == [], "nobody is told what he told"
    known.forget(["p"])
    assert not one(known, "m", account="rotated").until


def test_what_names_a_client_made_up_is_told_to_nobody(known):
    target = one(known, "made-up-1")
    target.bad(0.0, Fault(Kind.UPSTREAM_AUTH, "not for you", status=403))
    assert target.until
    assert known.take() == [], "or events and webhooks would be the client's to fill"


def test_one_that_answers_well_is_not_lost_to_a_refusal_that_may_be_the_requests_own(known):
    target = one(known)
    target.breaker.good = 1
    quoting = Fault(Kind.UPSTREAM_AUTH, "Invalid value: 'no auth'", status=400)
    target.bad(0.0, quoting)
    target.bad(0.0, quoting)
    target.good(0.1)
    target.bad(0.2, quoting)
    target.bad(0.2, quoting)
    assert not target.until
    target.bad(0.3, quoting)
    assert target.holds.keys() == {"model"}
    assert not one(known, "n").until, "and never the whole key"


def test_what_the_configuration_names_no_client_can_have_forgotten(known, monkeypatch):
    monkeypatch.setattr(condition, "MOST", 50)
    ours = one(known, "ours")
    ours.named = True
    for number in range(500):
        one(known, f"any-{number}")
    assert one(known, "ours") is ours
    assert known.forgotten > 5
    known.hear(Change("p", "k", "ours", "cooling", 5.0), 0.0)
    assert ours.holds.keys() == {"cooling"}


def test_new_credentials_are_tried_at_once(known):
    target = one(known)
    target.bad(0.0, Fault(Kind.UPSTREAM_AUTH, "expired", status=401))
    known.forget(["q"])
    assert target.holds
    known.forget(["p"])
    assert not target.until


def test_a_new_operator_says_anew_what_is_down(known):
    target, now = one(known), perf_counter()
    known.hear(Change("p", "", "", "provider_down"), now)
    known.doubt()
    assert not target.until, "the one that would have said up is gone"
    assert not one(known, "later").until
    known.hear(Change("p", "", "", "provider_down"), now)
    assert one(known, "latest").holds.keys() == {"down"}


def test_a_hold_that_came_with_the_key_ends_with_a_good_call(known):
    one(known).bad(perf_counter(), Fault(Kind.UPSTREAM_AUTH, "who?", status=401))
    later = one(known, "later")
    assert later.troubled, "else its good calls would be told to nobody"
    later.good(perf_counter())
    assert not later.until
    assert not one(known).until


def test_what_has_ended_by_itself_is_not_said_to_stand(known):
    target = one(known)
    target.cool(0.0, 5.0, "429")
    assert (target.why(1.0), target.held(1.0)) == ("cooling for 4.0 s", ["cooling"])
    assert (target.why(6.0), target.held(6.0)) == ("", [])
    failing(target, now=6.0)
    assert target.why(7.0).startswith("breaker for ")
    assert (target.why(17.0), target.held(17.0)) == ("breaker half-open", ["breaker"])


def test_no_prompt_takes_more_than_a_bucket(known):
    target = one(known)
    target.allowances = (known.allowance(("p",), Rate(tokens=600)),)
    assert target.full(1.0, 5_000_000) == 0.0
    assert target.take(1.0, 5_000_000) == 600
    assert target.full(1.0, 10) == pytest.approx(1.0), "a second, not a week"


def test_what_a_call_did_not_use_of_a_providers_limits_is_there_for_others(known):
    """Of every limit it counts against: here the provider's and its own."""
    target, other = one(known), one(known, "other")
    all_of_it, its_own = known.allowance(("p",), Rate(tokens=100)), known.allowance(("p", "m"), Rate(requests=2, tokens=80))
    target.allowances, other.allowances = (all_of_it, its_own), (all_of_it,)
    assert target.take(1.0, 90) == 80
    assert other.full(1.0, 30) == pytest.approx(6.0)
    target.correct(-70)
    assert other.full(1.0, 90) == 0.0
    assert target.full(1.0, 70) == 0.0
    target.take(1.0, 70)
    assert target.full(1.0, 0) == pytest.approx(30.0), "two requests"
    target.give_back(70)
    assert (target.full(1.0, 70), other.full(1.0, 90)) == (0.0, 0.0)


def test_a_good_call_to_whom_probes_do_not_reach_says_that_it_is_there(known):
    target = one(known)
    known.hear(Change("p", "", "", "provider_down"), 5.0)
    assert target.why(6.0) == "down"
    assert target.knock(6.0)
    target.good(6.5)
    assert not target.until


def test_refused_keys_and_429s_stand_against_nobody_where_the_configuration_says_so(known):
    target = one(known, key_ejection=0.0, cooling=False)
    target.bad(1.0, Fault(Kind.UPSTREAM_AUTH, "who are you", status=401))
    target.bad(1.0, Fault(Kind.UPSTREAM_RATE_LIMIT, "slow down", retry_after=30.0))
    assert (target.until, target.holds) == (0.0, {})


def test_a_refused_key_is_refused_for_models_that_nobody_asked_for_yet(known):
    one(known).bad(perf_counter(), Fault(Kind.UPSTREAM_AUTH, "who are you", status=401))
    fresh, other = one(known, "fresh"), one(known, "fresh", key="other")
    assert fresh.until > perf_counter()
    assert not other.until


@pytest.mark.parametrize("model", ["", "m"])
def test_a_key_that_another_worker_lost_is_back_when_that_is_told(known, model):
    target, beside = one(known), one(known, "beside")
    known.hear(Change("p", "k", model, "key_disabled"), 5.0)
    assert [bool(each.until) for each in (target, beside)] == [True, not model]
    assert not target.admit(1e9, 0.0), "whenever"
    known.hear(Change("p", "k", model, "key_restored"), 6.0)
    assert [each.until for each in (target, beside)] == [0.0, 0.0]
