"""Which target comes first, by strategy and request: wired from configuration text, as the worker does it."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Pin, Principal
from llm_gateway.routing.group import LOOK
from routing.conftest import asked

TWO = """
server: {{region: eu-west-1, zone: eu-west-1a}}
providers:
  a: {{type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k{a}}}
  b: {{type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k{b}}}
  c: {{type: openai_compatible, base_url: "http://127.0.0.1:3", api_key: k{c}}}
models:
  m: {{strategy: {strategy}, targets: [{targets}]{more}}}
  big: {{targets: [c/large]}}
{sections}
"""


@pytest.fixture
def made(table):
    def build(strategy: str = "priority", targets: str = "a/x, b/y, c/z", more: str = "", sections: str = "", **regions: str):
        where = {name: f", region: {regions[name]}" if name in regions else "" for name in "abc"}
        return table(TWO.format(strategy=strategy, targets=targets, more=more and f", {more}", sections=sections, **where))

    return build


def order(table, **more: object) -> str:
    return "".join(target.provider for target in table.course(asked("m", **more))[1].targets)


def first(table, times: int = 300, **more: object) -> Counter[str]:
    return Counter(order(table, **more)[0] for _ in range(times))


def learned(table, provider: str, *, first_token: float = 0.0, whole: float = 1.0, output: int = 100, now: float) -> None:
    (target,) = [each for each in table.plan("m").targets(0) if each.provider == provider]
    for _ in range(10):
        target.condition.measured(now, first_token, whole, output)
    time.sleep(LOOK * 1.5)


@pytest.fixture
def now() -> float:
    from time import perf_counter

    return perf_counter()


def test_priority_is_the_order_written(made):
    assert order(made()) == "abc"


def test_weighted_shares(made):
    shares = first(made("weighted", "{target: a/x, weight: 8}, {target: b/y, weight: 2}"), 3000)
    assert shares["a"] / 3000 == pytest.approx(0.8, abs=0.04)


def test_round_robin_takes_each_in_turn(made):
    table = made("round_robin")
    assert [order(table)[0] for _ in range(6)] in (list("abcabc"), list("bcabca"), list("cabcab"))


def test_least_busy_counts_what_is_under_way(made):
    table = made("least_busy")
    for target in table.plan("m").targets(0):
        target.condition.busy = {"a": 3, "b": 1, "c": 2}[target.provider]
    assert order(table) == "bca"


def test_latency_takes_the_soonest_of_two_and_tries_the_unknown(made, now):
    table = made("latency", "a/x, b/y")
    learned(table, "a", first_token=0.2, whole=1.0, now=now)
    assert order(table)[0] == "b", "nobody knows it yet"
    learned(table, "b", first_token=0.5, whole=3.0, now=now)
    assert first(table) == {"a": 300}


def test_who_was_slow_long_ago_is_tried_again(made, now):
    table = made("latency", "a/x, b/y")
    learned(table, "a", first_token=0.2, whole=1.0, now=now)
    learned(table, "b", first_token=0.5, whole=3.0, now=now - 300)
    assert order(table)[0] == "b"


def test_latency_counts_what_is_to_be_written(made, now):
    table = made("latency", "a/x, b/y")
    learned(table, "a", first_token=0.1, whole=10.1, output=100, now=now)  # soon, but slow
    learned(table, "b", first_token=1.0, whole=2.0, output=100, now=now)
    assert order(table)[0] == "b"
    assert order(table, body={"max_tokens": 1})[0] == "a", "one token is there sooner"


def test_cost_takes_the_cheapest_for_this_request(made):
    table = made("cost", sections='prices: {"a/x": {input: 1, output: 10}, "b/y": {input: 5, output: 1}}')
    assert order(table, body={"max_tokens": 1000}) == "bac", "the unpriced last"
    long = {"messages": [{"role": "user", "content": "word " * 20_000}], "max_tokens": 10}
    assert order(table, body=long)[0] == "a"


def test_cost_knows_what_callers_have_in_caches(made):
    table = made("cost", "a/x, b/y", sections='prices: {"a/x": {input: 10, output: 1, cache_read: 0.1}, "b/y": {input: 5, output: 1, cache_read: 5}}')
    me = Principal("me", "t")
    prompt = {"messages": [{"role": "user", "content": "word " * 4_000}], "max_tokens": 10}
    assert order(table, principal=me, body=prompt)[0] == "b"
    from llm_gateway.core.types import Usage

    for _ in range(20):
        x = asked("m", principal=me, usage=Usage(input=1000, cache_read=950, output=9), first_byte=1.0, upstream_started=0.9)
        table.learn(x, table.course(x)[1])
    assert order(table, principal=me, body=prompt)[0] == "a"
    assert order(table, principal=Principal("other", "t"), body=prompt)[0] == "b"


def test_adaptive_weighs_speed_cost_and_errors(made, now):
    table = made("adaptive", "a/x, b/y", sections='prices: {"a/x": {input: 1, output: 1}, "b/y": {input: 2, output: 2}}')
    learned(table, "a", whole=1.0, now=now)
    learned(table, "b", whole=1.1, now=now)
    assert order(table) == "ab", "half the price"
    for target in table.plan("m").targets(0):
        if target.provider == "a":
            for _ in range(4):
                target.condition.bad(now, Fault(Kind.UPSTREAM_ERROR, "no"))
    time.sleep(LOOK * 1.5)
    assert order(table) == "ba", "but it fails"


def test_a_session_stays_where_it_is_whatever_the_strategy(made):
    table = made("weighted")
    by_session = {name: first(table, 20, headers={b"x-gateway-session": name}) for name in (b"s%d" % n for n in range(40))}
    assert all(len(seen) == 1 for seen in by_session.values())
    assert len({next(iter(seen)) for seen in by_session.values()}) == 3, "and sessions spread"


def test_a_session_stays_with_one_key(table):
    text = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", keys: [{key: k1, name: one}, {key: k2, name: two}, {key: k3, name: three}]}
"""
    made = table(text)
    keys = {made.course(asked("a/x", headers={b"x-gateway-session": b"me"}))[1].target.key_id for _ in range(9)}
    assert len(keys) == 1
    assert len({made.course(asked("a/x"))[1].target.key_id for _ in range(9)}) == 3


