"""Sums are the same, wherever they are read from."""

from __future__ import annotations

import random
from calendar import timegm
from collections import Counter
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.asking import BY, MEASURES, Question, ask, page
from llm_gateway.stores.sql.sums import DAY, HOUR
from llm_gateway.stores.sql.tables import daily, hourly, usage
from stores.sql.made import batch, line, rows

BEGIN = timegm((2026, 11, 24, 0, 0, 0)) * 1000
END = BEGIN + 4 * DAY


def stamp(at: int) -> str:
    hours, rest = divmod(at - BEGIN, HOUR)
    minutes, rest = divmod(rest, 60_000)
    return f"2026-11-{24 + hours // 24:02}T{hours % 24:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}Z"


def some(seed: int, count: int) -> list[bytes]:
    """Requests of four days, of all kinds."""
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        ok = chance.random() < 0.8
        cached = ok and chance.random() < 0.2
        lost = {"provider": "slow", "model": "x", "key": "0", "outcome": "timeout", "status": 0, "ms": 9.0, "input": 11, "cost": chance.randrange(1, 50)}
        attempts = [lost] if chance.random() < 0.2 else []
        lines.append(
            line(
                id=f"r{number}", ts=stamp(chance.randrange(BEGIN, END)), tenant=chance.choice(["acme", "blue"]), project=chance.choice(["", "search", "chat"]),
                user=chance.choice(["", "bob", "eve"]), key_id=chance.choice(["k1", "k2"]), model=chance.choice(["gpt-4", "smart"]),
                provider=chance.choice(["openai", "local"]), tags=chance.choice([[], ["batch"], ["batch", "eu"], ["eu"]]), status=200 if ok else 429,
                outcome="ok" if ok else "rate_limit_exceeded", cached=cached, saved=40 if cached else None, attempts=attempts,
                session=chance.choice(["", "s1"]),
                cost=None if chance.random() < 0.1 else 100 + sum(each["cost"] for each in attempts), cache_write=chance.randrange(5), estimated=not ok,
            )
        )  # fmt: skip
    return lines


def expected(booked: list[SimpleNamespace], question: Question, labels: tuple[str, ...]) -> dict[tuple[Any, ...], Counter[str]]:
    """Added up in the plainest way there is."""
    found: dict[tuple[Any, ...], Counter[str]] = {}
    for each_ in booked:
        row = vars(each_)
        tags = row["tags"].split(",") if row["tags"] else [""]
        if not question.since <= row["at"] < question.until or any(not matches(row, tags, *each) for each in question.where.items()):
            continue
        for tag in tags if "tag" in labels else [""]:
            said = row | {"tag": tag, "day": row["at"] - row["at"] % DAY, "hour": row["at"] - row["at"] % HOUR}
            found.setdefault(tuple(said[label] for label in labels), Counter()).update(adds(row))
    return found


def adds(row: dict[str, Any]) -> dict[str, float]:
    """What a row is to its sums, said without anything of ours."""
    request = not row["parent"]
    return {name: row[name] for name in MEASURES if name in row} | {
        "requests": int(request), "absorbed": int(not request), "failed": int(request and row["outcome"] != "ok"),
        "cached": int(request and row["cached"]), "estimated": int(row["estimated"]), "ms": row["ms"] if request else 0.0,
        "unpriced": int(row["cost"] is None and row["input"] + row["output"] > 0), "cost": row["cost"] or 0, "saved": row["saved"] or 0,
        "cache_write": row["cache_write_5m"] + row["cache_write_1h"],
    }  # fmt: skip


def matches(row: dict[str, Any], tags: list[str], name: str, values: tuple[str, ...]) -> bool:
    if name == "tag":
        return bool(set(values) & set(tags))
    if name == "key":
        return row["key_id"] in values or row["key"] in values
    if name == "status":
        return any(str(row["status"]) == value or str(row["status"])[0] + "xx" == value for value in values)
    return row[name] in values


TIMES = {
    "whole days": (BEGIN, END),
    "from the middle of an hour to the middle of another": (BEGIN + 5 * HOUR + 1234, END - 7 * HOUR - 55_555),
    "within one day": (BEGIN + DAY + 30_000, BEGIN + DAY + 7 * HOUR),
    "within one hour": (BEGIN + 61_000, BEGIN + 3_000_000),
    "nothing": (BEGIN, BEGIN),
}
BYS = [
    (), ("tenant",), ("project",), ("user",), ("key",), ("model", "provider"), ("tag",), ("day",), ("hour",),
    ("tenant", "day"), ("tag", "hour", "upstream_model"),
]  # fmt: skip
WHERES: list[dict[str, tuple[str, ...]]] = [
    {}, {"tenant": ("acme",)}, {"tag": ("batch",)}, {"key": ("ci",), "model": ("smart", "gpt-4")}, {"status": ("4xx",)},
    {"status": ("200",), "tag": ("eu", "batch")},
    {"outcome": ("ok",)}, {"session": ("s1",)}, {"tenant": ("nobody",)},
]  # fmt: skip


