"""Replies in memory: bounded, each for its time, never another tenant's."""

from __future__ import annotations

import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.core.types import Usage
from llm_gateway.stores.memory import OVERHEAD, Kept, Memory, Place


def kept(body: bytes = b"{}", *, until: float = 10.0, name: str = "gpt-4", model: str = "gpt-4o", tags: tuple[str, ...] = ()) -> Kept:
    return Kept(body, b"application/json", name, "openai", model, "0", b"", Usage(input=3), "stop", 7, frozenset(tags), (), 0.0, until)


def test_what_was_put_is_found_until_its_time_is_over() -> None:
    store, place = Memory(1 << 20), Place("a", b"1")
    store.put(place, kept())
    assert store.get(place, 9.9) == kept()
    assert store.get(place, 10.0) is None
    assert (len(store), store.bytes) == (0, 0)


def test_nothing_is_found_for_another_tenant() -> None:
    store = Memory(1 << 20)
    store.put(Place("a", b"1"), kept())
    assert store.get(Place("b", b"1"), 0.0) is None


def test_the_one_used_least_goes_first() -> None:
    store = Memory(3 * (OVERHEAD + 2))
    places = [Place("a", bytes([number])) for number in range(4)]
    for place in places[:3]:
        store.put(place, kept())
    store.get(places[0], 0.0)
    store.put(places[3], kept())
    assert [store.get(place, 0.0) is not None for place in places] == [True, False, True, True]
    assert store.evicted == 1


def test_a_reply_larger_than_the_store_is_not_kept_and_costs_no_other_its_place() -> None:
    store = Memory(2 * OVERHEAD)
    store.put(Place("a", b"1"), kept())
    store.put(Place("a", b"2"), kept(b"x" * 2 * OVERHEAD))
    assert len(store) == 1
    assert store.evicted == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4000)), max_size=60), st.integers(OVERHEAD, 12 * OVERHEAD))
def test_the_bytes_are_always_those_of_what_is_there_and_within_the_bound(puts: list[tuple[int, int]], room: int) -> None:
    store = Memory(room)
    for name, size in puts:
        store.put(Place("a", bytes([name])), kept(b"x" * size))
        found = [each for number in range(10) if (each := store.get(Place("a", bytes([number])), 0.0)) is not None]
        assert store.bytes == sum(each.size for each in found) <= room
    store.resize(room // 2)
    assert store.bytes <= room // 2


def test_small_replies_take_no_more_memory_than_is_counted() -> None:
    gc.collect()
    tracemalloc.start()
    store = Memory(64 << 20)
    for number in range(5000):
        mark = number.to_bytes(32)
        fresh = Kept(
            bytes(20), b"application/json", f"model-{number}", f"provider-{number}", f"upstream-{number}", "0", bytes(120), Usage(input=number),
            "stop", number << 20, frozenset({f"tag-{number}"}), (), number + 0.5, number + 1.5,
        )  # fmt: skip
        store.put(Place(f"tenant-{number}", mark), fresh)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < store.bytes * 1.5


def test_what_is_over_is_swept_out_without_being_asked_for() -> None:
    store = Memory(1 << 20)
    store.put(Place("a", b"1"), kept(until=1.0))
    store.put(Place("a", b"2"), kept(until=9.0))
    store.sweep(5.0)
    assert (len(store), store.bytes) == (1, OVERHEAD + 2)


def test_what_is_purged_is_what_all_that_was_named_is_true_of() -> None:
    def filled() -> Memory:
        store = Memory(1 << 20)
        store.put(Place("a", b"1"), kept(tags=("batch",)))
        store.put(Place("a", b"2"), kept(name="claude", model="claude-x"))
        store.put(Place("b", b"1"), kept(tags=("batch", "eu")))
        return store

    assert filled().purge() == 3
    assert filled().purge(tenant="a") == 2
    assert filled().purge(tag="batch") == 2
    assert filled().purge(tenant="a", tag="batch") == 1
    assert filled().purge(model="gpt-4") == filled().purge(model="openai/gpt-4o") == filled().purge(model="gpt-4o") == 2
    assert filled().purge(tenant="nobody") == 0
    store = filled()
    store.purge(tenant="a")
    assert (len(store), store.bytes) == (1, OVERHEAD + 2)
