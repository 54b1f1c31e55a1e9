"""Slots as the cluster specification has them, and as a real server computes them."""

from __future__ import annotations

import pytest

from llm_gateway.stores.redis.slots import SLOTS, Range, moved, ranges, slot, tag_of
from redis_server import say


@pytest.mark.parametrize(
    ("key", "number"),
    [(b"123456789", 0x31C3), (b"{123456789}x", 0x31C3), (b"x{123456789}{y}", 0x31C3), (b"", 0)],  # the specification's own check value
)
def test_known_slots(key, number):
    assert slot(key) == number


def test_a_server_says_the_same(cluster):
    keys = ["a", "llmgw:{0123456789abcdef}:key:1 budget month", "{}a", "a{", "a{b", "a}b{c}", "{{a}}", "schlüssel"]
    assert [slot(key.encode()) for key in keys] == [say(cluster[0][0], "CLUSTER", "KEYSLOT", key) for key in keys]


def test_the_map():
    reply = [[0, 99, [b"10.0.0.1", 1, b"id", []], [b"10.0.0.2", 2, b"id"]], [100, 200, [None, 3]], [201, 300, [b"", 4]], [301, 400, [b"?", 5]]]
    assert [*ranges(reply, ("asked", 9))] == [Range(0, 99, ("10.0.0.1", 1)), Range(100, 200, ("asked", 3)), Range(201, 300, ("asked", 4))]
    assert [*ranges("no list", ("asked", 9))] == []


def test_redirections():
    assert moved("MOVED 3999 10.0.0.1:6381", ("asked", 9)) == (3999, ("10.0.0.1", 6381))
    assert moved("ASK 1 :6381", ("asked", 9)) == (1, ("asked", 6381))
    assert moved("MOVED 1 ::1:6381", ("asked", 9)) == (1, ("::1", 6381))


def test_every_node_has_a_tag_for_its_probe():
    for first, last in ((0, 0), (5461, 10922), (SLOTS - 1, SLOTS - 1)):
        assert first <= slot(f"llmgw:{{{tag_of(first, last)}}}".encode()) <= last
