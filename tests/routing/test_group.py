"""Orders that are kept from one request to the next are those that policies.balance gives by the same numbers, and not kept for too long."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies import balance
from llm_gateway.routing import ask
from llm_gateway.routing.group import HALF_LIFE, LOOK, MOST_SESSIONS, Group
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.table import Table
from routing.conftest import asked

FIVE = """
providers:
  {providers}
models:
  m: {{strategy: {strategy}, targets: [{targets}]}}
prices: {{{prices}}}
"""
NAMES = "abcde"
CROSSED = {"a": (1, 9), "b": (2, 5), "c": (3, 3), "d": (9, 1)}  # whoever is cheap to read is dear to write; e is unpriced
PLAIN = {"a": (5, 9), "b": (2, 5), "c": (2, 5), "d": (1, 5), "e": (9, 9)}


@pytest.fixture
def made(table: Callable[[str], Table]) -> Callable[..., Table]:
    def build(strategy: str, weights: str = "11111", prices: dict[str, tuple[int, int]] = PLAIN) -> Table:
        providers = "\n  ".join(f'{n}: {{type: openai_compatible, base_url: "http://127.0.0.1:{at}", api_key: k}}' for at, n in enumerate(NAMES, 1))
        targets = ", ".join(f"{{target: {n}/x, weight: {weight}}}" for n, weight in zip(NAMES, weights, strict=True))
        said = ", ".join(f'"{n}/x": {{input: {read}, output: {written}}}' for n, (read, written) in prices.items())
        return table(FIVE.format(providers=providers, strategy=strategy, targets=targets, prices=said))

    return build


def order(table: Table, **more: object) -> str:
    return "".join(target.provider for target in table.course(asked("m", **more))[1].targets)


def by(places: list[int]) -> str:
    return "".join(NAMES[place] for place in places)


def stops(table: Table) -> tuple[Stop, ...]:
    return table.plan("m").stops


def learned(table: Table, dice: Random) -> None:
    for stop in stops(table):
        condition = stop.keys[0].condition
        for _ in range(3):
            condition.measured(time.perf_counter(), dice.uniform(0.1, 2), dice.uniform(2, 9), dice.randint(10, 400))
        condition.meter.errors = dice.choice([0.0, 0.0, 0.3])
    time.sleep(LOOK * 1.5)


@pytest.mark.parametrize("weights", ["11111", "12345"])
def test_the_least_busy_as_balance_has_them(made: Callable[..., Table], weights: str) -> None:
    table, dice = made("least_busy", weights), Random(7)
    for turn in range(1, 60):
        loads = [dice.randint(0, 3) for _ in NAMES]
        for stop, load in zip(stops(table), loads, strict=True):
            stop.keys[0].condition.busy = load
        assert order(table) == by(balance.least([load / int(weight) for load, weight in zip(loads, weights, strict=True)], turn))


@pytest.mark.parametrize("prices", [PLAIN, CROSSED])
def test_the_cheapest_as_balance_has_them(made: Callable[..., Table], prices: dict[str, tuple[int, int]]) -> None:
    table, dice = made("cost", prices=prices), Random(7)
    for turn in range(1, 40):
        x = asked("m", body={"max_tokens": dice.choice([1, 10, 100, 1000]), "messages": [{"role": "user", "content": "word " * dice.randint(1, 300)}]})
        read, written = ask.size(x), ask.output(x, 0)
        costs = [1000 * (read * prices[n][0] + written * prices[n][1]) if n in prices else None for n in NAMES]
        assert "".join(target.provider for target in table.course(x)[1].targets) == by(balance.ranked(costs, turn))


def test_the_best_by_all_as_balance_has_them(made: Callable[..., Table]) -> None:
    table, dice = made("adaptive", prices=CROSSED), Random(7)
    for turn in range(1, 12):
        learned(table, dice)
        conditions = [stop.keys[0].condition for stop in stops(table)]
        x = asked("m", body={"max_tokens": dice.choice([1, 10, 1000])})
        now, read, written = time.perf_counter(), ask.size(x), ask.output(x, conditions[-1].meter.output.value)
        latencies = [each.meter.first.faded(now, HALF_LIFE) + each.meter.pace.faded(now, HALF_LIFE) * written for each in conditions]
        costs = [1000.0 * (read * CROSSED[n][0] + written * CROSSED[n][1]) if n in CROSSED else None for n in NAMES]
        scores = balance.blended((1.0, 1.0, 2.0), latencies, costs, [each.meter.errors for each in conditions])
        assert "".join(target.provider for target in table.course(x)[1].targets) == by(balance.least(scores, turn))


def test_weights_are_shares(made: Callable[..., Table]) -> None:
    table = made("weighted", "61111")
    first = Counter(order(table)[0] for _ in range(3000))
    assert first["a"] / 3000 == pytest.approx(0.6, abs=0.05)
    assert all(sorted(order(table)) == list(NAMES) for _ in range(50))


@pytest.mark.parametrize("strategy", ["latency", "throughput", "adaptive"])
def test_what_was_learned_counts_when_somebody_looks_again(made: Callable[..., Table], strategy: str) -> None:
    table = made(strategy)
    for stop in stops(table):
        stop.keys[0].condition.measured(time.perf_counter(), 1.0, 3.0, 100)
    time.sleep(LOOK * 1.5)
    order(table)
    worst = stops(table)[3].keys[0].condition
    for _ in range(20):
        worst.measured(time.perf_counter(), 50.0, 900.0, 100)
    time.sleep(LOOK * 1.5)
    assert {order(table)[0] for _ in range(200)} <= set("abce")
    assert order(table)[-1] == "d"


def test_sessions_are_kept_and_not_without_end(made: Callable[..., Table]) -> None:
    table = made("weighted", "12345")
    seats = stops(table)
    group = Group(seats, "weighted", (1.0, 1.0, 2.0))
    for number in range(3 * MOST_SESSIONS):
        session = b"s%d" % (number % (MOST_SESSIONS + 5))
        assert list(group.kept(session)) == balance.rendezvous([stop.mark for stop in seats], [stop.weight for stop in seats], session)
    assert len(group._by_session) <= MOST_SESSIONS


def test_an_order_that_is_handed_out_is_not_changed_by_a_walk_along_it(made: Callable[..., Table]) -> None:
    table = made("round_robin")
    first = [order(table) for _ in range(5)]
    for _ in range(5):
        _, course = table.course(asked("m"))
        course.keep(course.targets[1:], Fault(Kind.UNAVAILABLE, "nobody"))
    assert sorted(order(table) for _ in range(5)) == sorted(first)
