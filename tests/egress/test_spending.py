"""A stream held against what is reserved for it: real limits in memory, a real target's prices, real passages; and a store that takes its time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from llm_gateway import wiring
from llm_gateway.admission.quota import Hold, Quota, TopUps
from llm_gateway.core.exchange import Principal
from llm_gateway.core.gauges import Ask, Bound, Verdict
from llm_gateway.core.tenancy import Budget, Claim, Grant, Holder
from llm_gateway.core.types import Usage
from llm_gateway.egress.spending import LEAST_MORE, SURE, Spending
from llm_gateway.formats.contract import Passage, Peek
from llm_gateway.routing.table import Table
from llm_gateway.routing.target import Target
from llm_gateway.stores.gauges import Memory
from routing.conftest import asked, catalogue, metrics, snapshot, table

__all__ = ["catalogue", "metrics", "snapshot", "table"]

PRICED = """
providers: {a: {type: vllm, base_url: "http://a", api_key: none}}
prices: {a/m: {input: 1, output: 10}, a/gift: {input: 1, output: 0}}
catalogue: {a/m: {max_output: 4000}, a/gift: {max_output: 4000}}
models: {m: {targets: [a/m]}, gift: {targets: [a/gift]}}
"""
MOST = 100  # tokens, of 10,000 nano-USD each
TOKEN = 10_000
FORMATS = wiring.formats()


class Scene:
    """One request that has reserved MOST tokens of a budget of `amount`, and its stream."""

    def __init__(self, table: Table, amount: int, *, model: str = "m", share: int = 1) -> None:
        self.quota = Quota(Memory())
        self.principal = Principal("k", "t", id="k", holders=(Holder("key:k", Grant(budgets=(Budget(amount, "total"),))),))
        self.x = asked(model, principal=self.principal, body={"max_tokens": MOST})
        plan, course = table.course(self.x)
        assert self.quota.reserve(self.x, plan, course) is None
        self.target: Target = course.target
        self.passage: Passage = FORMATS["openai_chat"].splice(Peek({}, "m", True, True))
        self.spending = Spending(self.x, self.target, self.passage, share)
        self.passage.feed(chunk({"role": "assistant", "content": ""}))

    @property
    def hold(self) -> Hold:
        hold: Hold = self.x.hold
        return hold

    @property
    def tally(self) -> TopUps:
        return self.quota.topups

    def say(self, characters: int, **more: object) -> bool:
        """Whether it goes on after so much more text."""
        self.passage.feed(chunk({"content": "x" * characters}, **more))
        self.spending.see()
        return not self.spending.ended


def chunk(delta: object, **more: object) -> bytes:
    fields = {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


def told(output: int) -> dict[str, object]:
    return {"usage": {"prompt_tokens": 10, "completion_tokens": output, "total_tokens": 10 + output}}


@pytest.fixture
def made(table: Callable[..., Table]) -> Table:
    return table(PRICED)


def test_nothing_is_asked_while_it_is_within_what_is_reserved(made: Table) -> None:
    scene = Scene(made, 10**9)
    reserved = scene.hold.ask.cost
    assert all(scene.say(10) for _ in range(34))
    assert (scene.hold.ask.cost, scene.tally.granted, scene.tally.refused) == (reserved, 0, 0)
    assert repr(scene.spending) == "<Spending of x: within>"


def test_near_its_end_it_is_topped_up_again_and_again(made: Table) -> None:
    scene = Scene(made, 10**9)
    reserved = scene.hold.ask.cost
    assert all(scene.say(10) for _ in range(40))
    assert scene.tally.granted == 1
    assert scene.hold.ask.cost >= reserved + LEAST_MORE * TOKEN
    assert all(scene.say(100) for _ in range(100))
    assert scene.hold.ask.cost >= 2600 * TOKEN
    assert scene.tally.granted < 12  # by a quarter of what it had each time
    scene.x.cost = 2600 * TOKEN
    scene.hold.settle(scene.x)
    other = asked("m", principal=scene.principal, body={"max_tokens": MOST})
    plan, course = made.course(other)
    scene.quota.reserve(other, plan, course)
    left = other.hold.bound.extend(Ask("y", cost=10**9 - 2600 * TOKEN - other.hold.ask.cost))
    assert left.refused is None  # all but what it cost is free again
    assert other.hold.bound.extend(Ask("z", cost=1)).refused is not None


def test_a_read_of_many_thousand_tokens_asks_for_all_of_them_at_once(made: Table) -> None:
    scene = Scene(made, 10**9)
    assert scene.say(40_000)
    assert scene.tally.granted == 1
    assert scene.hold.ask.cost > 10_000 * TOKEN


def test_a_prompt_that_the_provider_counts_as_longer_is_reserved_for_as_soon_as_that_is_told(made: Table) -> None:
    scene = Scene(made, 10**9)
    assert scene.say(10, usage={"prompt_tokens": 5000, "completion_tokens": 1, "total_tokens": 5001})
    assert scene.tally.granted == 1
    assert scene.hold.ask.cost > 5000 * 1000


def test_refused_it_goes_on_until_the_reservation_is_surely_used_up(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN)
    said = 0
    while scene.say(10):
        said += 10
    assert MOST * SURE - 20 <= said <= (MOST + 10) * SURE + 100
    assert (scene.tally.granted, scene.tally.refused, scene.tally.ended) == (0, 2, 1)
    assert scene.passage.ended
    usage = scene.passage.usage
    assert usage is not None
    assert (usage.output, usage.estimated) == ((said + 10 + 3) // 4, True)
    assert b'"finish_reason":"length"' in scene.passage.tail(None)
    assert repr(scene.spending) == "<Spending of x: ended>"


def test_a_count_that_was_told_at_the_beginning_only_does_not_make_the_rest_free(made: Table) -> None:
    """As Anthropic's streams do: one token at first, and all of them at the end."""
    scene = Scene(made, 2 * MOST * TOKEN)
    said = 10
    assert scene.say(10, **told(1))
    while scene.say(10):
        said += 10
    usage = scene.passage.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.estimated) == (10, (said + 10 + 3) // 4, True)


def test_what_others_give_back_meanwhile_is_taken(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN + LEAST_MORE * TOKEN)
    other = scene.hold.bound.extend(Ask("other", cost=MOST * TOKEN // 2 + LEAST_MORE * TOKEN))
    assert isinstance(other, Verdict)
    assert other.refused is None
    assert all(scene.say(10) for _ in range(45))
    assert scene.tally.refused == 1
    scene.hold.bound.settle(Ask("other", cost=MOST * TOKEN // 2 + LEAST_MORE * TOKEN), 0, 0)
    assert all(scene.say(10) for _ in range(60))
    assert (scene.tally.granted, scene.tally.refused) == (1, 1)


def test_a_count_that_keeps_pace_is_believed_and_one_that_does_not_is_not(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN)
    said = 0
    while scene.say(2, **told(said + 1)):
        said += 1
    assert MOST - 1 <= said <= MOST + 20
    usage = scene.passage.usage
    assert usage is not None
    assert (usage.input, usage.output, usage.estimated) == (10, said + 1, True)
    stuck = Scene(made, 2 * MOST * TOKEN)
    characters = 0
    while stuck.say(10, **told(1)):
        characters += 10
    assert MOST * SURE - 20 <= characters <= (MOST + 10) * SURE + 100


def test_of_two_attempts_at_once_each_has_a_half(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN, share=2)
    said = 0
    while scene.say(10):
        said += 10
    assert said <= MOST / 2 * SURE + 100


def test_where_more_costs_nothing_more_nothing_is_asked(made: Table) -> None:
    scene = Scene(made, 10**9, model="gift")
    assert all(scene.say(1000) for _ in range(100))
    assert (scene.tally.granted, scene.tally.refused) == (0, 0)


def test_an_end_of_the_upstream_s_own_is_left_alone(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN)
    scene.passage.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n' % (b"x" * 5000))
    scene.spending.see()
    assert not scene.spending.ended
    assert scene.passage.finish == "stop"


class Slow:
    """A store that is not at hand: core.gauges.Bound, with an answer that comes when it is told to."""

    def __init__(self, claims: tuple[Claim, ...]) -> None:
        self.claims = claims
        self.asked: list[tuple[Ask, asyncio.Future[Verdict]]] = []

    def reserve(self, ask: Ask) -> Verdict:
        return Verdict(cost=ask.cost)

    def extend(self, ask: Ask) -> Awaitable[Verdict]:
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.asked.append((ask, future))
        return future

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        raise AssertionError("not here")


def slowly(made: Table) -> tuple[Scene, Slow]:
    scene = Scene(made, 2 * MOST * TOKEN)
    bound: Bound = scene.hold.bound
    slow = Slow(bound.claims)
    scene.x.hold = Hold(slow, scene.hold.ask, True, scene.tally)
    scene.spending = Spending(scene.x, scene.target, scene.passage)
    scene.passage.feed(chunk({"role": "assistant"}))
    return scene, slow


async def test_asking_holds_nothing_up_and_is_done_once(made: Table) -> None:
    scene, slow = slowly(made)
    assert all(scene.say(10) for _ in range(100))
    ((ask, future),) = slow.asked
    assert repr(scene.spending) == "<Spending of x: asking>"
    future.set_result(Verdict(cost=ask.cost))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.tally.granted == 1
    assert scene.say(10)


async def test_refused_twice_it_ends_with_the_next_read(made: Table) -> None:
    scene, slow = slowly(made)
    for round_ in range(2):
        assert all(scene.say(10) for _ in range(80))
        slow.asked[round_][1].set_result(Verdict(scene.hold.bound.claims[0], 1.0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not scene.say(10)
    assert (len(slow.asked), scene.tally.refused, scene.tally.ended) == (2, 2, 1)


async def test_an_answer_after_the_request_s_end_changes_nothing_for_anybody(made: Table) -> None:
    scene, slow = slowly(made)
    assert scene.say(400)
    before = scene.hold.ask.cost
    slow.asked[0][1].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.hold.ask.cost == before
    assert (scene.tally.granted, scene.tally.refused) == (0, 0)


def test_what_an_earlier_attempt_cost_is_no_part_of_what_is_left(made: Table) -> None:
    scene = Scene(made, 2 * MOST * TOKEN)
    scene.x.absorbed = MOST * TOKEN // 2
    said = 0
    while scene.say(10):
        said += 10
    assert said <= MOST / 2 * SURE + 150
    assert scene.passage.usage != Usage()
