"""Limits in memory: all of a request's claims or none, and the truth in the estimate's place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.core.gauges import Ask
from llm_gateway.core.tenancy import Claim, Measure
from llm_gateway.stores.gauges import Account, Memory

NOON = 1_764_000_000.0
REQUESTS = Claim("key:1", "requests", 3)
TOKENS = Claim("key:1", "tokens", 100)
DAY = Claim("tenant:t", "day", 2)
SLOTS = Claim("tenant:t", "concurrent", 2)
MONEY = Claim("tenant:t", "budget", 1000, "month", hard=True, alerts=(0.5, 1.0))


def ask(now: float = 1.0, *, tokens: int = 10, cost: int = 0, least: int | None = None, wall: float = NOON) -> Ask:
    return Ask("x", tokens, cost, cost if least is None else least, now=now, wall=wall)


def take(account: Account, asked: Ask) -> Claim | None:
    return account.reserve(asked).refused


def test_a_minutes_worth_of_requests_may_come_at_once() -> None:
    account = Memory().bind("t", (REQUESTS,))
    assert [take(account, ask()) for _ in range(4)] == [None, None, None, REQUESTS]
    verdict = account.reserve(ask())
    assert (verdict.wait, verdict.left) == (20.0, (0,))
    assert take(account, ask(21.1)) is None


def test_tokens_are_estimated_before_and_corrected_after() -> None:
    account = Memory().bind("t", (TOKENS,))
    first = ask(tokens=60)
    assert account.reserve(first).left == (40,)
    assert take(account, ask(tokens=60)) == TOKENS
    account.settle(first, 10, 0)
    assert account.reserve(ask(tokens=60)).left == (30,)


def test_what_is_refused_takes_nothing() -> None:
    store = Memory()
    account = store.bind("t", (REQUESTS, TOKENS, DAY))
    assert [take(account, ask(tokens=50)) for _ in range(3)] == [None, None, DAY]
    assert store.bind("t", (REQUESTS, TOKENS)).reserve(ask(tokens=0)).left == (0, 0)
    tomorrow = NOON + 86_400
    assert take(account, ask(now=100.0, tokens=50, wall=tomorrow)) is None


def test_slots_come_back_whatever_became_of_the_request() -> None:
    account = Memory().bind("t", (SLOTS,))
    held = [ask(), ask()]
    assert [take(account, each) for each in held] == [None, None]
    refused = account.reserve(ask())
    assert (refused.refused, refused.wait) == (SLOTS, 1.0)
    account.settle(held[0], 0, 0)
    assert take(account, ask()) is None


def test_one_holders_gauge_is_shared_by_all_who_count_against_it_and_by_no_other_tenant() -> None:
    store = Memory()
    mine, yours = store.bind("t", (SLOTS,)), store.bind("t", (SLOTS, REQUESTS))
    assert [take(mine, ask()), take(yours, ask()), take(mine, ask())] == [None, None, SLOTS]
    assert take(store.bind("u", (SLOTS,)), ask()) is None


def test_a_limit_of_nothing_lets_nothing_through() -> None:
    measures: tuple[Measure, ...] = ("requests", "tokens", "day", "concurrent")
    for measure in measures:
        claim = Claim("key:1", measure, 0)
        assert take(Memory().bind("t", (claim,)), ask()) == claim
    free = Claim("key:1", "budget", 0)
    assert take(Memory().bind("t", (free,)), ask(cost=1)) == free


def test_a_changed_limit_goes_on_from_where_it_was() -> None:
    store = Memory()
    account = store.bind("t", (REQUESTS,))
    for _ in range(3):
        account.reserve(ask())
    assert take(store.bind("t", (Claim("key:1", "requests", 60),)), ask()) is not None
    assert take(store.bind("t", (Claim("key:1", "requests", 60),)), ask(2.1)) is None


def test_a_refusal_names_the_limit_that_takes_longest_and_what_is_left_of_all() -> None:
    account = Memory().bind("t", (REQUESTS, TOKENS, DAY))
    for _ in range(2):
        account.reserve(ask(tokens=20))
    over = account.reserve(ask(tokens=70))
    assert (over.refused, over.wait, over.left) == (DAY, 86_400 - NOON % 86_400, (1, 60))
    roomy = Memory().bind("t", (REQUESTS, TOKENS, Claim("tenant:t", "day", 9)))
    for _ in range(3):
        roomy.reserve(ask(tokens=20))
    short = roomy.reserve(ask(tokens=100))
    assert (short.refused, short.wait, short.left) == (TOKENS, 36.0, (0, 40)), "of the two that are short; the day is not over"


class Told:
    """A spend table."""

    def __init__(self, spent: int | None) -> None:
        self.amount = spent

    def spent(self, claim: Claim, wall: float) -> int | None:
        return self.amount


def test_a_budget_begins_where_the_spend_table_ends() -> None:
    account = Memory(Told(700)).bind("t", (MONEY,))
    assert account.reserve(ask(cost=301)).refused == MONEY
    assert account.reserve(ask(cost=300)).cost == 300
    assert account.reserve(ask(cost=1)).refused == MONEY


def test_nothing_is_granted_before_that_is_known() -> None:
    seeds = Told(None)
    store = Memory(seeds)
    unknown = store.bind("t", (MONEY,)).reserve(ask(cost=1))
    assert (unknown.refused, unknown.unknown, unknown.wait) == (MONEY, True, 1.0)
    soft = Claim("tenant:t", "budget", 1000, "day", hard=False)
    assert take(store.bind("t", (soft,)), ask(cost=1)) is None
    seeds.amount = 900
    assert take(store.bind("t", (MONEY,)), ask(cost=101)) == MONEY
    assert take(store.bind("t", (MONEY,)), ask(cost=100)) is None


def test_a_budget_begins_with_nothing_spent_in_its_next_window_whatever_was_told_of_the_first() -> None:
    account = Memory(Told(700)).bind("t", (MONEY,))
    asked = ask(cost=300)
    account.reserve(asked)
    account.settle(asked, 0, 300)
    spent = account.reserve(ask(cost=1))
    assert account.reserve(ask(cost=1000, wall=NOON + spent.wait)).cost == 1000


def test_of_several_budgets_the_one_that_is_short_is_named_and_a_soft_one_never_is() -> None:
    soft, enough = Claim("key:1", "budget", 10, "month", hard=False), Claim("user:u", "budget", 500, "month")
    store, elsewhere = Memory(), ask(cost=600)
    by_all, tenants = store.bind("t", (soft, enough, MONEY)), store.bind("t", (MONEY,))
    tenants.reserve(elsewhere)
    assert by_all.reserve(ask(cost=500)).refused == MONEY
    assert by_all.reserve(ask(cost=400)).refused is None
    assert by_all.extend(ask(cost=1)).refused == MONEY
    tenants.settle(elsewhere, 0, 0)
    assert by_all.extend(ask(cost=100)).refused is None, "the soft one has long been overspent"
    assert by_all.extend(ask(cost=1)).refused == enough


def test_as_much_is_granted_as_is_left_if_that_would_do() -> None:
    account = Memory().bind("t", (MONEY,))
    first = ask(cost=800)
    account.reserve(first)
    verdict = account.reserve(ask(cost=800, least=100))
    assert (verdict.refused, verdict.cost) == (None, 200)
    held = account.reserve(ask(cost=100))
    assert (held.refused, held.held, held.wait) == (MONEY, True, 1.0)
    account.settle(first, 0, 10)
    assert [take(account, ask(cost=cost)) for cost in (791, 790, 1)] == [MONEY, None, MONEY]


def test_a_budget_that_is_spent_is_back_in_its_next_window() -> None:
    account = Memory().bind("t", (MONEY,))
    asked = ask(cost=1000)
    account.reserve(asked)
    account.settle(asked, 0, 1000)
    spent = account.reserve(ask(cost=1))
    assert (spent.refused, spent.held) == (MONEY, False)
    assert take(account, ask(cost=1, wall=NOON + spent.wait)) is None


def test_more_is_reserved_for_a_dearer_target_or_nothing_is() -> None:
    account = Memory().bind("t", (MONEY, SLOTS))
    asked = ask(cost=600)
    account.reserve(asked)
    assert account.extend(ask(cost=500)).refused == MONEY
    assert account.extend(ask(cost=400)).refused is None
    account.settle(ask(cost=1000), 0, 999)
    assert [take(account, ask(cost=cost)) for cost in (2, 1)] == [MONEY, None]


def test_alerts_are_told_once_each() -> None:
    told: list[tuple[str, float, int]] = []
    account = Memory(alert=lambda tenant, claim, share, spent: told.append((tenant, share, spent))).bind("t", (MONEY,))
    for cost in (400, 100, 100, 400, 100):
        asked = ask()
        account.reserve(asked)
        account.settle(asked, 0, cost)
    assert told == [("t", 0.5, 500), ("t", 1.0, 1000)]


def test_alerts_of_a_budget_that_was_raised_are_told_anew() -> None:
    told: list[tuple[float, int]] = []
    store = Memory(alert=lambda _, __, share, spent: told.append((share, spent)))
    for amount, cost in ((1000, 1000), (1000, 1), (4000, 500), (4000, 501), (4000, 1998), (2000, 1)):
        account = store.bind("t", (Claim("tenant:t", "budget", amount, "month", hard=False, alerts=(0.5, 1.0)),))
        asked = ask()
        account.reserve(asked)
        account.settle(asked, 0, cost)
    assert told == [(1.0, 1000), (0.5, 2002), (1.0, 4000)]


def test_what_is_at_rest_is_forgotten_and_money_is_not() -> None:
    store = Memory()
    for number in range(10):
        account = store.bind("t", (Claim(f"key:{number}", "requests", 5), Claim(f"key:{number}", "concurrent", 5)))
        account.reserve(ask())
        if number:
            account.settle(ask(), 0, 0)
    store.bind("t", (MONEY,)).reserve(ask(cost=5))
    assert len(store) == 21
    store.rest(1000.0, NOON)
    assert len(store) == 2  # one slot in use, one budget


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.booleans()), max_size=60))
def test_tokens_in_flight_never_exceed_the_limit_and_all_slots_come_back(asked: list[tuple[int, int, bool]]) -> None:
    store = Memory()
    account = store.bind("t", (TOKENS, SLOTS))
    under_way: list[tuple[Ask, int]] = []
    for tokens, truth, ends in asked:
        each = ask(tokens=tokens)
        if take(account, each) is None:
            under_way.append((each, min(truth, tokens)))
        assert sum(one.tokens for one, _ in under_way) <= 100
        assert len(under_way) <= 2
        if ends and under_way:
            done, used = under_way.pop()
            account.settle(done, used, 0)
            account = store.bind("t", (TOKENS, SLOTS))
    for done, used in under_way:
        account.settle(done, used, 0)
    assert [take(account, ask(tokens=0)) for _ in range(3)] == [None, None, SLOTS]


def test_what_costs_nothing_is_let_through_where_a_budget_is_overspent() -> None:
    account = Memory(Told(1200)).bind("t", (MONEY,))
    assert take(account, ask(cost=1)) == MONEY
    assert take(account, ask(cost=0)) is None
