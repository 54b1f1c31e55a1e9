"""Limits and budgets on a real Redis: shared between stores, and what holds while it is frozen, full, read-only, wiped or gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.terms import parse
from redis_server import redis_server, say
from stores.redis.conftest import DOLLAR, Known, ask, budget, port_of, store, until

REQUESTS = Claim("key:1", "requests", 4)
TOKENS = Claim("key:1", "tokens", 6000)
SLOTS = Claim("key:1", "concurrent", 2)
DAY = Claim("key:1", "day", 3)


async def spent(account, claim: Claim) -> int:
    """By asking for everything there is."""
    verdict = await account.reserve(ask(f"look-{time.perf_counter_ns()}", cost=claim.limit, least=0, seconds=0.01))
    await asyncio.sleep(0.02)
    return claim.limit - verdict.cost


async def test_two_stores_count_together(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, second = one.bind(REQUESTS, TOKENS), two.bind(REQUESTS, TOKENS)
        assert (await first.reserve(ask("a", tokens=1000))).left == (3, 5000)
        assert (await second.reserve(ask("b", tokens=2000))).left == (2, 3000)
        second.settle(ask("b", tokens=2000), 500, 0)
        await until(lambda: not two.shared.client.waiting)
        assert (await first.reserve(ask("c", tokens=0))).left[1] in (4500, 4501, 4502)
        await second.reserve(ask("d"))
        verdict = await first.reserve(ask("e"))
        assert verdict.refused == REQUESTS
        assert 13 < verdict.wait <= 15


async def test_all_or_nothing(fresh):
    async with store(fresh, patient=True) as one:
        account = one.bind(REQUESTS, DAY, SLOTS, budget())
        for name in "ab":
            assert (await account.reserve(ask(name, cost=1))).refused is None
        assert (await account.reserve(ask("c", cost=1))).refused == SLOTS
        account.settle(ask("a", cost=1), 0, 1)
        account.settle(ask("b", cost=1), 0, 1)
        verdict = await account.reserve(ask("d", cost=1))
        assert verdict.left == (1, 0, 1, DOLLAR - 3), "the refused one took nothing"


async def test_no_claims_no_redis(fresh):
    async with store(fresh) as one:
        verdict = one.bind().reserve(ask("a"))
        assert verdict.refused is None
        await until(lambda: not one.shared.client.waiting)
        assert sum(one.shared.meter.seconds.counts) == len(one.shared.scripts.all) + 3, "what was said on connecting"


async def test_a_budget_grants_what_is_left_and_says_who_holds_the_rest(fresh):
    async with store(fresh, patient=True) as one:
        claim = budget(1000)
        account = one.bind(claim)
        assert (await account.reserve(ask("a", cost=700))).cost == 700
        assert (await account.reserve(ask("b", cost=700, least=100))).cost == 300
        held = await account.reserve(ask("c", cost=100))
        assert (held.refused, held.held, held.wait) == (claim, True, 1.0)
        account.settle(ask("a", cost=700), 0, 950)
        over = await account.reserve(ask("d", cost=100))
        assert (over.refused, over.held) == (claim, False)
        assert over.wait > 0
        account.settle(ask("b", cost=300), 0, 0)
        assert (await account.reserve(ask("e", cost=100, least=50))).cost == 50
        assert (await account.reserve(ask("f"))).cost == 0, "what costs nothing is no matter"


async def test_a_total_is_never_over(fresh):
    async with store(fresh, patient=True) as one:
        account = one.bind(budget(100, "total"))
        assert (await account.reserve(ask("a", cost=101))).wait == float("inf")


async def test_soft_budgets_refuse_nothing_and_tell_once(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        claim = budget(1000, hard=False, alerts=(0.5, 1.0))
        first, second = one.bind(claim), two.bind(claim)
        for index, account in enumerate((first, second, first, second)):
            assert (await account.reserve(ask(str(index), cost=400))).cost == 400
            account.settle(ask(str(index), cost=400), 0, 400)
            await until(lambda: not one.shared.client.waiting + two.shared.client.waiting)
        assert sorted(one.alerts + two.alerts) == [
            ("acme", "tenant:acme budget month", 0.5, 800), ("acme", "tenant:acme budget month", 1.0, 1200),
        ]  # fmt: skip


async def test_extending_is_all_or_nothing(fresh):
    async with store(fresh, patient=True) as one:
        claim = budget(1000)
        account = one.bind(claim, REQUESTS)
        await account.reserve(ask("a", cost=300))
        assert (await account.extend(ask("a", cost=300))).cost == 300
        refused = await account.extend(ask("a", cost=500))
        assert (refused.refused, refused.held) == (claim, True)
        account.settle(ask("a", cost=600), 0, 550)
        assert await spent(account, claim) == 550
        assert (await one.bind(REQUESTS).extend(ask("a", cost=5))).cost == 5, "without budgets there is nothing to ask"


async def test_settling_twice_counts_once_and_late_or_unreserved_counts_too(fresh):
    async with store(fresh, patient=True) as one:
        claim = budget()
        account = one.bind(claim)
        await account.reserve(ask("a", cost=100))
        for _ in range(3):
            account.settle(ask("a", cost=100), 0, 70)
        assert await spent(account, claim) == 70
        await account.reserve(ask("b", cost=100, seconds=0.01))
        await asyncio.sleep(0.03)
        account.settle(ask("b", cost=100), 0, 7)
        account.settle(ask("never reserved"), 0, 3)
        assert await spent(account, claim) == 80


async def test_who_leaves_while_redis_answers_settles_like_others(own):
    url, process = own
    async with store(url, patient=True) as one:
        account = one.bind(SLOTS, TOKENS, budget())
        await account.reserve(ask("warm"))
        account.settle(ask("warm"), 0, 0)
        os.kill(process.pid, signal.SIGSTOP)
        left = ask("left", tokens=600, cost=100)
        task = asyncio.ensure_future(account.reserve(left))
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        account.settle(left, 0, 0)
        os.kill(process.pid, signal.SIGCONT)
        assert (await account.reserve(ask("b", cost=DOLLAR, least=1))).cost == DOLLAR
        assert say(port_of(url), "ZCARD", "llmgw:{" + _tag() + "}:key:1 concurrent") == 1


class Freezing(Known):
    """Redis stands still just when it is told what was spent before."""

    process: subprocess.Popen[bytes] | None = None

    def spent(self, claim: Claim, wall: float) -> int | None:
        process, self.process = self.process, None
        if process is not None:
            os.kill(process.pid, signal.SIGSTOP)
        return super().spent(claim, wall)


@pytest.mark.parametrize("loss", ["closed", "open"])
@pytest.mark.parametrize("left", [True, False], ids=["left", "waits"])
async def test_what_was_granted_too_late_for_its_request_is_given_back_at_once(own, loss, left):
    """A reservation that was sent again with seeds, whose answer came after its time, and whose client may have left."""
    url, process = own
    seeds = Freezing(month=5)
    async with store(url, seeds, loss=lambda _: loss) as one:
        account, late = one.bind(SLOTS, budget()), ask("late", cost=100)
        seeds.process = process
        task = asyncio.ensure_future(account.reserve(late))
        await until(lambda: seeds.process is None)
        if left:
            await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if left or (await task).refused is None:
            account.settle(late, 0, 0)
        await until(lambda: not one.shared.ready)
        os.kill(process.pid, signal.SIGCONT)
        await one.ready()
        await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
        assert held(url) == (5, 0, 0)
        assert say(port_of(url), "EXISTS", "llmgw:{" + _tag() + "}:!late") == 1, "it was asked to"


async def test_more_money_that_comes_after_the_settlement_is_held_by_nobody(fresh):
    """A stream asks for more, and ends; Redis was emptied, so both are sent again with seeds, the settlement first."""
    async with store(fresh, Known(month=5), patient=True) as one:
        account = one.bind(budget())
        assert (await account.reserve(ask("a", cost=100))).refused is None
        say(port_of(fresh), "FLUSHALL")
        more = asyncio.ensure_future(account.extend(ask("a", cost=50)))
        await asyncio.sleep(0)
        account.settle(ask("a", cost=100), 0, 7)
        assert (await more).refused == budget()
        await until(lambda: not one.shared.client.waiting)
        assert held(fresh) == (12, 0, 0)


def held(url: str) -> tuple[int, int, int]:
    """What was spent, what is reserved, how many slots are taken."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        kept = client.hgetall("llmgw:{" + _tag() + "}:tenant:acme budget month")
        return int(kept["s"]), int(kept["r"]), client.zcard("llmgw:{" + _tag() + "}:key:1 concurrent")