def test_keys_by_weight(table):
    text = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", keys: [{key: k1, name: big, weight: 9}, {key: k2, name: small}]}
"""
    made = table(text)
    keys = Counter(made.course(asked("a/x"))[1].target.key_id for _ in range(3000))
    assert keys["big"] / 3000 == pytest.approx(0.9, abs=0.03)


def test_conversations_that_begin_alike_go_where_their_prompt_is_cached(made):
    table = made("round_robin", more="sticky: prefix")
    long = [{"role": "system", "content": "You are a pirate. " * 100}]
    turns = [[*long, {"role": "user", "content": f"Question {n}"}] for n in range(12)]
    assert len({order(table, body={"messages": each})[0] for each in turns}) == 1
    others = {order(table, body={"messages": [{"role": "system", "content": f"{n} " * 1000}]})[0] for n in range(40)}
    assert len(others) == 3


def test_sticky_none_forgets_sessions(made):
    assert len(first(made("round_robin", more="sticky: none"), 9, headers={b"x-gateway-session": b"me"})) == 3


def test_the_nearest_first(made):
    table = made("round_robin", a="us-east-1", b="eu-central-1", c="eu-west-1")
    assert {order(table) for _ in range(9)} == {"cba"}


def test_targets_that_cannot_are_skipped_while_others_can(made):
    table = made(sections='catalogue: {"a/x": {input: [text], tools: false, context: 100}, "b/y": {input: [text, image], context: 100000}}')
    picture = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]}
    assert order(table) == "abc"
    assert order(table, body=picture) == "bc"
    assert order(table, body={"tools": [{"type": "function", "function": {"name": "f"}}]}) == "bc"
    assert order(table, body={"tools": []}) == "abc"
    assert order(table, body={"max_tokens": 5000}) == "bc", "its context would not do"
    about = {"messages": [{"role": "user", "content": 'send {"type": "image_url"} please'}]}
    assert order(table, body=about) == "abc", "who writes about images sends none"


def test_where_nobody_is_said_to_be_able_all_are_asked(made):
    table = made(targets="a/x, b/y", sections='catalogue: {"a/x": {tools: false}, "b/y": {tools: false}}')
    assert order(table, body={"tools": [{"type": "function"}]}) == "ab"


RULES = """rules: [{when: {tags: [batch]}, use: big}, {when: {prompt_over: 1000}, use: big}, {when: {tenants: [acme], stream: false}, use: big},
 {when: {needs: [image]}, use: big}]"""


@pytest.mark.parametrize(
    ("more", "goes"),
    [
        ({}, "abc"),
        ({"headers": {b"x-gateway-tags": b"night, batch"}}, "c"),
        ({"headers": {b"x-gateway-tags": b"night"}}, "abc"),
        ({"body": {"messages": [{"role": "user", "content": "word " * 2000}]}}, "c"),
        ({"principal": Principal("k", "acme")}, "c"),
        ({"principal": Principal("k", "acme"), "stream": True}, "abc"),
        ({"body": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}}, "c"),
    ],
)
def test_rules_send_requests_elsewhere(made, more, goes):
    assert order(made(more=RULES), **more) == goes


@pytest.mark.parametrize(("where", "goes"), [("eu", "c"), ("us", "abc"), ("eu-west-1", "c")])
def test_one_file_may_serve_every_region(made, where, goes):
    assert order(made(more=f"rules: [{{when: {{regions: [{where}]}}, use: big}}]")) == goes


def test_tags_that_are_none_are_refused(made):
    with pytest.raises(Fault, match="x-gateway-tags") as refused:
        order(made(more=RULES), headers={b"x-gateway-tags": b"a b"})
    assert (refused.value.kind, refused.value.param) == (Kind.INVALID, "x-gateway-tags")


# -- residency -----------------------------------------------------------------------------------------------------------


def test_an_alias_that_must_stay_stays(made):
    table = made(more="residency: [eu]", a="us-east-1", b="eu-central-1", c="eu-west-2")
    assert order(table) == "b", "and London is not in it"


def test_with_nobody_there_it_is_refused_not_sent_elsewhere(made):
    table = made(more="residency: [eu]", a="us-east-1")
    with pytest.raises(Fault) as refused:
        order(table)
    assert (refused.value.kind, refused.value.code) == (Kind.FORBIDDEN, "residency"), "who does not say where it runs is nowhere"


def test_a_tenant_that_must_stay_stays_with_every_model(made):
    table = made(sections="residency: {tenants: {acme: [eu]}}", a="us-east-1", b="eu-central-1")
    assert order(table, principal=Principal("k", "acme")) == "b"
    assert order(table, principal=Principal("k", "other")) == "abc"
    with pytest.raises(Fault, match="runs where") as refused:
        table.course(asked("a/x", principal=Principal("k", "acme")))
    assert refused.value.kind is Kind.FORBIDDEN


def test_everybody_but_a_tenant(made):
    table = made(sections="residency: {default: [us], tenants: {acme: [eu]}}", a="us-east-1", b="eu-central-1")
    assert [order(table, principal=Principal("k", tenant)) for tenant in ("acme", "other")] == ["b", "a"]


def test_a_profile_that_runs_anywhere_is_not_where_it_is_asked(table):
    text = """
