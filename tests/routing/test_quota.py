"""What a request reserves of its principal's limits and money, over tables wired from a configuration."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from llm_gateway.admission import bounds
from llm_gateway.admission.quota import Quota
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.gauges import Ask, Bound, Gauges, Verdict
from llm_gateway.core.tenancy import Budget, Claim, Grant, Holder, Limits
from llm_gateway.core.types import Usage
from llm_gateway.routing.ask import size
from llm_gateway.routing.plan import Course
from llm_gateway.routing.table import Table
from llm_gateway.stores.gauges import Memory
from llm_gateway.stores.redis.gauges import Policy, Shared
from llm_gateway.stores.redis.terms import parse
from redis_server import redis_server
from routing.conftest import asked

PRICED = """
providers:
  a: {type: vllm, base_url: "http://a", api_key: none}
  b: {type: vllm, base_url: "http://b", api_key: none}
  free: {type: vllm, base_url: "http://c", api_key: none}
prices:
  a/cheap: {input: 1, output: 10}
  b/dear: {input: 2, output: 30, cache_write_1h: 8}
catalogue:
  a/cheap: {max_output: 1000}
  b/dear: {max_output: 2000}
models:
  m: {targets: [a/cheap]}
  both: {targets: [a/cheap], fallbacks: [b/dear]}
  some: {targets: [free/x, a/cheap]}
  none: {targets: [free/x]}
  unbounded: {targets: [a/other]}
