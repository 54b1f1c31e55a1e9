"""Waiting for room: fair, bounded, and cheap however many wait."""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter
from typing import Any

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.routing.plan import Course
from llm_gateway.routing.table import Table
from routing.conftest import asked

TEXT = """
providers:
  a: {type: openai_compatible, base_url: "http://127.0.0.1:1", api_key: k, rate_limit: {requests_per_minute: 240}}
  b: {type: openai_compatible, base_url: "http://127.0.0.1:2", api_key: k, rate_limit: {requests_per_minute: 240}}
models: {m: [a/x], other: [b/x]}
resilience: {queue: {max_wait: 20, max_length: 300}}
"""


def arrive(table: Table, model: str = "m", tenant: str = "t", **headers: str) -> tuple[Exchange, Course]:
    x = asked(model, principal=Principal(f"key of {tenant}", tenant), headers={f"x-gateway-{name}".encode(): value.encode() for name, value in headers.items()})
    x.deadline = perf_counter() + 30.0
    return x, table.course(x)[1]


def drained(table: Table, model: str = "m") -> None:
    for _ in range(240):
        _, course = arrive(table, model)
        assert not course.waits
        course.done()


async def test_whoever_leaves_is_forgotten(table):
    made = table(TEXT)
    drained(made)
    waiting = []
    for _ in range(50):
        x, course = arrive(made)
        assert course.waits
        waiting.append((asyncio.ensure_future(made.queue.wait(x, course)), course))
    await asyncio.sleep(0)
    assert len(made.queue) == 50
    for task, course in waiting:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        course.done()
    assert (len(made.queue), made.tally.active, made.tally.retrying) == (0, 0, 0)


async def test_a_full_queue_says_so(table):
    made = table(TEXT)
    drained(made)
    tasks = [asyncio.ensure_future(made.queue.wait(*arrive(made))) for _ in range(300)]
    await asyncio.sleep(0)
    with pytest.raises(Fault) as refused:
        await made.queue.wait(*arrive(made))
    assert (refused.value.kind, refused.value.code) == (Kind.UPSTREAM_RATE_LIMIT, "queue_full")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert made.gauges()["llm_gateway_queue_refused_total"] == {"": 1.0}


async def test_a_look_costs_one_try_for_each_kind_not_for_each_request(table):
    """Every reply pokes the queue; with thousands waiting, trying all of them each time would be all there is time for."""
    made = table(TEXT)
    drained(made)
    drained(made, "other")
    tasks = [asyncio.ensure_future(made.queue.wait(*arrive(made, model))) for model in ["m", "other"] * 100]
    await asyncio.sleep(0)
    tries = 0

    def count(frame: Any, event: str, _: object) -> None:
        nonlocal tries
        tries += event == "call" and frame.f_code.co_name == "enter"

    sys.setprofile(count)
    try:
        made.queue.poke()
    finally:
        sys.setprofile(None)
    assert tries <= 6, "two models, and whoever came in between"
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_tenants_crowd_waits_behind_its_own(table):
    made = table(TEXT)
    drained(made)
    served: list[str] = []

    async def one(tenant: str) -> None:
        x, course = arrive(made, tenant=tenant)
        await made.queue.wait(x, course)
        served.append(tenant)

    crowd = [asyncio.ensure_future(one("crowd")) for _ in range(4)]
    await asyncio.sleep(0)
    late = asyncio.ensure_future(one("late"))
    await asyncio.wait([*crowd, late], timeout=15)
    assert served.index("late") <= 1, "it came last, and its turn was second at most"
    assert len(served) == 5


async def test_a_deadline_ends_the_wait_with_when_to_come_again(table):
    made = table(TEXT)
    drained(made)
    first = [asyncio.ensure_future(made.queue.wait(*arrive(made))) for _ in range(3)]
    await asyncio.sleep(0)
    x, course = arrive(made, priority="low")
    x.deadline = perf_counter() + 0.2
    with pytest.raises(Fault) as refused:
        await made.queue.wait(x, course)
    assert refused.value.kind is Kind.UPSTREAM_RATE_LIMIT
    assert refused.value.retry_after
    for task in first:
        task.cancel()
    await asyncio.gather(*first, return_exceptions=True)