def _tag() -> str:
    from llm_gateway.stores.redis.scripts import tag

    return tag("acme")


# -- 3 replicas, one dollar ----------------------------------------------------------------------------------------------


SPENDER = """
import asyncio, random, sys, time
sys.path[:0] = sys.argv[3:]
from stores.redis.conftest import ask, budget, store

async def main(url, who):
    dice = random.Random(who)
    async with store(url, patient=True) as one:
        account = one.bind(budget())
        spent = granted = held = other = 0
        async def client(number):
            nonlocal spent, granted, held, other
            what = ask(f"{who}-{number}", cost=20_000_000, least=20_000_000)
            verdict = await account.reserve(what)
            if verdict.refused is not None:
                held += verdict.held
                other += not verdict.held
                return
            granted += 1
            await asyncio.sleep(dice.random() / 50)
            cost = dice.choice([1_000_000, 5_000_000, 20_000_000])
            spent += cost
            account.settle(what, 0, cost)
        for _ in range(3):
            await asyncio.gather(*(client(number) for number in range(_ * 100, _ * 100 + 100)))
    print(spent, granted, held, other)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def spend(url: str, round_: int) -> None:
    """Three processes of 3 x 100 parallel reservations each, of 2 cents, of one dollar."""
    here = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", SPENDER, url]
    running = [subprocess.Popen([*command, f"{round_}-{who}", here], stdout=subprocess.PIPE) for who in range(3)]
    results = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in running]
    spent_, granted, held, other = map(sum, zip(*results, strict=True))
    assert spent_ <= DOLLAR, results
    assert granted >= 50
    assert granted + held + other == 900
    with redis.Redis.from_url(url, decode_responses=True) as client:
        kept = client.hgetall("llmgw:{" + _tag() + "}:tenant:acme budget month")
        assert (int(kept["s"]), int(kept["r"])) == (spent_, 0), "what Redis says is what was spent"
        assert DOLLAR - spent_ < 20_000_000 or not other
        client.flushall()


@pytest.mark.row(28)
def test_three_replicas_spend_no_more_than_the_budget(fresh):
    spend(fresh, 0)


@pytest.mark.row(28)
@pytest.mark.slow
def test_three_replicas_twenty_times(fresh):
    for round_ in range(20):
        spend(fresh, round_)


@pytest.mark.row(28)
async def test_released_money_is_usable_again(fresh):
    async with store(fresh, patient=True) as one, store(fresh, patient=True) as two:
        first, second = one.bind(budget()), two.bind(budget())
        await first.reserve(ask("a", cost=DOLLAR))
        assert (await second.reserve(ask("b", cost=DOLLAR // 2))).held
        first.settle(ask("a", cost=DOLLAR), 0, DOLLAR // 4)
        await until(lambda: not one.shared.client.waiting)
        assert (await second.reserve(ask("b2", cost=DOLLAR // 2))).cost == DOLLAR // 2


@pytest.mark.row(29)
async def test_what_a_killed_replica_held_is_free_again(fresh):
    holder = (
        "import asyncio, sys\nsys.path[:0] = sys.argv[2:]\nfrom stores.redis.conftest import ask, budget, store\nfrom llm_gateway.core.tenancy import Claim\n"
        "async def main():\n    async with store(sys.argv[1], patient=True) as one:\n"
        "        account = one.bind(Claim('key:1', 'concurrent', 2), budget())\n"
        "        for name in 'ab':\n            print((await account.reserve(ask('dies ' + name, cost=400_000_000, seconds=0.8))).cost, flush=True)\n"
        "        await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, fresh, str(Path(__file__).parents[2])], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert [await asyncio.to_thread(process.stdout.readline) for _ in range(2)] == [b"400000000\n"] * 2
    process.kill()
    process.wait()
    async with store(fresh, patient=True) as one:
        slots, money = one.bind(SLOTS), one.bind(budget())
        assert (await slots.reserve(ask("a"))).refused == SLOTS
        assert (await money.reserve(ask("b", cost=DOLLAR))).held
        await asyncio.sleep(0.9)
        assert (await slots.reserve(ask("c"))).refused is None
        assert (await money.reserve(ask("d", cost=DOLLAR))).cost == DOLLAR
        with redis.Redis.from_url(fresh) as client:
            assert client.hlen("llmgw:{" + _tag() + "}:tenant:acme budget month") == 6, "and leaves nothing behind"


# -- Redis in trouble ----------------------------------------------------------------------------------------------------


@pytest.mark.row(24)
async def test_killed_and_back(own, tmp_path):
    url, process = own
    claims = (REQUESTS, TOKENS, budget(hard=False))
    async with store(url, shares=2, seeds=Known(month=500)) as one:
        account = one.bind(*claims)
        assert (await account.reserve(ask("a", cost=10))).left == (3, 6000, DOLLAR - 510)
        process.kill()
        await until(lambda: not one.shared.ready)
        begun = time.perf_counter()
        verdicts = [await account.reserve(ask(f"away {number}", tokens=100, cost=10)) for number in range(5)]
        assert time.perf_counter() - begun < 0.05
        assert [verdict.refused for verdict in verdicts] == [None, None, REQUESTS, REQUESTS, REQUESTS], "half of four, for one of two workers"
        assert verdicts[1].left == (0, 2800, DOLLAR - 510)
        for number in range(2):
            account.settle(ask(f"away {number}", tokens=100, cost=10), 100, 10)
        assert len(one.shared.outbox) == 2
        with redis_server(tmp_path, port_of(url)):
            begun = time.perf_counter()
            await one.ready()
            assert time.perf_counter() - begun < 5
            await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
            assert (await account.reserve(ask("b"))).left == (3, 6000, DOLLAR - 520), "seeded anew, and what was granted meanwhile is booked"
        assert [turn.reason for turn in one.turns][:3] == ["", "lost", ""]
        assert one.shared.gauges()["llm_gateway_redis_stand_in_total"] == {'outcome="granted"': 2, 'outcome="refused"': 3}


@pytest.mark.row(24)
@pytest.mark.parametrize("loss", ["closed", "open"])
async def test_hard_budgets_without_redis(own, loss):
    url, process = own
    async with store(url, loss=lambda _: loss) as one:
        claim = budget()
        account = one.bind(claim, REQUESTS)
        await account.reserve(ask("a", cost=10))
        process.kill()
        await until(lambda: not one.shared.ready)
        verdict = await account.reserve(ask("b", cost=10))
        more = await account.extend(ask("a", cost=10))
        if loss == "open":
            assert (verdict.refused, verdict.cost, more.cost) == (None, 10, 10)
        else:
            assert (verdict.refused, verdict.unknown, verdict.wait) == (claim, True, 1.0)
            assert (more.refused, more.unknown) == (claim, True)


@pytest.mark.row(24)
async def test_it_was_never_there():
    async with store("redis://127.0.0.1:1", wait=False) as one:
        verdict = await one.bind(REQUESTS).reserve(ask("a"))
        assert verdict.left == (3,)
        await until(lambda: one.turns)
        await asyncio.sleep(0.3)
        assert [turn.reason for turn in one.turns] == ["away"], "told once"


@pytest.mark.row(25)
async def test_frozen(own):
    url, process = own
    async with store(url) as one:
        account = one.bind(REQUESTS, budget(hard=False))
        await account.reserve(ask("a", cost=10))
        os.kill(process.pid, signal.SIGSTOP)
        waits = []
        for number in range(20):
            begun = time.perf_counter()
            assert (await account.reserve(ask(f"frozen {number}", cost=10))).refused in (None, REQUESTS)
            waits.append(time.perf_counter() - begun)
        assert waits[0] < 0.12, "50 ms, and what a busy machine adds"
        assert max(waits[1:]) < 0.03, "once"
        os.kill(process.pid, signal.SIGCONT)
        begun = time.perf_counter()
        await one.ready()
        assert time.perf_counter() - begun < 5
        assert [turn.reason for turn in one.turns] == ["", "timeout", ""]


@pytest.mark.row(25)
@pytest.mark.slow
async def test_frozen_for_long(own):
    """Its connection is given up, and others are tried: back within seconds of its waking."""
    url, process = own
    async with store(url) as one:
        account = one.bind(REQUESTS)
        os.kill(process.pid, signal.SIGSTOP)
        await account.reserve(ask("a"))
        await asyncio.sleep(2.7)
        begun = time.perf_counter()
        assert (await account.reserve(ask("b"))).refused is None
        assert time.perf_counter() - begun < 0.03
        os.kill(process.pid, signal.SIGCONT)
        await one.ready(5)
        await account.reserve(ask("c"))
        assert [turn.reason for turn in one.turns] == ["", "timeout", ""]


@pytest.mark.row(25)
async def test_what_a_frozen_redis_reserved_unheard_is_taken_back(own):
    url, process = own
    async with store(url) as one:
        claim = budget()
        account = one.bind(claim, SLOTS)
        await account.reserve(ask("warm", cost=10))
        account.settle(ask("warm", cost=10), 0, 10)
        await until(lambda: not one.shared.client.waiting)
        os.kill(process.pid, signal.SIGSTOP)
        assert (await account.reserve(ask("unheard", cost=DOLLAR // 2))).unknown
        os.kill(process.pid, signal.SIGCONT)
        await one.ready()
        await until(lambda: not len(one.shared.outbox) and not one.shared.client.waiting)
        assert (await account.reserve(ask("b", cost=DOLLAR, least=0))).cost == DOLLAR - 10


@pytest.mark.row(26)
async def test_full(own):
    url, _ = own
    async with store(url, patient=True) as one:
        account = one.bind(REQUESTS, budget(hard=False))
        await account.reserve(ask("a", cost=10))
        say(port_of(url), "CONFIG", "SET", "maxmemory", "1")
        for number in range(8):
            await account.reserve(ask(f"full {number}", cost=10))
        assert not one.shared.ready, "after five"
        assert one.shared.meter.failures["oom"] == 5
        account.settle(ask("a", cost=10), 0, 10)
        say(port_of(url), "CONFIG", "SET", "maxmemory", "0")
        await one.ready(5)
        await until(lambda: not len(one.shared.outbox))
        assert one.turns[-1].reason == ""
        assert await spent(account, budget()) <= 10


@pytest.mark.row(26)
async def test_read_only_and_writable_again(own, tmp_path):
    url, _ = own
    async with store(url, patient=True) as one:
        account = one.bind(REQUESTS)
        with redis_server(tmp_path) as (other, _):
            say(port_of(url), "REPLICAOF", "127.0.0.1", port_of(other))
            assert (await account.reserve(ask("a"))).refused is None
            await until(lambda: not one.shared.ready)
            await asyncio.sleep(0.2)
            assert not one.shared.ready, "one that only reads is not ready"
            say(port_of(url), "REPLICAOF", "NO", "ONE")
            await one.ready(5)
        assert (await account.reserve(ask("b"))).refused is None
        assert "readonly" in one.shared.meter.failures


@pytest.mark.row(26)
async def test_without_its_scripts(own):
    url, _ = own
    async with store(url, patient=True) as one:
        account = one.bind(REQUESTS, budget())
        for number in range(3):
            say(port_of(url), "SCRIPT", "FLUSH")
            verdicts = await asyncio.gather(*(account.reserve(ask(f"{number}-{each}", cost=1)) for each in "ab"))
            assert number == 2 or [verdict.refused for verdict in verdicts] == [None, None]
            account.settle(ask(f"{number}-a", cost=1), 0, 1)
        assert one.shared.meter.failures == {}


@pytest.mark.row(26)
async def test_wiped_it_is_seeded_once(own):
    url, _ = own
    seeds = Known(month=600_000_000)
    async with store(url, seeds, patient=True) as one, store(url, seeds, patient=True) as two:
        accounts = one.bind(budget()), two.bind(budget())
        assert (await accounts[0].reserve(ask("a", cost=10))).left == (400_000_000 - 10,)
        accounts[0].settle(ask("a", cost=10), 0, 10)
        await until(lambda: not one.shared.client.waiting)
        say(port_of(url), "FLUSHALL")
        seeds.asked = 0
        left = await asyncio.gather(*(accounts[number % 2].reserve(ask(f"b{number}", cost=1_000_000)) for number in range(100)))
        assert min(verdict.left for verdict in left) == (300_000_000,)
        assert seeds.asked <= 100
        kept = say(port_of(url), "HGET", "llmgw:{" + _tag() + "}:tenant:acme budget month", "s")
        assert kept == b"600000000", "not twice"
        accounts[1].settle(ask("b1", cost=1_000_000), 0, 5)
        asked = seeds.asked
        await accounts[1].reserve(ask("c", cost=1_000_000))
        assert seeds.asked == asked


@pytest.mark.row(26)
async def test_what_was_under_way_when_it_was_wiped_is_booked(own):
    url, _ = own
    async with store(url, Known(month=100), patient=True) as one:
        account = one.bind(budget())
        await account.reserve(ask("a", cost=1000))
        say(port_of(url), "FLUSHALL")
        account.settle(ask("a", cost=1000), 0, 900)
        await until(lambda: not one.shared.client.waiting)
        assert (await account.reserve(ask("b"))).left == (DOLLAR - 1000,)


async def test_not_known_yet(fresh):
    seeds = Known()
    seeds.unknown = True
    async with store(fresh, seeds, patient=True) as one:
        hard, soft = one.bind(budget()), one.bind(budget(hard=False, period="day"))
        verdict = await hard.reserve(ask("a", cost=1))
        assert (verdict.refused, verdict.unknown) == (budget(), True)
        assert (await soft.reserve(ask("b", cost=1))).refused is None
        soft.settle(ask("b", cost=1), 0, 1)
        seeds.unknown = False
        assert (await hard.reserve(ask("c", cost=1))).refused is None


async def test_a_window_of_another_clock_is_not_this_ones(fresh):
    """A worker whose clock is a month behind tells what was spent then; one that is ahead knows nothing of now."""
    async with store(fresh, Known(month=700), patient=True) as one:
        behind, ahead = ask("a", cost=1), ask("b", cost=1)
        behind.wall -= 40 * 86400
        ahead.wall += 40 * 86400
        assert (await one.bind(budget()).reserve(ahead)).unknown
        assert (await one.bind(budget()).reserve(behind)).left == (DOLLAR - 1,)


async def test_closing_lets_settlements_arrive(fresh):
    async with store(fresh, patient=True) as one:
        account = one.bind(budget())
        for number in range(50):
            account.settle(ask(str(number)), 0, 1)
    async with store(fresh, patient=True) as two:
        assert await spent(two.bind(budget()), budget()) == 50


async def test_it_prints_itself(fresh):
    async with store(fresh) as one:
        assert "ready" in repr(one.shared)
        assert parse(fresh).label in repr(one.shared)
        assert repr(one.bind(REQUESTS)) == "<Account of acme: key:1 requests>"