@pytest.mark.parametrize("count", [15, pytest.param(None, marks=pytest.mark.slow)])
async def test_sums_from_days_hours_and_rows_are_those_of_all_rows(engine, count):
    lines = some(1, 200)
    booked = rows(*lines)
    await booking.book(engine, batch(*lines), 1.0)
    combined = list(product(TIMES.values(), BYS, WHERES))
    for (since, until), by, where in random.Random(2).sample(combined, count) if count else combined:
        question = Question(since, until, by, where, limit=1000)
        answer = await ask(engine, question)
        labels = tuple(dict.fromkeys(label for each in by for label in BY[each]))
        found = {tuple(group[label] for label in labels): Counter({name: group[name] for name in MEASURES}) for group in answer.groups}
        if by:
            assert found == expected(booked, question, labels), question
        total = expected(booked, question, ()).get((), Counter())
        assert Counter({name: answer.total[name] for name in MEASURES}) == total, question


@pytest.mark.parametrize(
    ("since", "until", "by", "where", "parts"),
    [
        (BEGIN, END, (), {}, [daily]),
        (BEGIN, END, ("hour",), {}, [hourly]),
        (BEGIN + 1, END, ("tenant",), {}, [usage, hourly, daily]),
        (BEGIN, END, (), {"status": ("429",)}, [usage]),
        (BEGIN + 5, BEGIN + 6, (), {}, [usage]),
        (BEGIN + HOUR, BEGIN + 3 * HOUR, (), {}, [hourly]),
    ],
)
def test_sums_are_read_where_they_suffice(since, until, by, where, parts):
    question = Question(since, until, by, where).settled()
    assert [table for table, begin, end in question.parts() if begin < end] == parts


def test_where_rows_are_gone_whole_hours_are_told():
    question = Question(BEGIN + 5, BEGIN + HOUR + 5, rows_from=BEGIN + DAY).settled()
    assert (question.since, question.until) == (BEGIN, BEGIN + 2 * HOUR)
    assert Question(BEGIN + 5, END + 5, rows_from=BEGIN + DAY).settled().until == END + 5
    of_rows = Question(BEGIN, END, where={"status": ("429",)}, rows_from=BEGIN + DAY).settled()
    assert (of_rows.since, of_rows.until) == (BEGIN + DAY, END)


async def test_groups_come_in_pages_the_dearest_first(engine):
    lines = [line(id=str(number), key_id=f"k{number}", cost=number) for number in range(7)]
    await booking.book(engine, batch(*lines), 1.0)
    question = Question(BEGIN, END, ("key",), limit=3)
    pages = [await ask(engine, replace(question, offset=offset)) for offset in (0, 3, 6)]
    assert [[group["cost"] for group in each.groups] for each in pages] == [[6, 5, 4], [3, 2, 1], [0]]
    assert [each.more for each in pages] == [True, True, False]
    assert {each.total["cost"] for each in pages} == {21}


@pytest.mark.parametrize("newest_first", [True, False])
async def test_rows_come_in_pages_none_twice_and_none_left_out(engine, newest_first):
    lines = [line(id=f"{number:02}", ts=stamp(BEGIN + number // 3)) for number in range(20)]
    await booking.book(engine, batch(*lines), 1.0)
    question = Question(BEGIN, END, limit=6)
    found, after = [], None
    while rows_ := await page(engine, question, after, newest_first=newest_first):
        found += [row["id"] for row in rows_]
        after = rows_[-1]["at"], rows_[-1]["id"]
    order = sorted(found)
    assert found == (order[::-1] if newest_first else order)
    assert len(order) == 20


async def test_what_is_asked_is_a_value_and_never_a_statement(engine):
    await booking.book(engine, batch(line()), 1.0)
    for name in ("tenant", "tag", "key", "outcome", "session"):
        question = Question(BEGIN, END, ("tenant",), {name: ("' OR '1'='1", "x'; DROP TABLE usage; --")})
        assert (await ask(engine, question)).total["requests"] == 0
    assert (await ask(engine, Question(BEGIN, END))).total["requests"] == 1
