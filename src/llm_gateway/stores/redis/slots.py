"""A cluster's slots: which one a key is in, and who has it. Pure. Source: the Redis cluster specification, "Key distribution model"."""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from llm_gateway.stores.redis.terms import Node

SLOTS = 16384


class Range(Struct, frozen=True):
    """`last` included."""

    first: int
    last: int
    node: Node


def slot(key: bytes) -> int:
    """By what stands in the first braces, if anything does. CRC-16/XMODEM, which binascii has."""
    _, brace, rest = key.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    return crc_hqx(tag if brace and closed and tag else key, 0) % SLOTS


def ranges(reply: Any, asked: Node) -> Iterator[Range]:
    """Of the answer to CLUSTER SLOTS. `asked`: who answered; a node without a name is at the same host."""
    if not isinstance(reply, list):
        return
    for first, last, master, *_ in reply:
        host = (master[0] or b"").decode()
        if host != "?":  # a cluster that was told to go by names, and has none for this node
            yield Range(first, last, (host or asked[0], master[1]))


def moved(text: str, asked: Node) -> tuple[int, Node]:
    """`MOVED 3999 10.0.0.1:6381` or `ASK ...`. An empty host is the one that was asked."""
    _, number, where = text.split(" ")[:3]
    host, _, port = where.rpartition(":")
    return int(number), (host.removeprefix("[").removesuffix("]") or asked[0], int(port))


def tag_of(first: int, last: int) -> str:
    """A hash tag whose slot lies between the two."""
    return next(tag for tag in map("probe{}".format, range(SLOTS * 16)) if first <= slot(tag.encode()) <= last)
