"""The scripts beside a plain model of them, on a real server whose clock the test turns: the same verdicts, whatever comes in which order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from llm_gateway.core.tenancy import Claim
from llm_gateway.policies.bucket import Bucket
from llm_gateway.policies.windows import ends, window
from llm_gateway.stores.redis.scripts import (
    CALENDAR,
    CLOCK,
    GRANTED,
    HELD,
    LAG,
    PURSE,
    REFUSED,
    UNKNOWN,
    UNSEEDED,
    Scripts,
    keys,
    letter,
)

# The time that the test sets, instead of the server's.
OWN_CLOCK = "local function clock() return tonumber(redis.call('GET', '{clock}') or '0') end\n"
START = datetime(2026, 11, 27, 23, 58, tzinfo=UTC).timestamp()
GAUGES = (
    Claim("key:1", "requests", 6),
    Claim("key:1", "tokens", 6000),
    Claim("key:1", "day", 25),
    Claim("key:1", "concurrent", 3),
    Claim("tenant:a", "tokens", 60_000),
    Claim("user:u", "budget", 1000, "hour"),
    Claim("tenant:a", "budget", 5000, "month", hard=False),
    Claim("tenant:a", "budget", 3000, "day"),
)
SETTLING = ("tokens", "concurrent", "budget")


@dataclass
class Money:
    """A budget as it ought to be."""

    window: str
    spent: int
    seeded: float
    held: dict[str, tuple[int, float]] = field(default_factory=dict)

    def turn(self, claim: Claim, now: float) -> None:
        if window(claim.period, now) != self.window:
            self.window, self.spent = window(claim.period, now), 0
        self.held = {request: (amount, till) for request, (amount, till) in self.held.items() if till > now}

    def free(self, claim: Claim) -> int:
        return max(0, claim.limit - self.spent - sum(amount for amount, _ in self.held.values()))


class Model:
    """What the scripts are to do, in words of Python. Times in seconds."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.days: Counter[tuple[str, str]] = Counter()
        self.slots: dict[str, dict[str, float]] = {}
        self.money: dict[str, Money] = {}
        self.settled: set[str] = set()

    def bucket(self, claim: Claim) -> Bucket:
        return self.buckets.setdefault(claim.name, Bucket.per_minute(claim.limit))

    def busy(self, claim: Claim, now: float) -> dict[str, float]:
        self.slots[claim.name] = {one: till for one, till in self.slots.get(claim.name, {}).items() if till > now}
        return self.slots[claim.name]

    def purse(self, claim: Claim, now: float) -> Money | None:
        found = self.money.get(claim.name)
        if found is not None:
            found.turn(claim, now)
        return found

    def reserve(self, claims, request, tokens, cost, least, hold, now, seed):
        reserved = [m for c in claims if c.measure == "budget" and (m := self.purse(c, now)) and request in m.held]
        if reserved:
            return "granted", reserved[-1].held[request][0]
        slots = [(claim, self.busy(claim, now)) for claim in claims if claim.measure == "concurrent"]
        if any(request in busy and len(busy) >= claim.limit for claim, busy in slots):
            return "granted", cost  # the last slot is its own
        refused = self._rates(claims, request, tokens, now)
        if refused is not None:
            return refused
        granted = cost
        for claim in claims:
            if claim.measure == "budget":
                one = self.purse(claim, now)
                if one is None and seed is not None:
                    one = self.money[claim.name] = Money(window(claim.period, now), seed, now)
                if claim.hard and one is None:
                    return "unknown", claim.name, 1.0
                if claim.hard and one is not None:
                    if one.free(claim) < least:
                        return self._short(claim, one, least or cost, now)
                    granted = min(granted, one.free(claim))
        self._take(claims, request, tokens, granted, now + hold, now)
        return "granted", granted

    def _rates(self, claims, request, tokens, now):
        waits = {}
        for claim in claims:
            if claim.measure in ("requests", "tokens"):
                waits[claim.name] = self.bucket(claim).wait(1.0 if claim.measure == "requests" else tokens, now)
            elif claim.measure == "day" and self.days[claim.name, window("day", now)] >= claim.limit:
                waits[claim.name] = ends("day", now) - now
        if waits and max(waits.values()) > 0:
            return "refused", max(waits, key=lambda name: waits[name]), max(waits.values())
        for claim in claims:
            if claim.measure == "concurrent" and len(self.busy(claim, now)) >= claim.limit:
                return "refused", claim.name, 1.0
        return None

    def _take(self, claims, request, tokens, granted, till, now):
        for claim in claims:
            match claim.measure:
                case "requests" | "tokens":
                    self.bucket(claim).take(1.0 if claim.measure == "requests" else tokens, now)
                case "day":
                    self.days[claim.name, window("day", now)] += 1
                case "concurrent":
                    self.slots.setdefault(claim.name, {})[request] = till
                case "budget":
                    if (one := self.purse(claim, now)) is not None:
                        one.held[request] = (granted, till)

    def extend(self, claims, request, cost, hold, now, seed):
        budgets = [claim for claim in claims if claim.measure == "budget"]
        if request in self.settled:
            return "refused", budgets[0].name, 0.0
        for claim in budgets:
            one = self.purse(claim, now)
            if one is None and seed is not None:
                one = self.money[claim.name] = Money(window(claim.period, now), seed, now)
            if claim.hard and one is None:
                return "unknown", claim.name, 1.0
            if claim.hard and one is not None and claim.limit - one.spent - sum(a for a, _ in one.held.values()) < cost:
                return self._short(claim, one, cost, now)
        for claim in budgets:
            if (one := self.purse(claim, now)) is not None:
                one.held[request] = (one.held.get(request, (0, 0.0))[0] + cost, now + hold)
        return "granted", cost

    def settle(self, claims, request, tokens, cost, age, now, seed):
        money = [claim for claim in claims if claim.measure == "budget"]
        again = bool(money) and request in self.settled
        for claim in money:
            if self.purse(claim, now) is None and age <= LAG and seed is not None:
                self.money[claim.name] = Money(window(claim.period, now), seed, now)
        for claim in claims:
            if claim.measure == "concurrent":
                self.slots.get(claim.name, {}).pop(request, None)
            elif claim.measure == "tokens" and not again:
                bucket = self.bucket(claim)
                bucket.wait(0, now)
                bucket.correct(tokens)
            elif claim.measure == "budget" and not again and (one := self.purse(claim, now)) is not None:
                one.held.pop(request, None)
                if age <= LAG or now - age + LAG >= one.seeded:
                    one.spent += cost
        if money:
            self.settled.add(request)
        return {claim.name: one.spent for claim in money if (one := self.purse(claim, now)) is not None}

    def _short(self, claim, one, amount, now):
        held = claim.limit - one.spent >= amount
        return "held" if held else "refused", claim.name, 1.0 if held else ends(claim.period, now) - now


