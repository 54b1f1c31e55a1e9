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


def items(raw: Raw) -> list[Raw]:
    """Of an array that has been found to be one; [] for anything else."""
    try:
        return _decode_items(raw)
    except msgspec.DecodeError:
        return []


def decoded(
    decode: Callable[[bytes | Raw], T], one: Callable[[bytes | Raw], Any], members: dict[str, Raw], key: str,
    normal: Callable[[bytes], bytes] = bytes,
) -> Steps[T]:  # fmt: skip
    """A whole request, the items of its longest member each on its own. normal: what is done to JSON before it is read."""
    given = items(members.get(key, Raw(b"[]")))
    if len(given) <= STRIDE:
        return _typed.decode(decode, normal(_members.join(members)))
    request = _typed.decode(decode, normal(_members.join({**members, key: Raw(b"[%b]" % bytes(given[0]))})))
    found = getattr(request, key)
    for at in range(1, len(given)):
        found.append(_typed.decode(one, normal(bytes(given[at])), f"{key}[{at}]"))
        if at % STRIDE == 0:
            yield
    return request


def trees(raw: Raw) -> Steps[list[Any]]:
    found: list[Any] = []
    for at, item in enumerate(items(raw)):
        found.append(_typed.tree(item))
        if at % STRIDE == STRIDE - 1:
            yield
    return found


def encoded(body: dict[str, Any], key: str) -> Steps[bytes]:
    """A whole request, the items of its longest member a few at a time."""
    said = body[key]
    if isinstance(said, list) and len(said) > STRIDE:
        pieces: list[bytes] = []
        for at in range(0, len(said), STRIDE):
            pieces.append(msgspec.json.encode(said[at : at + STRIDE])[1:-1])
            yield
        body = {**body, key: Raw(b"[%b]" % b",".join(pieces))}
    return msgspec.json.encode(body)
