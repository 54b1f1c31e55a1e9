"""What still holds, for those that come later."""

from __future__ import annotations

from llm_gateway.core.changes import Change, What
from llm_gateway.policies import standing as module
from llm_gateway.policies.standing import ENDS, FAMILIES, Standing

OPENED = Change("a", "k", "m", "breaker_opened", 10.0, "5 failures")


def held(standing: Standing, now: float) -> list[tuple[str, str, float]]:
    return [(change.provider, change.what, change.seconds) for change in standing.holding(now)]


def test_what_has_an_end_is_told_with_what_is_left_of_it() -> None:
    standing = Standing()
    standing.note([OPENED], 100.0)
    assert held(standing, 104.0) == [("a", "breaker_opened", 6.0)]
    assert held(standing, 110.0) == []


def test_what_has_no_end_holds_until_its_opposite() -> None:
    standing = Standing()
    standing.note([Change("a", "k", "", "key_disabled"), Change("b", "", "", "provider_down")], 0.0)
    assert held(standing, 1e9) == [("a", "key_disabled", 0.0), ("b", "provider_down", 0.0)]
    standing.note([Change("a", "k", "", "key_restored"), Change("b", "", "", "provider_up")], 0.0)
    assert held(standing, 0.0) == []


def test_the_last_one_counts_and_kinds_and_models_are_apart() -> None:
    standing = Standing()
    standing.note([OPENED, Change("a", "k", "m", "breaker_opened", 20.0), Change("a", "k", "m", "cooling", 5.0)], 0.0)
    standing.note([Change("a", "k", "n", "breaker_closed"), Change("a", "l", "", "breaker_closed")], 0.0)
    assert held(standing, 0.0) == [("a", "breaker_opened", 20.0), ("a", "cooling", 5.0)]


def test_what_ends_for_a_whole_key_ends_for_its_models() -> None:
    standing = Standing()
    standing.note([Change("a", "k", "m", "key_disabled"), Change("a", "l", "m", "key_disabled"), OPENED], 0.0)
    standing.note([Change("a", "k", "", "key_restored")], 0.0)
    assert [(each.key, each.what) for each in standing.holding(0.0)] == [("l", "key_disabled"), ("k", "breaker_opened")]


def test_cooling_without_an_end_is_over() -> None:
    standing = Standing()
    standing.note([Change("a", "k", "m", "cooling", 5.0), Change("a", "k", "m", "cooling")], 0.0)
    assert held(standing, 0.0) == []


def test_keys_of_a_provider_that_became_another_are_forgotten() -> None:
    standing = Standing()
    standing.note([OPENED, Change("b", "k", "m", "cooling", 5.0), Change("a", "", "", "provider_down")], 0.0)
    standing.forget(["a", "c"])
    assert held(standing, 0.0) == [("b", "cooling", 5.0), ("a", "provider_down", 0.0)]
    assert repr(standing) == "<Standing b/k cooling, a/ provider_down>"


def test_every_change_has_its_kind_and_every_end_a_beginning() -> None:
    assert set(FAMILIES) == set(What.__args__)
    for end in ENDS:
        assert [what for what, family in FAMILIES.items() if family == FAMILIES[end] and what not in ENDS]


def test_one_target_is_asked_about_without_looking_at_all() -> None:
    standing = Standing()
    standing.note([OPENED, Change("a", "", "", "provider_down"), Change("b", "k", "m", "cooling", 5.0), Change("a", "k", "", "key_disabled", 9.0)], 0.0)
    assert {each.what for each in standing.about(("a", OPENED.key, OPENED.model), 1.0)} == {"breaker_opened", "provider_down", "key_disabled"}
    assert {each.what for each in standing.about(("a", "other", "m"), 1.0)} == {"provider_down"}
    assert standing.about(("b", "k", "m"), 5.0) == []
    standing.doubt()
    assert standing.about(("a", "other", "m"), 1.0) == []


def test_it_does_not_grow_with_names_that_clients_make_up(monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST", 50)
    standing = Standing()
    standing.note([Change("a", "", "", "provider_down")], 0.0)
    for number in range(500):
        standing.note([Change("a", "k", f"any-{number}", "cooling", 30.0)], float(number) / 100)
        assert len(standing.holding(0.0)) <= 51
    assert Change("a", "", "", "provider_down") in standing.holding(0.0), "what lasts longest is kept"
