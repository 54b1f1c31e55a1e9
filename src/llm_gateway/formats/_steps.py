"""Large requests are read and written in steps: a generator that stops after every few messages, so that whoever runs it can let
others have the loop. Small ones run through it without a stop.

Law: knows no clock and no loop. What comes of the steps is, byte for byte, what comes of doing it at once.

Rejected: a thread. Whoever waits for the lock waits for each callback anew, so that a loop with a thousand streams stands still
as surely as if it did the work itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from llm_gateway.formats import _members, _typed

T = TypeVar("T")
Steps = Generator[None, None, T]
STRIDE = 16  # messages a step: some 100 µs of them
_decode_items = msgspec.json.Decoder(list[Raw]).decode


def drained(steps: Steps[T]) -> T:
    """All steps at once."""
    try:
        while True:
            next(steps)
    except StopIteration as ended:
        result: T = ended.value
        return result


def items(raw: Raw | None) -> Steps[list[Raw]]:
    """Of an array; [] for anything else. To find where they end is one step: 5 ms for ten megabytes."""
    found: list[Raw] = []
    if raw is not None and bytes(memoryview(raw)[:1]) == b"[":
        found = _decode_items(raw)
        yield
    return found


def decoded(
    decode: Callable[[bytes | Raw], T], one: Callable[[bytes | Raw], Any], members: dict[str, Raw], key: str, given: list[Raw],
    normal: Callable[[bytes], bytes] = bytes,
) -> Steps[T]:  # fmt: skip
    """A whole request, the items of its longest member each on its own. given: those; normal: what is done to JSON before it is read."""
    if len(given) <= STRIDE:
        return _typed.decode(decode, normal(_members.join(members)))
    request = _typed.decode(decode, normal(_members.join({**members, key: Raw(b"[%b]" % bytes(given[0]))})))
    found = getattr(request, key)
    for at in range(1, len(given)):
        found.append(_typed.decode(one, normal(bytes(given[at])), f"{key}[{at}]"))
        if at % STRIDE == 0:
            yield
    return request


def trees(given: list[Raw]) -> Steps[list[Any]]:
    found: list[Any] = []
    for at, item in enumerate(given):
        found.append(_typed.tree(item))
        if at % STRIDE == STRIDE - 1:
            yield
    return found


def unread(given: list[Any], known: frozenset[str], path: str) -> Steps[dict[str, Raw]]:
    """As _typed.unread."""
    found = _typed.unread(given[:STRIDE], known, path)
    for at in range(STRIDE, len(given), STRIDE):
        yield
        found |= _typed.unread(given[at : at + STRIDE], known, path, at)
    return found


def encoded(body: dict[str, Any], key: str) -> Steps[bytes]:
    """A whole request, the items of its longest member a few at a time, and joined once: ten megabytes take milliseconds to copy."""
    said = body[key]
    if not isinstance(said, list) or len(said) <= STRIDE:
        return msgspec.json.encode(body)
    names = list(body)
    place = names.index(key)
    head = {name: body[name] for name in names[:place]}
    tail = {name: body[name] for name in names[place + 1 :]}
    pieces = [b"{", msgspec.json.encode(head)[1:-1], b"," if head else b"", b'"%b":' % key.encode(), b"["]
    for at in range(0, len(said), STRIDE):
        pieces += (msgspec.json.encode(said[at : at + STRIDE])[1:-1], b",")
        yield
    pieces[-1] = b"]"
    pieces += (b"," if tail else b"", msgspec.json.encode(tail)[1:-1], b"}")
    return b"".join(pieces)