class Beside(RuleBasedStateMachine):
    """Redis and the model are told the same."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.scripts = Scripts(OWN_CLOCK)
        self.model = Model()
        self.now = START
        self.serial = 0
        self.asked: dict[str, tuple[tuple[Claim, ...], int]] = {}
        self.seed: int | None = 0
        self.client.flushdb()
        self.tick(0)

    @initialize(chosen=st.sets(st.sampled_from(GAUGES), min_size=1), seed=st.sampled_from([0, 250, None]))
    def begin(self, chosen, seed):
        self.claims = tuple(claim for claim in GAUGES if claim in chosen)
        self.seed = seed

    @rule(seconds=st.sampled_from([0.001, 0.5, 2.0, 7.0, 31.0, 61.0, 3600.0, 86400.0]))
    def tick(self, seconds):
        self.now = round(self.now + seconds, 3)
        self.client.set("{clock}", f"{self.now * 1e6:.0f}")

    @rule(
        tokens=st.sampled_from([0, 10, 500, 6000, 7000]), cost=st.sampled_from([0, 100, 400, 900, 4000]),
        share=st.sampled_from([0.0, 0.5, 1.0]), hold=st.sampled_from([1, 30, 600]), old=st.booleans(),
    )  # fmt: skip
    def reserve(self, tokens, cost, share, hold, old):
        lasting = any(claim.measure == "budget" for claim in self.claims)
        if old and self.asked and lasting:
            request = next(reversed(self.asked))
        else:
            self.serial += 1
            request = f"r{self.serial}"
        least = int(cost * share)
        wanted = self.model.reserve(self.claims, request, tokens, cost, least, hold, self.now, self.seed)
        code, *rest = self.call("reserve", self.claims, request, f"{tokens} {cost} {least} {hold * 1000}")
        self.compare(wanted, code, rest, self.claims)
        if code == GRANTED:
            self.asked[request] = (self.claims, tokens)
            assert len(rest) == 1 + len(self.claims)
            self.left(rest[1:])

    @rule(cost=st.sampled_from([0, 100, 800]), hold=st.sampled_from([1, 600]))
    def extend(self, cost, hold):
        budgets = tuple(claim for claim in self.claims if claim.measure == "budget")
        if not self.asked or not budgets:
            return
        request = next(reversed(self.asked))
        wanted = self.model.extend(self.claims, request, cost, hold, self.now, self.seed)
        code, *rest = self.call("extend", budgets, request, f"{cost} {hold * 1000}", marker=True)
        self.compare(wanted, code, rest, budgets)

    @rule(back=st.integers(0, 3), tokens=st.sampled_from([-500, 0, 300]), cost=st.sampled_from([0, 90, 5000]), age=st.sampled_from([0, 3, 30]))
    def settle(self, back, tokens, cost, age):
        """Any of the last requests, settled before or not."""
        if not self.asked:
            return
        request = [*self.asked][-1 - back % len(self.asked)]
        claims = tuple(claim for claim in self.claims if claim.measure in SETTLING)
        wanted = self.model.settle(claims, request, tokens, cost, age, self.now, self.seed)
        code, *spent = self.call("settle", claims, request, f"{tokens} {cost} {age * 1000}", marker=True)
        assert code == 0
        budgets = [claim for claim in claims if claim.measure == "budget"]
        after = dict(zip((claim.name for claim in budgets), spent[1::2], strict=True))
        assert {name: amount for name, amount in after.items() if name in wanted} == wanted

    @rule()
    def wiped(self):
        """As a Redis that lost everything: seeded again, once; what was settled or reserved before is not known any more."""
        self.client.flushdb()
        self.tick(0)
        self.model = Model()

    def call(self, name, claims, request, numbers, *, marker=False):
        script = getattr(self.scripts, name)
        names = [key for claim in claims for key in keys("acme", claim)]
        if marker and any(claim.measure == "budget" for claim in claims):
            names.append(f"!{request}".encode())
        said = [word for claim in claims for word in (letter(claim), claim.limit)]
        reply = self.client.eval(script.text, len(names), *names, *said, request, numbers)
        if reply[0] == UNSEEDED:
            words = ["?" if self.seed is None else f"{self.seed}@{self.now:.0f}" for claim in claims if claim.measure == "budget"]
            reply = self.client.eval(script.text, len(names), *names, *said, request, numbers, " ".join(words))
        return reply

    def compare(self, wanted, code, rest, claims):
        assert wanted[0] == {GRANTED: "granted", REFUSED: "refused", HELD: "held", UNKNOWN: "unknown"}[code], (wanted, code, rest)
        if code == GRANTED:
            assert rest[0] == wanted[1]
        else:
            _, name, wait = wanted
            assert claims[rest[0] - 1].name == name
            assert math.isclose(rest[1] / 1000, wait, abs_tol=0.002), (rest, wanted)

    def left(self, found):
        for claim, left in zip(self.claims, found, strict=True):
            match claim.measure:
                case "requests" | "tokens":
                    self.model.bucket(claim).wait(0, self.now)
                    assert abs(left - max(0, int(self.model.bucket(claim).level + 1e-6))) <= 1
                case "day":
                    assert left == claim.limit - self.model.days[claim.name, window("day", self.now)]
                case "concurrent":
                    assert left == max(0, claim.limit - len(self.model.busy(claim, self.now)))
                case "budget" if claim.name in self.model.money:
                    assert left == self.model.money[claim.name].free(claim)


def test_the_scripts_do_what_the_model_does(url):
    with redis.Redis.from_url(url) as client:
        machine = type("BesideOne", (Beside,), {"client": client})
        checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
        settings_ = settings(max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=checks, derandomize=False)
        run_state_machine_as_test(machine, settings=settings_)


@pytest.mark.slow
def test_they_do_for_long(url):
    with redis.Redis.from_url(url) as client:
        machine = type("BesideLong", (Beside,), {"client": client})
        run_state_machine_as_test(machine, settings=settings(max_examples=300, stateful_step_count=50, deadline=None))


def test_windows_are_those_of_the_calendar(url):
    """Against Python's calendar: ends of months, leap years, ISO weeks that are not the year's."""
    text = CLOCK + CALENDAR + PURSE + "local number, ends = window(ARGV[1], tonumber(ARGV[2]) * 1e6); return {number, ends or -1}"
    letters = {"hour": "h", "day": "y", "week": "w", "month": "m", "total": "a"}
    moments = [datetime(year, month, 1, tzinfo=UTC).timestamp() for year in (1999, 2000, 2023, 2024, 2026, 2100, 2399) for month in range(1, 13)]
    moments += [START + step * 100_003 for step in range(400)]
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        asked = [(period, wall + off) for period in letters for wall in moments for off in (-1, 0, 1)]
        for period, wall in asked:
            pipeline.eval(text, 0, letters[period], f"{wall:.0f}")
        found = pipeline.execute()
    numbers: dict[tuple[str, str], set[int]] = {}
    for (period, wall), (number, over) in zip(asked, found, strict=True):
        assert over == (-1 if period == "total" else ends(period, wall) * 1e6), (period, wall)
        numbers.setdefault((period, window(period, wall)), set()).add(number)
    assert {len(each) for each in numbers.values()} == {1}, "one number for each window"
    for period in letters:
        named = sorted((name, *number) for (of, name), number in numbers.items() if of == period)
        assert [number for _, number in named] == sorted({number for _, number in named}), "in the order of time"


def test_ten_million_dollars_are_counted_to_a_few_nanodollars(url):
    claim = Claim("tenant:rich", "budget", 10**18, "total")
    scripts = Scripts()
    with redis.Redis.from_url(url) as client:
        names = keys("rich", claim)
        words = [letter(claim), claim.limit]
        seed = f"{5 * 10**17}@{START:.0f}"
        client.eval(scripts.reserve.text, 2, *names, *words, "r", f"0 {10**17} {10**17} 1000", seed)
        _, before, after = client.eval(scripts.settle.text, 3, *names, b"!r", *words, "r", f"0 {10**17} 0")
        assert abs(before - 5 * 10**17) < 1000
        assert abs(after - 6 * 10**17) < 1000
        code, granted, left = client.eval(scripts.reserve.text, 2, *names, *words, "r2", "0 7 7 1000")
        assert (code, granted) == (GRANTED, 7)
        assert abs(left - 4 * 10**17) < 1000
