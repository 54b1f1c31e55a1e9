"""What a reply depends on, which requests the cache answers, and who asks while others wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llm_gateway import wiring
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Pin, Principal, Route
from llm_gateway.core.types import Usage
from llm_gateway.formats.contract import Peek
from llm_gateway.routing.replay import LONGEST_REPEAT, MOST_REPEATS, MOST_SPELLED, Replay, Terms
from llm_gateway.routing.table import Table
from llm_gateway.stores.memory import Memory
from llm_gateway.telemetry.metrics import TargetMeter

IGNORED = frozenset({"user", "metadata", "safety_identifier"})
TERMS = Terms(True, 60.0, True, IGNORED)
TWO = """
providers:
  openai: {base_url: "https://api.openai.com", api_key: sk-o}
  other: {type: openai, base_url: "https://other.example", api_key: sk-x}
models: {one: openai/gpt-4o, two: [openai/gpt-4o, other/gpt-4o], cold: {targets: [openai/gpt-4o], cache: false}}
"""
SHAPES = wiring.formats()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcü", max_size=3), inner, max_size=3),
    max_leaves=8,
)

MEMBERS = st.dictionaries(st.sampled_from(["seed", "tools", "x"]), JSON, max_size=3)


class Client:
    """Where a reply goes."""

    alive, paused, sink = True, False, None

    def __init__(self) -> None:
        self.got = b""

    def send(self, data: bytes) -> None:
        self.got += data

    def hold(self, x: Exchange, size: int) -> bool:
        return True

    def release(self, x: Exchange) -> None:
        self.got += b""

    def finish(self, x: Exchange, data: bytes) -> None:
        self.got += data

    def abort(self, x: Exchange) -> None:
        self.got += b"!"


def asked(body: str = "", *, tenant: str = "a", model: str = "one", headers: dict[bytes, bytes] | None = None, **more: Any) -> Exchange:
    raw = (body or '{"model": "one", "messages": [{"role": "user", "content": "hi"}]}').encode()
    route = more.pop("route", Route("chat", "openai_chat", "/v1/chat/completions", body=True))
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return Exchange(
        id="x", client=Client(), route=route, model=model, peek=Peek(members, model), body=raw, bytes_in=len(raw), wall=1_764_000_000.0,
        headers=headers or {}, principal=Principal("key", tenant), **more,
    )  # fmt: skip


@pytest.fixture
def routing(table: Callable[..., Table]) -> Table:
    return table(TWO)


@pytest.fixture
def replay() -> Replay:
    made = Replay(Memory(1 << 20), SHAPES)
    made.adopt(1 << 20, TERMS, {"cold": Terms()}, 1e9)
    return made


def mark(replay: Replay, routing: Table, x: Exchange) -> Any:
    found = replay._sought(x, routing)
    return found.place if found is not None else None


def spelled(value: Any, space: str, *, reverse: bool) -> str:
    """The same JSON, written differently."""
    if isinstance(value, dict):
        items = [f'"{name}"{space}:{space}{spelled(each, space, reverse=reverse)}' for name, each in value.items()]
        return "{" + space + f"{space},".join(reversed(items) if reverse else items) + "}"
    if isinstance(value, list):
        return f"[{space}" + f",{space}".join(spelled(each, space, reverse=reverse) for each in value) + "]"
    return json.dumps(value, ensure_ascii=reverse)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(said=st.dictionaries(st.sampled_from(["seed", "tools", "x", "temperature"]), JSON, max_size=4), space=st.sampled_from(["", " ", "\n\t "]))
def test_how_a_body_is_spelled_does_not_matter(replay: Replay, routing: Table, said: dict[str, Any], space: str) -> None:
    one = mark(replay, routing, asked(spelled(said, "", reverse=False)))
    assert one is not None
    assert mark(replay, routing, asked(spelled(said, space, reverse=True))) == one


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(one=MEMBERS, other=MEMBERS)
def test_what_a_body_says_matters(replay: Replay, routing: Table, one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (mark(replay, routing, asked(json.dumps(one))) == mark(replay, routing, asked(json.dumps(other)))) is same


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(one=st.text(max_size=5), other=st.text(max_size=5))
def test_tenants_never_share(replay: Replay, routing: Table, one: str, other: str) -> None:
    assert (mark(replay, routing, asked(tenant=one)) == mark(replay, routing, asked(tenant=other))) is (one == other)


def test_everything_else_that_a_reply_depends_on_matters(replay: Replay, routing: Table, table: Callable[..., Table]) -> None:
    base = asked()
    claude = Route("chat", "anthropic_messages", "/v1/messages", body=True)
    marks = [
        mark(replay, routing, base),
        mark(replay, routing, asked(stream=True)),
        mark(replay, routing, asked(model="two")),
        mark(replay, routing, asked(route=claude)),
        mark(replay, routing, asked(route=claude, headers={b"anthropic-beta": b"files-api"})),
        mark(replay, routing, asked(route=claude, headers={b"anthropic-beta": b"other"})),
        mark(replay, routing, asked(headers={b"openai-beta": b"x"})),
        mark(replay, table(TWO.replace("one: openai/gpt-4o", "one: other/gpt-4o")), base),
        mark(replay, table(TWO.replace("api.openai.com", "elsewhere.example")), base),
        mark(replay, routing, asked('{"messages": [], "stream_options": {"include_usage": true}}')),
        mark(replay, routing, asked('{"messages": []}')),
    ]
    assert None not in marks
    assert len(set(marks)) == len(marks)


def test_what_may_differ_may_differ(replay: Replay, routing: Table) -> None:
    one, other = (json.dumps({"messages": [], "user": name, "metadata": {"a": name}}) for name in "ab")
    assert mark(replay, routing, asked(one)) == mark(replay, routing, asked(other))
    assert mark(replay, routing, asked(headers={b"user-agent": b"x", b"x-request-id": b"1"})) == mark(replay, routing, asked())
    assert mark(replay, routing, asked('{"stream": false}')) == mark(replay, routing, asked("{}"))
    replay.adopt(1 << 20, replace(TERMS, ignore=frozenset()), {}, 1e9)
    assert mark(replay, routing, asked(one)) != mark(replay, routing, asked(other))


def test_a_large_body_is_compared_as_spelled(replay: Replay, routing: Table) -> None:
    words = "x" * (300 << 10)
    one, same, other = (asked(f'{{"messages": ["{words}"],{space}"seed": {seed}}}') for space, seed in (("", 1), (" ", 1), ("", 2)))
    assert mark(replay, routing, one) == mark(replay, routing, same)
    assert mark(replay, routing, one) != mark(replay, routing, other)


@pytest.mark.parametrize(
    "x",
    [
        {"route": Route("images", "openai_images", "/v1/images/generations", body=True)},
        {"pin": Pin("openai", "0")},
        {"model": "cold"},
        {"stream": True, "http10": True},
        {"body": '{"store": true}'},
        {"body": '{"n": 2}'},
        {"body": '{"prompt": ["a", "b"]}'},
        {"body": '{"generationConfig": {"candidateCount": 2}}'},
        {"body": '{"input": "hi"}', "route": Route("chat", "openai_responses", "/v1/responses", body=True, sealed=True)},
        {"body": '{"input": "hi", "store": null}', "route": Route("chat", "openai_responses", "/v1/responses", body=True, sealed=True)},
        {"body": '{"store": false, "previous_response_id": "r"}', "route": Route("chat", "openai_responses", "/v1/responses", body=True, sealed=True)},
    ],
)
def test_what_is_no_business_of_a_cache(replay: Replay, routing: Table, x: dict[str, Any]) -> None:
    body = x.pop("body", "")
    assert mark(replay, routing, asked(body, **x)) is None


def test_responses_that_nobody_keeps_are(replay: Replay, routing: Table) -> None:
    sealed = Route("chat", "openai_responses", "/v1/responses", body=True, sealed=True)
    assert mark(replay, routing, asked('{"input": "hi", "store": false}', route=sealed)) is not None
    assert mark(replay, routing, asked('{"n": 1, "store": null}')) is not None


def test_without_sampling_only_what_is_calm_is_cached(replay: Replay, routing: Table) -> None:
    replay.adopt(1 << 20, replace(TERMS, sampling=False), {}, 1e9)
    calm = ['{"temperature": 0}', '{"temperature": 0.0}', '{"generationConfig": {"temperature": 0}}', '{"options": {"temperature": 0}}']
    lively = ["{}", '{"temperature": 1}', '{"temperature": null}', '{"generationConfig": {"temperature": 0.2}}', '{"generationConfig": 3}']
    assert [mark(replay, routing, asked(body)) is not None for body in (*calm, *lively)] == [True] * 4 + [False] * 5
    embeddings = Route("embeddings", "openai_embeddings", "/v1/embeddings", body=True)
    assert mark(replay, routing, asked('{"input": "hi"}', route=embeddings)) is not None


# -- who asks, who waits -------------------------------------------------------------------------------------------------


def settle(x: Exchange, *, status: int = 200, finish: str = "stop", size: int = 2) -> None:
    """As egress and ledger do at the end."""
    x.status, x.finish, x.usage, x.cost = status, finish, Usage(input=3), 7
    x.target = Target()
    if status != 200:
        x.fault = Fault(Kind.UPSTREAM_ERROR, "broken")
    x.client.finish(x, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + b"x" * size)


class Target:
    provider, model, key_id, lines = "openai", "gpt-4o", "0", b""
    meter = TargetMeter("openai", "gpt-4o")


async def seek(replay: Replay, routing: Table, x: Exchange) -> str:
    kept = await replay.seek(x, routing)
    return kept.body.decode() if kept is not None else x.extra.split()[-1].decode()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def many(replay: Replay, routing: Table) -> Callable[[int], tuple[list[Exchange], list[asyncio.Task[str]]]]:
    def start(count: int) -> tuple[list[Exchange], list[asyncio.Task[str]]]:
        exchanges = [asked() for _ in range(count)]
        return exchanges, [asyncio.ensure_future(seek(replay, routing, x)) for x in exchanges]

    return start


async def test_one_asks_and_all_have_its_reply(many, replay) -> None:
    exchanges, tasks = many(100)
    await turns()
    assert [task.done() for task in tasks] == [True] + [False] * 99
    settle(exchanges[0])
    assert await asyncio.gather(*tasks) == ["miss"] + ["xx"] * 99
    assert (replay.hits, replay.misses, replay.saved) == (99, 1, 99 * 7)
    assert not replay._flights


@pytest.mark.parametrize("end", [{"status": 502}, {"status": 499}])
async def test_a_leader_that_fails_hands_over_to_one(many, replay, end) -> None:
    exchanges, tasks = many(10)
    await turns()
    settle(exchanges[0], **end)
    await turns()
    assert [task.done() for task in tasks] == [True] * 2 + [False] * 8
    settle(exchanges[1])
    assert await asyncio.gather(*tasks) == ["miss"] * 2 + ["xx"] * 8
    assert not replay._flights


@pytest.mark.parametrize("end", [{"finish": "length"}, {"finish": "content_filter"}, {"finish": "max_tokens"}, {"size": 2 << 20}])
async def test_a_reply_that_is_not_to_be_kept_lets_all_go(many, replay, end) -> None:
    exchanges, tasks = many(10)
    await turns()
    settle(exchanges[0], **end)
    assert await asyncio.gather(*tasks) == ["miss"] * 10
    assert not replay._flights
    assert len(replay.store) == 0


@pytest.mark.parametrize("late", [0, 1, 2, 3])
async def test_a_follower_that_leaves_at_whatever_moment_takes_nobody_with_it(many, replay, late) -> None:
    """Cancelled before it is to lead, in the very turn it is told so, and after."""
    exchanges, tasks = many(4)
    await turns()
    if late:
        settle(exchanges[0], status=502)
        await turns(late - 1)
    tasks[1].cancel()
    await turns()
    if not late:
        settle(exchanges[0], status=502)
        await turns()
    if not tasks[1].cancelled():  # it led already
        settle(exchanges[1], status=499)
        await turns()
    assert tasks[2].done()
    settle(exchanges[2])
    assert await tasks[3] == "xx"
    assert not replay._flights


async def test_the_last_one_out_leaves_nothing_behind(many, replay) -> None:
    exchanges, tasks = many(3)
    await turns()
    for task in tasks[1:]:
        task.cancel()
    await turns()
    settle(exchanges[0], status=502)
    assert not replay._flights


async def test_who_waits_has_its_own_deadline(replay: Replay, routing: Table) -> None:
    replay.adopt(1 << 20, TERMS, {}, 0.05)  # started at 0 of the clock: over
    leader = asked()
    assert await seek(replay, routing, leader) == "miss"
    with pytest.raises(Fault) as caught:
        await replay.seek(asked(), routing)
    assert (caught.value.kind, caught.value.code) == (Kind.TIMEOUT, "request_timeout")
    settle(leader)
    assert await seek(replay, routing, asked()) == "xx"


async def test_what_was_purged_while_it_was_asked_for_is_not_kept(many, replay) -> None:
    exchanges, tasks = many(2)
    await turns()
    replay.store.purge(tenant="a")
    settle(exchanges[0])
    assert await asyncio.gather(*tasks) == ["miss"] * 2
    assert len(replay.store) == 0


@pytest.mark.parametrize(
    ("said", "first", "then"),
    [
        (b"no-cache", "bypass", "yy"),  # not from the cache, but into it
        (b"No-Cache, max-age=60", "bypass", "yy"),
        (b"no-store", "bypass", "xx"),
        (b"max-age=0", "miss", "yy"),
        (b"max-age=60", "xx", "xx"),
        (b"max-age=soon", "xx", "xx"),
        (b"max-age=" + b"9" * 5000, "xx", "xx"),
        (b"private", "xx", "xx"),
    ],
)
async def test_a_request_may_say_what_it_will_have(replay: Replay, routing: Table, said: bytes, first: str, then: str) -> None:
    x = asked()
    await seek(replay, routing, x)
    settle(x)
    await asyncio.sleep(0.001)
    x = asked(headers={b"cache-control": said})
    assert await seek(replay, routing, x) == first
    x.status, x.finish, x.target = 200, "stop", Target()
    x.client.finish(x, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\nyy")
    assert await seek(replay, routing, asked()) == then


async def test_time_ends_it(replay: Replay, routing: Table) -> None:
    replay.adopt(1 << 20, replace(TERMS, ttl=0.01), {}, 1e9)
    x = asked()
    await seek(replay, routing, x)
    settle(x)
    await asyncio.sleep(0.02)
    assert await seek(replay, routing, asked()) == "miss"


async def test_a_broken_stream_is_not_kept(replay: Replay, routing: Table) -> None:
    x = asked(stream=True)
    await seek(replay, routing, x)
    x.client.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    x.client.send(b"3\r\nabc\r\n")
    x.status, x.finish, x.target, x.broken = 200, "stop", Target(), True
    x.client.abort(x)
    assert len(replay.store) == 0
    assert await seek(replay, routing, asked(stream=True)) == "miss"


def test_it_is_there_only_where_something_is_cached(snapshot) -> None:
    made = wiring.replay(snapshot(TWO + "cache: {enabled: true}"), SHAPES, None)
    assert made is not None
    assert wiring.replay(snapshot(TWO + "cache: {enabled: true, ttl_seconds: 5}"), SHAPES, made) is made
    assert wiring.replay(snapshot(TWO), SHAPES, made) is None
    shared = wiring.replay(snapshot(TWO + "workers: 4\ncache: {enabled: true, max_size_mb: 100}"), SHAPES, None)
    assert shared is not None
    assert shared.store.room == 25 << 20
    one = wiring.replay(snapshot(TWO.replace("cache: false", "cache: {enabled: true, ttl: 5m}")), SHAPES, None)
    assert one is not None
    assert (one._terms.enabled, one._by_alias["cold"].enabled, one._by_alias["cold"].ttl) == (False, True, 300.0)


def test_what_is_spelled_alike_is_read_once_until_something_else_holds(replay: Replay, routing: Table, table: Callable[..., Table]) -> None:
    body = '{"messages": [{"role": "user", "content": "Hello"}], "temperature": 0.5}'
    first = replay._sought(asked(body), routing)
    assert replay._sought(asked(body), routing) is first
    assert replay._sought(asked(body, tenant="other"), routing) is not first
    assert replay._sought(asked(body), table(TWO)) is not first, "by another configuration's plan"
    replay.adopt(1 << 20, Terms(enabled=True, sampling=False), {}, 590.0)
    assert mark(replay, routing, asked(body)) is None
    replay.adopt(1 << 20, Terms(enabled=True), {}, 590.0)
    for number in range(MOST_SPELLED + 10):
        assert mark(replay, routing, asked(f'{{"messages": [], "seed": {number}}}'))
    assert len(replay._spelled) <= MOST_SPELLED


def test_headers_of_any_length_are_not_remembered(replay: Replay, routing: Table) -> None:
    beta = {b"openai-beta": b"x" * 30_000}
    place = mark(replay, routing, asked(headers=beta))
    assert place is not None
    assert place != mark(replay, routing, asked())
    assert mark(replay, routing, asked(headers=beta)) == place
    assert sum(len(each) for key in replay._spelled for each in key[5] if each is not None) < 10_000


async def test_tags_that_are_none_are_refused_whether_there_is_a_reply_or_not(replay: Replay, routing: Table) -> None:
    for _ in range(2):
        with pytest.raises(Fault, match="x-gateway-tags"):
            await replay.seek(asked(headers={b"x-gateway-tags": b"no good!"}), routing)
        assert not replay._flights, "nobody would wait for it for ever"
        x = asked()
        await replay.seek(x, routing)
        settle(x)


# -- the very same once more ---------------------------------------------------------------------------------------------

HEAD = object()
CALLER = Principal("key", "a")


def same(body: str = "", **more: Any) -> Exchange:
    x = asked(body, known=HEAD, **more)
    x.principal = CALLER
    return x


async def answered(replay: Replay, routing: Table, x: Exchange, again: Exchange) -> None:
    await seek(replay, routing, x)
    settle(x)
    assert await seek(replay, routing, again) == "xx"


async def test_the_very_same_is_not_read_again(replay: Replay, routing: Table) -> None:
    assert replay.recall(same()) is None
    await answered(replay, routing, same(), same())
    hits, saved = replay.hits, replay.saved
    x = same(model="")
    kept = replay.recall(x)
    assert kept is not None
    assert (kept.body, x.model, x.stream) == (b"xx", "one", False)
    assert (replay.hits, replay.saved) == (hits + 1, saved + 7)


@pytest.mark.parametrize(
    "other",
    [
        {"known": object()},
        {"known": None},
        {"principal": Principal("key", "a")},  # equal, but another: limits and rights may be others by now
        {"principal": Principal("key", "b")},
        {"body": b'{"model": "one", "messages": [{"role": "user", "content": "ho"}]}'},
        {"body": b""},
    ],
)
async def test_what_differs_in_anything_is_read(replay: Replay, routing: Table, other: dict[str, Any]) -> None:
    await answered(replay, routing, same(), same())
    x = same()
    for name, value in other.items():
        setattr(x, name, value)
    assert replay.recall(x) is None
    assert replay.recall(same()) is not None


async def test_what_is_gone_is_not_recalled(replay: Replay, routing: Table) -> None:
    await answered(replay, routing, same(), same())
    replay.store.purge("a")
    assert replay.recall(same()) is None
    await answered(replay, routing, same(), same())
    replay.adopt(1 << 20, TERMS, {}, 1e9)
    assert replay.recall(same()) is None, "another configuration may lead elsewhere"
    assert await seek(replay, routing, same()) == "xx"
    assert replay.recall(same()) is not None
    replay.adopt(1 << 20, replace(TERMS, ttl=0.05), {}, 1e9)
    replay.store.purge("a")
    await answered(replay, routing, same(), same())
    await asyncio.sleep(0.06)
    assert replay.recall(same()) is None


async def test_an_age_that_the_head_asks_for_holds(replay: Replay, routing: Table) -> None:
    await answered(replay, routing, same(), same())
    hurried, head = {b"cache-control": b"max-age=1"}, object()

    def in_a_hurry() -> Exchange:
        x = same(headers=hurried)
        x.known = head
        return x

    assert await seek(replay, routing, in_a_hurry()) == "xx"
    assert replay.recall(in_a_hurry()) is not None
    await asyncio.sleep(1.05)
    assert replay.recall(in_a_hurry()) is None
    assert replay.recall(same()) is not None


@pytest.mark.parametrize("case", [{"principal": Principal("key", "a", signs=True)}, {"headers": {b"idempotency-key": b"1"}}, {"body": None}, {"known": None}])
async def test_what_is_not_to_be_remembered_is_not(replay: Replay, routing: Table, case: dict[str, Any]) -> None:
    """Signed, idempotent, too long, or with a head that is parsed each time."""
    body = json.dumps({"model": "one", "messages": [{"role": "user", "content": "y" * LONGEST_REPEAT}]}) if "body" in case else ""

    def made() -> Exchange:
        x = same(body)
        for name, value in case.items():
            if value is not None or name == "known":
                setattr(x, name, value)
        return x

    x = made()
    await seek(replay, routing, x)
    settle(x)
    assert await seek(replay, routing, made()) == "xx"
    assert replay.recall(made()) is None


async def test_few_are_remembered(replay: Replay, routing: Table) -> None:
    await answered(replay, routing, same(), same())
    for _ in range(MOST_REPEATS + 10):
        x = same()
        x.known = object()
        assert await seek(replay, routing, x) == "xx"
    assert 0 < len(replay._repeats) <= MOST_REPEATS


async def test_what_a_caller_wishes_of_routing_holds_for_what_was_looked_up_before(replay: Replay, routing: Table) -> None:
    body = '{"messages": [], "models": ["one"], "provider": {"only": ["other"], "sort": "price", "zdr": true}}'
    for expected in ("miss", "xx"):
        x = asked(body, model="two")
        assert await seek(replay, routing, x) == expected
        if expected == "miss":
            _, course = routing.course(x)
            assert [target.provider for target in course.targets] == ["other"]
            assert x.unheard == ("provider.zdr",)
            assert not x.peek.members.keys() & {"models", "provider"}, "they are not sent"
            settle(x)