"""
USD = 1_000_000_000


def who(*, limits: Limits = Limits(), budgets: tuple[Budget, ...] = (), by_model: dict[str, Limits] | None = None, cap: int | None = None) -> Principal:  # noqa: B008  frozen
    return Principal("k", "t", id="k", max_output=cap, holders=(Holder("key:k", Grant(limits, by_model or {}, budgets)),))


def money(amount: int, **more: Any) -> tuple[Budget, ...]:
    return (Budget(amount, "month", **more),)


def reserved(quota: Quota, table: Table, x: Exchange) -> Course:
    plan, course = table.course(x)
    assert quota.reserve(x, plan, course) is None
    return course


def said(x: Exchange, header: str) -> str | None:
    found = re.search(rf"^{header}: (.*)\r$", x.extra.decode(), re.MULTILINE)
    return found[1] if found else None


def test_who_has_no_limits_costs_nothing(table: Callable[..., Table]) -> None:
    x = asked("m", principal=Principal("k", "t"))
    reserved(Quota(Memory()), table(PRICED), x)
    assert (x.hold, x.extra) == (None, b"")


def test_the_tightest_limits_are_told_as_openai_does(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    grants = Limits(requests=10, tokens=10_000), Limits(requests=2)
    principal = Principal("k", "t", id="k", holders=tuple(Holder(f"h:{number}", Grant(each)) for number, each in enumerate(grants)))
    x = asked("m", principal=principal, body={"max_tokens": 40})
    reserved(quota, made, x)
    assert [said(x, f"x-ratelimit-{part}-requests") for part in ("limit", "remaining", "reset")] == ["2", "1", "30s"]
    assert said(x, "x-ratelimit-limit-tokens") == "10000"
    assert int(said(x, "x-ratelimit-remaining-tokens") or "") == 10_000 - 40 - size(x)


@pytest.mark.parametrize(("limit", "reset"), [(100, "600ms"), (70, "858ms"), (7, "9s"), (1, "1m0s")])
def test_when_a_limit_is_whole_again_is_never_told_too_soon(table: Callable[..., Table], limit: int, reset: str) -> None:
    x = asked("m", principal=who(limits=Limits(requests=limit)))
    reserved(Quota(Memory()), table(PRICED), x)
    assert said(x, "x-ratelimit-reset-requests") == reset


def test_which_limit_refused_is_said_with_the_time_to_wait(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    principal = who(by_model={"m": Limits(requests=1)})
    reserved(quota, made, asked("m", principal=principal))
    reserved(quota, made, asked("both", principal=principal))
    x = asked("m", principal=principal)
    with pytest.raises(Fault, match="1 requests a minute of this key for this model is reached; try again in 60 s") as caught:
        reserved(quota, made, x)
    assert (caught.value.kind, caught.value.retry_after, x.hold) == (Kind.RATE_LIMIT, pytest.approx(60, abs=1), None)
    assert said(x, "x-ratelimit-remaining-requests") == "0"
    assert quota.report()["llm_gateway_limit_refused_total"] == {'holder="key",limit="requests"': 1.0}


def test_the_truth_takes_the_estimates_place(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    principal = who(limits=Limits(tokens=1000, concurrent=1))
    for used in (900, 90):
        x = asked("m", principal=principal, body={"max_tokens": 50})
        reserved(quota, made, x)
        x.usage = Usage(input=used - 40, output=40)
        x.hold.settle(x)
    with pytest.raises(Fault, match="tokens a minute"):
        reserved(quota, made, asked("m", principal=principal, body={"max_tokens": 50}))


def test_a_reply_from_the_cache_counts_as_a_request_and_as_nothing_else(table: Callable[..., Table]) -> None:
    quota = Quota(Memory())
    principal = who(limits=Limits(requests=1, tokens=100), budgets=money(0))
    x = asked("m", principal=principal)
    assert quota.reserve(x, None, None) is None
    x.cached, x.usage, x.cost = True, Usage(input=5000, output=5000), 0
    x.hold.settle(x)
    with pytest.raises(Fault, match="requests a minute"):
        quota.reserve(asked("m", principal=principal), None, None)


def test_the_dearest_target_is_what_is_reserved(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    x = asked("both", principal=who(budgets=money(USD)), body={"max_tokens": 100})
    reserved(quota, made, x)
    prompt = int(size(x) * 1.1) + 1
    assert x.hold.ask.cost == 1000 * (prompt * 2 + 100 * 30)


def test_where_caches_may_be_written_their_rate_holds(table: Callable[..., Table]) -> None:
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    x = asked("both", principal=who(budgets=money(USD)), body={"max_tokens": 100, "messages": [{"role": "user", "content": [part]}]})
    reserved(Quota(Memory()), table(PRICED), x)
    prompt = int(size(x) * 1.1) + 1
    assert x.hold.ask.cost == 1000 * (prompt * 8 + 100 * 30)


def test_several_replies_in_one_are_reserved_for(table: Callable[..., Table]) -> None:
    x = asked("m", principal=who(budgets=money(USD)), body={"max_tokens": 100, "n": 3})
    reserved(Quota(Memory()), table(PRICED), x)
    assert x.hold.ask.cost == 1000 * (int(size(x) * 1.1) + 1 + 3 * 100 * 10)


def test_without_a_limit_of_its_own_a_request_gets_the_largest_that_is_left(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    x = asked("m", principal=who(budgets=money(5_000_000)))
    reserved(quota, made, x)
    most = x.peek.max_tokens
    assert said(x, "x-gateway-adjusted-params") == f"max_tokens={most}"
    assert 480 <= most < 500
    assert bounds.cost(x, table(PRICED).course(asked("m"))[1].targets, None) == pytest.approx(5_000_000, abs=10_000)
    assert x.hold.ask.cost == 5_000_000
    assert msgspec.json.decode(x.peek.members["max_tokens"]) == most


def test_what_is_left_is_enough_for_the_reply_at_whichever_target_it_comes_from(table: Callable[..., Table]) -> None:
    made, x = table(PRICED), asked("both", principal=who(budgets=money(10_000_000)))
    course = reserved(Quota(Memory()), made, x)
    most = x.peek.max_tokens
    assert 320 <= most <= 333
    costs = [target.price(Usage(input=size(x), output=most), x.wall) for target in course.targets]
    assert [cost is not None and cost <= 10_000_000 for cost in costs] == [True, True]


def test_where_all_of_it_is_affordable_nothing_is_changed(table: Callable[..., Table]) -> None:
    x = asked("m", principal=who(budgets=money(USD)))
    reserved(Quota(Memory()), table(PRICED), x)
    assert (x.peek.max_tokens, x.extra) == (None, b"")


def test_a_model_whose_longest_reply_is_not_known_is_bound_to_what_was_reserved(table: Callable[..., Table]) -> None:
    text = PRICED.replace("  b/dear: {input", "  a/other: {input: 1, output: 1}\n  b/dear: {input")
    x = asked("unbounded", principal=who(budgets=money(USD)))
    reserved(Quota(Memory()), table(text), x)
    assert x.peek.max_tokens == bounds.UNKNOWN_LONGEST


def test_so_is_one_that_only_its_fallback_does_not_know_the_longest_reply_of(table: Callable[..., Table]) -> None:
    text = PRICED.replace("  b/dear: {input", "  a/other: {input: 1, output: 1}\n  b/dear: {input")
    text = text.replace("unbounded: {targets: [", "unbounded: {targets: [a/cheap, ")
    x = asked("unbounded", principal=who(budgets=money(USD)))
    reserved(Quota(Memory()), table(text), x)
    assert x.peek.max_tokens == bounds.UNKNOWN_LONGEST


def test_below_the_least_a_reply_is_refused(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory(), least_output=256), table(PRICED)
    x = asked("m", principal=who(budgets=money(2_000_000)))
    with pytest.raises(Fault, match="The budget of this key does not cover this request") as caught:
        reserved(quota, made, x)
    assert (caught.value.code, caught.value.headers) == ("budget_exceeded", ((b"x-should-retry", b"false"),))
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 3600


def test_what_others_have_reserved_may_come_back(table: Callable[..., Table]) -> None:
    quota, made, principal = Quota(Memory()), table(PRICED), who(budgets=money(5_000_000))
    first = asked("m", principal=principal)
    reserved(quota, made, first)
    with pytest.raises(Fault, match="reserved by requests under way") as caught:
        reserved(quota, made, asked("m", principal=principal))
    assert (caught.value.code, caught.value.retry_after) == ("budget_reserved", 1.0)
    first.cost = 1000
    first.hold.settle(first)
    reserved(quota, made, asked("m", principal=principal))


def test_a_soft_budget_refuses_nothing_and_changes_nothing(table: Callable[..., Table]) -> None:
    for model in ("m", "none"):
        x = asked(model, principal=who(budgets=money(1, hard=False)))
        reserved(Quota(Memory()), table(PRICED), x)
        assert (x.hold is not None, x.extra) == (True, b"")


@pytest.mark.parametrize("copies", [b"9" * 30, b"9" * 5000])
def test_copies_without_end_are_what_no_budget_covers(table: Callable[..., Table], copies: bytes) -> None:
    x = asked("m", principal=who(budgets=money(USD)), body={"max_tokens": 100})
    x.peek.members["n"] = Raw(copies)
    with pytest.raises(Fault) as caught:
        reserved(Quota(Memory()), table(PRICED), x)
    assert caught.value.code == "budget_exceeded"


def test_a_hard_budget_goes_round_what_has_no_price(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    course = reserved(quota, made, asked("some", principal=who(budgets=money(USD))))
    assert [course.target.provider, len(course.targets)] == ["a", 1]
    with pytest.raises(Fault, match="price of 'x' is not known") as caught:
        reserved(quota, made, asked("none", principal=who(budgets=money(USD))))
    assert (caught.value.kind, caught.value.code, caught.value.param) == (Kind.FORBIDDEN, "model_unpriced", "model")


def test_a_dearer_attempt_is_reserved_for_before_it_is_made(table: Callable[..., Table]) -> None:
    quota, made = Quota(Memory()), table(PRICED)
    x = asked("m", principal=who(budgets=money(10_000_000)), body={"max_tokens": 100})
    reserved(quota, made, x)
    before = x.hold.ask.cost
    dearer = made.course(asked("b/dear"))[1].target
    assert quota.cover(x, dearer) is None
    assert x.hold.ask.cost > 2.9 * before
    assert quota.cover(x, dearer) is None
    x.absorbed = 9_000_000
    with pytest.raises(Fault) as caught:
        quota.cover(x, dearer)
    assert caught.value.code == "budget_reserved"


def test_a_cap_cuts_what_is_asked_for(table: Callable[..., Table]) -> None:
    made, quota, principal = table(PRICED), Quota(Memory()), who(cap=300)
    for wish, most in ((None, 300), (301, 300), (299, 299)):
        x = asked("m", principal=principal, body={"max_tokens": wish} if wish else None)
        reserved(quota, made, x)
        assert x.peek.max_tokens == most
        assert said(x, "x-gateway-adjusted-params") == (f"max_tokens={most}" if wish != 299 else None)


def test_a_cap_holds_for_what_goes_to_whoever_sealed_the_thoughts_too_and_is_no_matter_where_nothing_is_written(table: Callable[..., Table]) -> None:
    made, quota, principal = table(PRICED), Quota(Memory()), who(cap=300)
    x = asked("m", principal=principal)
    x.marked = x.peek
    reserved(quota, made, x)
    assert (x.marked.max_tokens, msgspec.json.decode(x.marked.members["max_tokens"])) == (300, 300)
    x = asked("a/places", "embeddings", principal=principal)
    x.route = replace(x.route, format="openai_embeddings")
    reserved(quota, made, x)
    assert (x.peek.max_tokens, x.extra) == (None, b"")


@pytest.mark.parametrize(("limit", "served"), [(10, 2), (3, 1), (0, 0)])
def test_each_of_several_workers_has_its_share_of_a_limit_and_where_there_is_one_at_least_one(
    table: Callable[..., Table], limit: int, served: int
) -> None:
    quota, made, principal = Quota(Memory(), shares=4), table(PRICED), who(limits=Limits(requests=limit))
    for _ in range(served):
        reserved(quota, made, asked("m", principal=principal))
    with pytest.raises(Fault, match="requests a minute"):
        reserved(quota, made, asked("m", principal=principal))


class Slow:
    """A store that answers later: each `reserve` waits to be let go."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict, self.settled = verdict, 0

    def bind(self, tenant: str, claims: tuple[Claim, ...]) -> Bound:
        self.claims = claims
        return self

    def rest(self, now: float, wall: float) -> None: ...

    def reserve(self, ask: Ask) -> Awaitable[Verdict]:
        async def later() -> Verdict:
            return self.verdict

        return later()

    extend = reserve

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        self.settled += 1


