"""What clients write about routing, written by one who means ill: refused by name, or harmless to everybody else."""

from __future__ import annotations

import json
from time import perf_counter

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal
from llm_gateway.core.types import Usage
from llm_gateway.egress.respond import head
from llm_gateway.formats.contract import Peek
from llm_gateway.policies.breaker import Terms
from llm_gateway.policies.cascade import Escalation
from llm_gateway.routing import ask, condition
from routing.conftest import asked

TEXT = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k, region: us-east-1, rate_limit: {tokens_per_minute: 6000}}
  b: {type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k, region: eu-west-1}
  c: {type: openai_compatible, base_url: "http://127.0.0.1:3", api_key: k, region: us-east-1}
models:
  m: {targets: [b/x], fallbacks: [c/y]}
  limited: {targets: [a/x]}
  inside: {targets: [b/x], residency: [eu], shadow: {target: c/s, share: 1.0}}
  copied: {targets: [b/x, c/y], shadow: {target: c/s, share: 1.0}}
  judged: {targets: [b/x, c/y], cascade: {output_under: 5}}
"""
A_LOT = [None, True, 0, -1, 1e308, "", "x", [], ["a"], [1], [None], {}, {"a": 1}, {"by": 1}, {"prompt": -1}, {"prompt": "1"}, "1" * 3000, 10**30]


@pytest.mark.parametrize("said", A_LOT, ids=lambda said: json.dumps(said)[:30])
@pytest.mark.parametrize("name", ["models", "provider", "order", "only", "ignore", "sort", "max_price", "allow_fallbacks", "region", "else"])
def test_wishes_of_any_type_are_heard_or_refused_by_name(table, name, said):
    body = {name: said} if name in ("models", "provider") else {"provider": {name: said}}
    x = asked("m", body=body)
    refused = None
    try:
        table(TEXT).course(x)
    except Fault as fault:
        refused = fault
    if refused is None:
        assert not x.peek.members.keys() & {"models", "provider"}, "no upstream sees them"
        return
    assert refused.kind in (Kind.INVALID, Kind.NO_MODEL)
    assert (refused.param or "").startswith(("models", "provider", "model"))
    assert len(refused.message) < 1000


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"models": ["b/x"] * 9}, "models"),
        ({"models": ["b/" + "x" * 300]}, "models"),
        ({"provider": {"order": ["b"] * 65}}, "provider.order"),
        ({"provider": {"ignore": ["x" * 1_000_000]}}, "provider.ignore"),
        ({"provider": {"region": ["*a" * 200]}}, "provider.region"),
    ],
)
def test_what_is_kept_of_wishes_is_bounded(table, body, param):
    with pytest.raises(Fault, match="at most") as refused:
        table(TEXT).course(asked("m", body=body))
    assert refused.value.param == param


def test_a_wish_nobody_knows_cannot_write_a_header(table):
    x = asked("m", body={"provider": {"a\r\nx-evil: 1": 1, **{f"n{n}": 1 for n in range(500)}}})
    _, course = table(TEXT).course(x)
    x.target, x.dropped, x.status = course.target, x.unheard, 200
    text = head(x, b"application/json", b"content-length: 0\r\n", perf_counter())
    assert b"\r\nx-evil" not in text
    assert b"provider.a??x-evil: 1" in text
    assert len(text) < 2000


@pytest.mark.parametrize("header", [b"", b"a b", b"x" * 70, b",".join([b"t"] * 33), b"\xff\xfe", b"t\x00"])
def test_tags_are_words(table, header):
    x = asked("m", headers={b"x-gateway-tags": header})
    if header:
        with pytest.raises(Fault, match="x-gateway-tags"):
            ask.tags(x)
    else:
        assert ask.tags(x) == frozenset()


@pytest.mark.parametrize("header", [b"urgent", b"11", b"-11", b"1e1", b"999999", "٣".encode(), b""])
def test_priorities_are_small(header):
    with pytest.raises(Fault, match="x-gateway-priority"):
        ask.priority(asked("m", headers={b"x-gateway-priority": header}))


def test_a_key_reaches_no_other_model_by_a_list_of_models(table):
    x = asked("m", body={"models": ["limited", "a/other", "judged"]}, principal=Principal("k", "t", frozenset({"m"})))
    _, course = table(TEXT).course(x)
    assert {target.provider for target in course.targets} == {"b", "c"}, "a is none of its models'"


def test_ten_thousand_names_leave_what_is_known_of_the_others(table, monkeypatch):
    monkeypatch.setattr(condition, "MOST", 200)
    made = table(TEXT)
    plan, _ = made.course(asked("m"))
    held = plan.stops[0].keys[0].condition
    direct = made.course(asked("b/not-in-the-configuration"))[0].stops[0].keys[0].condition
    for number in range(1000):
        made.course(asked(f"b/any-{number}"))[1].target.condition.bad(perf_counter(), Fault(Kind.UPSTREAM_AUTH, "no", status=403))
    assert len(made.conditions) <= 210
    assert made.course(asked("m"))[0].stops[0].keys[0].condition is held
    again = made.course(asked("b/not-in-the-configuration"))[0].stops[0].keys[0].condition
    assert again is not direct
    assert again in made.conditions.all(), "no plan keeps one that nobody is told of"
    held.bad(perf_counter(), Fault(Kind.UPSTREAM_RATE_LIMIT, "no", retry_after=9.0))
    gauges = made.gauges()["llm_gateway_target_held"]
    assert {labels.partition('model="')[2].partition('"')[0] for labels in gauges} == {"other", "x"}, "labels are few whatever clients name"


def test_a_prompt_too_long_for_anybody_costs_the_others_nothing(table):
    made = table(TEXT)
    x = asked("limited", body={"pad": "word " * 100_000})
    _, course = made.course(x)
    assert course.tokens > 6000
    with pytest.raises(Fault):
        course.failed(Fault(Kind.CONTEXT_LENGTH, "too long", status=400), 100.0)
    course.done()
    made.course(asked("limited"))


def test_a_probe_whose_request_moves_on_lets_another_find_out(table):
    """Overtaken by a hedge, sent back by a cascade, never sent at all: none of it may leave a target half-open for ever."""
    made = table(TEXT)
    first = made.plan("m").stops[0].keys[0].condition
    first.breaker.terms = Terms(ejection=0.001)
    for leave in (
        lambda course: course.failed(Fault(Kind.ESCALATED, "short"), 100.0),
        lambda course: course.failed(Fault(Kind.UNAVAILABLE, "no credentials yet"), 100.0),
        lambda course: course.overtaken(course.targets[-1]),
        lambda course: course.done(),
    ):
        first.breaker.trip(perf_counter(), 0.0)
        first.hold("breaker", perf_counter(), 0.0, "")
        _, course = made.course(asked("m"))
        assert course.target.condition is first
        assert first.breaker.probing
        _, other = made.course(asked("m"))
        assert other.target.condition is not first, "one probe at a time"
        other.done()
        assert first.breaker.probing, "a request that is not the probe ends: the probe goes on"
        leave(course)
        assert not first.breaker.probing


def test_a_reply_is_only_sent_back_where_somebody_has_room(table):
    made = table(TEXT.replace("judged: {targets: [b/x, c/y]", "judged: {targets: [b/x, a/x]"))
    _, course = made.course(asked("judged"))
    assert course.more(perf_counter(), course.target)
    bucket = course.targets[-1].condition.allowances[0].tokens
    bucket.take(6000, perf_counter())
    assert not course.more(perf_counter(), course.target)


def test_only_conversations_are_judged(table):
    made = table(TEXT)
    assert isinstance(made.plan("judged").cascade, Escalation)
    assert made.plan("judged", "embeddings").cascade is None


def test_copies_do_not_leave_the_region_either(table):
    made = table(TEXT)
    assert made.plan("inside").shadow is None, "c is in the United States"
    assert made.course(asked("copied"))[0].shadow is not None
    for wish in ({"region": "eu"}, {"ignore": ["c"]}, {"only": ["b"]}):
        assert made.course(asked("copied", body={"provider": wish}))[0].shadow is None
    tenants = TEXT + "residency: {tenants: {t: [eu]}}\n"
    assert table(tenants).course(asked("copied", principal=Principal("k", "t")))[0].shadow is None


def test_one_tenants_cache_says_nothing_of_anothers(table):
    made = table(TEXT)
    x = asked("m", principal=Principal("one", "t"))
    _, course = made.course(x)
    x.usage = Usage(input=100, cache_read=100)
    made.learn(x, course)
    assert made._hits == {"one": 1.0}


def test_a_session_is_what_a_conversation_begins_with():
    def begun(**members: object) -> bytes:
        x = asked("m", body=members)
        return ask.session(x, prefix=True)

    system = "You are kind. " * 100
    assert begun(system=system, messages=[{"role": "user", "content": "a"}]) == begun(system=system, messages=[{"role": "user", "content": "b"}])
    assert begun(messages=[{"role": "user", "content": "a" * 2000}]) == begun(messages=[{"role": "user", "content": "a" * 2000 + "b"}])
    assert begun(messages="a") != begun(messages="b")
    assert ask.session(asked("m", headers={b"x-gateway-session": b"s" * 9000}), prefix=True) == b"s" * 64
    x = asked("m")
    x.peek = Peek({}, "m")
    assert ask.session(x, prefix=True), "of nothing, too"
