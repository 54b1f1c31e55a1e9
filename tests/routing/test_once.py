"""What is remembered of idempotent requests, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Principal
from llm_gateway.core.types import Usage
from llm_gateway.egress.tape import MOST
from llm_gateway.routing import once
from llm_gateway.routing.once import KEPT_SECONDS, Once
from routing.conftest import Nobody, asked

ME = Principal("k", "t", id="k")


class Client(Nobody):
    """Takes what it gets."""

    def send(self, data: bytes) -> None: ...

    def finish(self, x: Exchange, data: bytes) -> None: ...

    def abort(self, x: Exchange) -> None: ...


def request(key: str, principal: Principal = ME, **more: Any) -> Exchange:
    x = asked("m", principal=principal, headers={b"idempotency-key": key.encode()}, **more)
    x.client = Client()
    return x


def answered(x: Exchange, body: bytes = b'{"ok":1}', status: int = 200) -> None:
    """The ledger settles it."""
    x.target: Any = SimpleNamespace(provider="p", model="m", key_id="0", lines=b"")
    x.status, x.usage, x.cost = status, Usage(input=1), 7
    x.client.finish(x, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + body)


async def test_a_reply_is_kept_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Once(), 100.0
    monkeypatch.setattr(once, "perf_counter", lambda: now)
    first = request("a")
    assert await store.join(first) == b""
    assert first.detached
    answered(first)
    now = 99.0 + KEPT_SECONDS
    again = request("a")
    assert (await store.join(again)).endswith(b'{"ok":1}')
    assert (again.cost, again.cached, again.saved, store.replayed) == (0, True, None, 1)
    now = 100.0 + KEPT_SECONDS
    assert await store.join(request("a")) == b""
    store.sweep(now)
    assert repr(store) == "<Once 1 keys, 1 under way>"


async def test_what_was_too_long_is_not_sent_again() -> None:
    store, x = Once(), request("a")
    await store.join(x)
    answered(x, b"x" * (MOST + 1))
    with pytest.raises(Fault) as caught:
        await store.join(request("a"))
    assert (caught.value.kind, caught.value.code) == (Kind.CONFLICT, "idempotency_reply_not_kept")


async def test_replies_go_first_where_there_is_no_room_and_keys_stay() -> None:
    store = Once(room=3000)
    for key in ("a", "b", "c"):
        x = request(key)
        await store.join(x)
        answered(x)
    with pytest.raises(Fault):
        await store.join(request("a"))
    assert await store.join(request("c"))
    assert store.bytes <= 3000


async def test_room_is_counted_right_whatever_was_not_kept_or_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Once(room=3000), 100.0
    monkeypatch.setattr(once, "perf_counter", lambda: now)
    for key, length in (("long", MOST + 1), ("a", 9), ("b", 9), ("c", 9)):
        x = request(key)
        await store.join(x)
        answered(x, b"x" * length)
    assert 0 < store.bytes <= 3000
    now += KEPT_SECONDS
    assert await store.join(request("b")) == b""
    store.sweep(now)
    assert (store.bytes, repr(store)) == (0, "<Once 1 keys, 1 under way>")


async def test_the_oldest_key_goes_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_KEYS", 2)
    store = Once()
    under_way = [request(key) for key in "abc"]
    for x in under_way:
        await store.join(x)
    answered(under_way[0])
    answered(under_way[1])
    assert await store.join(request("b"))
    assert store.running == 1


async def test_a_waiting_client_may_leave() -> None:
    store, x = Once(), request("a")
    await store.join(x)
    waiting = [asyncio.ensure_future(store.join(request("a", started=asyncio.get_running_loop().time()))) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    answered(x)
    assert all([(await each).endswith(b'{"ok":1}') for each in waiting[1:]])


async def test_waiting_has_an_end() -> None:
    store, x = Once(), request("a")
    await store.join(x)
    store.whole_request = 0.0
    with pytest.raises(Fault) as caught:
        await store.join(request("a"))
    assert caught.value.kind is Kind.TIMEOUT


async def test_a_large_body_is_told_apart_too() -> None:
    store = Once()
    x, y = (request("a", body={"messages": [{"role": "user", "content": letter * 300_000}]}) for letter in "xy")
    await store.join(x)
    with pytest.raises(Fault) as caught:
        await store.join(y)
    assert caught.value.kind is Kind.UNPROCESSABLE


async def test_a_stream_that_ends_by_close_cannot_be_kept() -> None:
    x = request("a", http10=True, stream=True)
    with pytest.raises(Fault) as caught:
        await Once().join(x)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "Idempotency-Key")
    assert await Once().join(request("a", http10=True)) == b""


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_without_sense_is_refused(key: str) -> None:
    with pytest.raises(Fault) as caught:
        await Once().join(request(key))
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "Idempotency-Key")


async def test_so_many_keys_are_remembered_and_no_more_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_KEYS", 10)
    store = Once()
    for number in range(25):
        x = request(str(number))
        assert await store.join(x) == b""
        answered(x)
    assert store.report()["llm_gateway_idempotent_keys"] == {"": 10.0}
    assert await store.join(request("24"))
    assert await store.join(request("14")) == b""