async def test_an_answer_that_comes_later_counts_the_same(table: Callable[..., Table]) -> None:
    store = Slow(Verdict(cost=5))
    gauges: Gauges = store
    made, x = table(PRICED), asked("m", principal=who(limits=Limits(requests=5)))
    plan, course = made.course(x)
    waiting = Quota(gauges).reserve(x, plan, course)
    assert waiting is not None
    assert x.hold is not None, "were nobody to wait any more, what was taken could not be given back"
    await waiting
    assert x.hold.ask.cost == 5
    store.verdict = Verdict(store.claims[0], 3.0)
    y = asked("m", principal=x.principal)
    waiting = Quota(gauges).reserve(y, *made.course(y))
    assert waiting is not None
    with pytest.raises(Fault, match="requests a minute"):
        await waiting
    assert y.hold is None


def test_many_keys_do_not_fill_memory(table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_gateway.admission.quota.MOST_BOUND", 10)
    store = Memory()
    quota, made = Quota(store), table(PRICED)
    principals = [Principal(f"k{number}", "t", id=f"k{number}", holders=(Holder(f"key:{number}", Grant(Limits(concurrent=2))),)) for number in range(50)]
    for principal in principals:
        x = asked("m", principal=principal)
        reserved(quota, made, x)
        x.hold.settle(x)
    assert len(store) <= 11


def test_yesterdays_counts_do_not_fill_memory(table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_gateway.admission.quota.MOST_BOUND", 10)
    store = Memory()
    quota, made = Quota(store), table(PRICED)
    for number in range(50):
        x = asked("m", principal=Principal("k", "t", id="k", holders=(Holder(f"user:{number}", Grant(Limits(day=2))),)))
        x.wall += 86_400.0 * (number // 10)
        reserved(quota, made, x)
        x.hold.settle(x)
    assert len(store) <= 11


async def test_a_reply_from_the_cache_is_counted_in_redis_too(table: Callable[..., Table], tmp_path: Path) -> None:
    """It is answered before a request has a deadline."""
    with redis_server(tmp_path) as (url, _):
        shared = Shared(replace(parse(url), timeout=2.0), Memory(), policy=Policy(loss=lambda _: "closed"))
        async with asyncio.timeout(5):
            while not shared.ready:
                await asyncio.sleep(0.005)
        quota, principal = Quota(shared), who(limits=Limits(requests=5, concurrent=1), budgets=money(USD))
        for left in (4, 3):
            x = asked("m", principal=principal, started=perf_counter())
            x.id = f"hit-{left}"
            waiting = quota.reserve(x, None, None)
            assert waiting is not None
            await waiting
            assert said(x, "x-ratelimit-remaining-requests") == str(left)
            x.cached, x.cost = True, 0
            x.hold.settle(x)
        assert shared.meter.failures == {}
        await shared.close()


def test_who_goes_round_what_has_no_price_takes_nothing_there(table: Callable[..., Table]) -> None:
    made = table(PRICED.replace('"http://c", api_key: none', '"http://c", api_key: none, rate_limit: {requests_per_minute: 2}'))
    for _ in range(3):
        reserved(Quota(Memory()), made, asked("some", principal=who(budgets=money(USD))))
    for _ in range(2):
        assert made.course(asked("none"))[1].target.provider == "free"


@pytest.mark.parametrize(
    ("said", "copies"),
    [
        ({"n": 2.0}, 2), ({"n": "x"}, 1), ({"n": None}, 1), ({"n": 3, "best_of": 5}, 5),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6), ({"prompt": [[1, 2], [3]]}, 2), ({"prompt": [1, 2, 3]}, 1), ({"prompt": "a"}, 1), ({"prompt": []}, 1),
        ({"generationConfig": {"candidateCount": 4}}, 4), ({"generation_config": {"candidate_count": 3}}, 3), ({"generationConfig": []}, 1),
    ],
)  # fmt: skip
def test_however_several_replies_are_asked_for_all_are_reserved_for(table: Callable[..., Table], said: dict[str, Any], copies: int) -> None:
    x = asked("m", principal=who(budgets=money(USD)), body={"max_tokens": 100, **said})
    reserved(Quota(Memory()), table(PRICED), x)
    assert x.hold.ask.cost == 1000 * (int(size(x) * 1.1) + 1 + copies * 100 * 10)


@pytest.mark.parametrize("one", ["some words", [1, 2, 3]])
def test_of_many_prompts_none_is_forgotten(table: Callable[..., Table], one: Any) -> None:
    x = asked("m", principal=who(budgets=money(1000 * USD)), body={"max_tokens": 100, "prompt": [one] * 10_000})
    reserved(Quota(Memory()), table(PRICED), x)
    assert 10_000 * 100 * 10 * 1000 <= x.hold.ask.cost < 10_000 * 120 * 10 * 1000


def test_a_number_without_end_is_no_matter_here(table: Callable[..., Table]) -> None:
    x = asked("m", principal=who(budgets=money(USD)), body={"max_tokens": 100})
    for digits in (b"9" * 5000, b"1e999", b"-1", b"99999999999999999999"):
        x.peek.members["n"] = msgspec.Raw(digits)
        bounds.cost(x, table(PRICED).course(asked("m"))[1].targets, None)


@pytest.mark.parametrize(("model", "said", "tier"), [
    ("openai/gpt-4.1", {"service_tier": "priority"}, "priority"), ("anthropic/claude-opus-4-8", {"speed": "fast"}, "fast"),
    ("openai/gpt-4.1", {"serviceTier": {"type": "priority"}}, "priority"),
])  # fmt: skip
def test_a_dearer_service_tier_is_reserved_for_where_it_is_asked_for(table: Callable[..., Table], model: str, said: dict[str, Any], tier: str) -> None:
    made = table()
    for wished, share in (({"service_tier": "default"}, 1.0), (said, 1.7)):
        x = asked(model, principal=who(budgets=money(USD)), body={"max_tokens": 1000, **wished})
        x.wall = 1_795_741_200.0
        course = reserved(Quota(Memory()), made, x)
        usual = course.target.price(Usage(input=size(x), output=1000), x.wall)
        dear = course.target.price(Usage(input=size(x), output=1000, tier=tier), x.wall)
        assert usual is not None
        assert dear is not None
        assert dear > 1.5 * usual
        assert (dear if share > 1 else usual) <= x.hold.ask.cost < 1.2 * (dear if share > 1 else usual)


MEDIA = """
providers:
  a: {type: openai_compatible, base_url: "http://a", api_key: none}
prices:
  a/draws: {input: 1, output: 10, image_output: 40}
  a/speaks: {input: 1, output: 5, audio_output: 20}
  a/hears: {input: 1, output: 5, audio_input: 6}
  a/places: {input: 1}
"""


@pytest.mark.parametrize(("operation", "model", "body", "most"), [
    ("images", "a/draws", {"prompt": "a cat"}, Usage(input=20, output=6240, image_output=6240)),
    ("images", "a/draws", {"prompt": "a cat", "n": 4}, Usage(input=20, output=4 * 6240, image_output=4 * 6240)),
    ("speech", "a/speaks", {"input": "some words " * 100}, Usage(input=250, output=1500, audio_output=1500)),
    ("transcription", "a/hears", {"file": "x" * 1_000_000}, Usage(input=1500, audio_input=1500, output=400)),
    ("embeddings", "a/places", {"input": ["some words " * 100] * 20}, Usage(input=5500)),
])  # fmt: skip
def test_of_what_is_no_chat_what_comes_back_is_reserved_for_too(
    table: Callable[..., Table], operation: str, model: str, body: dict[str, Any], most: Usage
) -> None:
    x = asked(model, operation, principal=who(budgets=money(100 * USD)), body=body)
    course = reserved(Quota(Memory()), table(MEDIA), x)
    cost = course.target.price(most, x.wall)
    assert cost is not None
    assert cost <= x.hold.ask.cost < 3 * cost
    assert (x.peek.max_tokens, x.extra) == (None, b""), "it has no limit that could be cut"


def test_where_a_second_may_be_asked_beside_the_first_what_is_left_is_enough_for_both(table: Callable[..., Table]) -> None:
    made = table(PRICED.replace("m: {targets: [a/cheap]}", "m: {targets: [a/cheap], hedge: {after: 1s}}"))
    x = asked("m", principal=who(budgets=money(8_000_000)))
    course = reserved(Quota(Memory()), made, x)
    one = bounds.cost(x, course.targets, None)
    assert one is not None
    assert 0.95 * x.hold.ask.cost < 2 * one <= x.hold.ask.cost