providers:
  bedrock: {api_key: k, region: eu-west-1}
models:
  m: {residency: [eu], targets: [bedrock/global.anthropic.claude-sonnet-4-5-20250929-v1:0, bedrock/eu.anthropic.claude-sonnet-4-5-20250929-v1:0]}
  here: {residency: [eu], targets: [bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0]}
"""
    made = table(text)
    assert [target.model[:3] for target in made.course(asked("m"))[1].targets] == ["eu."]
    assert made.course(asked("here"))[1].target.model.startswith("anthropic")


# -- wishes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "goes"),
    [
        ({"order": ["b"]}, "bac"),
        ({"order": ["c", "b"]}, "cba"),
        ({"order": ["c/z"], "allow_fallbacks": False}, "c"),
        ({"only": ["b", "c"]}, "bc"),
        ({"ignore": ["a"]}, "bc"),
        ({"region": "eu"}, "b"),
        ({"region": ["us", "eu"]}, "ab"),
        ({"sort": "price"}, "bac"),
        ({"sort": {"by": "price"}}, "bac"),
        ({"max_price": {"prompt": 4}}, "b"),
        ({"max_price": {"completion": 100}}, "ab"),
        ({}, "abc"),
        (None, "abc"),
    ],
)
def test_callers_may_narrow_and_order(made, wish, goes):
    table = made(a="us-east-1", b="eu-central-1", sections='prices: {"a/x": {input: 9, output: 9}, "b/y": {input: 1, output: 1}}')
    x = asked("m", body={"provider": wish})
    assert "".join(target.provider for target in table.course(x)[1].targets) == goes
    assert "provider" not in x.peek.members, "stripped"


def test_more_models_are_tried_after_the_first(made):
    x = asked("big", body={"models": ["m", "a/other"]})
    table = made()
    assert [f"{target.provider}/{target.model}" for target in table.course(x)[1].targets] == ["c/large", "a/x", "b/y", "c/z", "a/other"]
    assert "models" not in x.peek.members


def test_a_key_that_may_not_use_a_model_cannot_by_listing_it(made):
    x = asked("big", principal=Principal("k", "t", frozenset({"big"})), body={"models": ["m"]})
    assert [target.provider for target in made().course(x)[1].targets] == ["c"]


def test_what_nobody_honours_is_reported(made):
    x = asked("m", body={"provider": {"quantizations": ["fp8"], "order": ["b"]}})
    made().course(x)
    assert x.unheard == ("provider.quantizations",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"provider": 3}, "provider"), ({"provider": {"order": "a"}}, "provider.order"), ({"models": "m"}, "models"),
        ({"models": ["a/x"] * 9}, "models"), ({"provider": {"sort": "beauty"}}, "provider.sort"), ({"provider": {"only": ["nobody"]}}, "provider"),
        ({"models": ["none-such"]}, "model"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(made, body, param):
    with pytest.raises(Fault) as refused:
        made().course(asked("m", body=body))
    assert refused.value.param == param


# -- what is down --------------------------------------------------------------------------------------------------------


def broken(table, *providers: str) -> None:
    from time import perf_counter

    for target in table.plan("m").targets(0):
        if target.provider in providers:
            for _ in range(5):
                target.condition.bad(perf_counter(), Fault(Kind.UPSTREAM_ERROR, "no"))


def test_who_is_down_is_passed_over(made):
    table = made()
    broken(table, "a")
    course = table.course(asked("m"))[1]
    assert (course.target.provider, course.fallbacks) == ("b", 1)


def test_with_everybody_down_clients_hear_at_once_and_one_a_second_finds_out(made):
    table = made(targets="a/x, b/y")
    broken(table, "a", "b")
    with pytest.raises(Fault) as refused:
        table.course(asked("m"))
    assert (refused.value.kind, refused.value.retry_after) == (Kind.UNAVAILABLE, 1.0)
    assert table.tally.active == 0
    for target in table.plan("m").targets(0):
        target.condition.breaker.knocked -= 1.0
    assert {table.course(asked("m"))[1].target.provider for _ in range(2)} == {"a", "b"}, "one probe each"
    with pytest.raises(Fault):
        table.course(asked("m"))


def test_with_everybody_at_their_limits_it_is_a_429_that_says_when(made):
    from time import perf_counter

    table = made(targets="a/x, b/y")
    for target, seconds in zip(table.plan("m").targets(0), (30.0, 20.0), strict=True):
        target.condition.bad(perf_counter(), Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=seconds))
    with pytest.raises(Fault) as refused:
        table.course(asked("m"))
    assert refused.value.kind is Kind.UPSTREAM_RATE_LIMIT
    assert refused.value.retry_after == pytest.approx(20.0, abs=0.5)


# -- faults that lead elsewhere ------------------------------------------------------------------------------------------


def test_too_long_and_filtered_go_along_their_own_lists_once(made):
    table = made(targets="a/x", more="fallbacks: [b/y], context_fallbacks: [c/large], content_filter_fallbacks: [c/lenient]")
    course = table.course(asked("m"))[1]
    assert course.failed(Fault(Kind.CONTEXT_LENGTH, "long"), 10.0) == 0.0
    assert (course.target.model, course.fallbacks) == ("large", 1)
    course.failed(Fault(Kind.CONTENT_FILTER, "no"), 10.0)
    assert course.target.model == "lenient"
    with pytest.raises(Fault):
        course.failed(Fault(Kind.CONTEXT_LENGTH, "long"), 10.0)


@pytest.mark.parametrize("kind", [Kind.CONTEXT_LENGTH, Kind.CONTENT_FILTER])
def test_what_is_bound_to_an_account_goes_to_none_that_does_not_know_its_ids(made, kind):
    table = made(targets="a/x, b/y", more="context_fallbacks: [c/large, a/long], content_filter_fallbacks: [c/lenient]")
    pin = Pin("a", table.plan("m").targets(0)[0].key_id, "previous_response_id")
    course = table.course(asked("m", pin=pin))[1]
    if kind is Kind.CONTEXT_LENGTH:
        course.failed(Fault(kind, "long"), 10.0)
        assert (course.target.provider, course.target.model) == ("a", "long")
    else:
        with pytest.raises(Fault) as told:
            course.failed(Fault(kind, "no"), 10.0)
        assert told.value.message == "no"
    sealed = table.course(asked("m", pin=Pin(mark=b"GWSEALED")))[1]  # of which the others can do without
    sealed.failed(Fault(kind, "no"), 10.0)
    assert sealed.target.provider == "c"


def test_without_such_lists_the_caller_hears_at_once(made):
    course = made(more="fallbacks: [b/y]").course(asked("m"))[1]
    with pytest.raises(Fault):
        course.failed(Fault(Kind.CONTEXT_LENGTH, "long"), 10.0)


def test_an_alias_has_its_own_patience(made):
    _, course = made(more="retry: {max_attempts: 2, max_retries: 0}").course(asked("m"))
    assert (course.policy.max_attempts, course.retries) == (2, 0)
    course.failed(Fault(Kind.OVERLOADED, "no"), 10.0)
    assert course.target.provider == "b"
    with pytest.raises(Fault):
        course.failed(Fault(Kind.OVERLOADED, "no"), 10.0)
