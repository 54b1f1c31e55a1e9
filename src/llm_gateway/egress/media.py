"""Media that a request names by address, for a target that takes bytes only: fetched, and put in its place.

Law: a refusal names the client's field and says what would do; it never tells a refused address from one that does not
resolve, does not answer, or answers with something else, since whoever can tell those apart can map our network. What is
fetched counts with the request's body in memory, and ends with the request: its deadline, its client, its first failure.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Mapping
from time import perf_counter
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.core.types import Audio, Document, Image, Media, Video
from llm_gateway.formats import by_value
from llm_gateway.formats.by_value import Named
from llm_gateway.policies.addresses import Place, Rules, place
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.fetch import Failure, Fetched, Fetcher, Order

MOST_ITEMS = 16  # of one request
MOST_SEARCHED = 1 << 20  # bytes of a request's field, to say where in it an address stands
SLICE = 3 << 18  # bytes made base64 at once: under a millisecond, and no padding between slices
SHORTEST = 0.001
LONGEST_PATH = 1000  # letters of it
# How a value was come to: "." and a key or "[" and a place, and the step before. A path of text for each of a million values may take any memory.
_Steps: TypeAlias = "tuple[str, str | int, _Steps | None]"
_WORDS = frozenset({"text", "content", "input"})  # where an address would be something said, not something to fetch
_ACCEPTS: dict[by_value.Kind, tuple[str, ...]] = {
    Image: ("image/",),
    Audio: ("audio/",),
    Video: ("video/",),
    Document: ("application/pdf", "text/"),
}
_SYNONYMS = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}  # which APIs do not know
_WANTED = {Image: "an image", Audio: "a sound", Video: "a video", Document: "a PDF or a text"}
_decode = msgspec.json.decode


class Terms(Struct, frozen=True):
    """most: bytes of one item; twice as much in one request. seconds: for one item."""

    rules: Rules = Rules()
    most: int = 20 << 20
    seconds: float = 10.0


class Inlay:
    def __init__(self, fetcher: Fetcher, terms: Terms, metrics: Metrics) -> None:
        self._fetcher = fetcher
        self._terms = terms
        self._metrics = metrics

    async def fetch(self, x: Exchange, named: Mapping[Named, str]) -> dict[Named, Media | str]:
        """The bytes, or for a document the text, of everything in `named`, which says where each is named. Raises Fault."""
        if len(named) > MOST_ITEMS:
            raise Fault(Kind.INVALID, f"At most {MOST_ITEMS} files of a request can be fetched; send some by value.", param="messages")
        places = {name: self._place(x, name, at) for name, at in named.items()}
        basket = _Basket(x, self._terms.most * 2)
        try:
            async with asyncio.timeout(max(x.deadline - perf_counter(), SHORTEST)), asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(self._value(x, name, where, basket)) for name, where in places.items()
                }
        except TimeoutError:
            raise Fault(Kind.TIMEOUT, "The request took longer than it may in all.", code="request_timeout") from None
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first: it has ended the others
        return {name: task.result() for name, task in tasks.items()}

    def _place(self, x: Exchange, name: Named, at: str) -> tuple[Place, str]:
        found = place(name.url, self._terms.rules)
        if found is None:
            raise self._failed(x, name, at, "refused")
        return found, at

    async def _value(self, x: Exchange, name: Named, where: tuple[Place, str], basket: _Basket) -> Media | str:
        terms = self._terms
        order = Order(where[0], _ACCEPTS[name.kind], terms.most, terms.seconds, basket.take)
        outcome = await self._fetcher.fetch(order, terms.rules)
        if not isinstance(outcome, Fetched):
            raise self._failed(x, name, where[1], outcome)
        if outcome.mime.startswith("text/"):
            text = _text(outcome)
            if text is None:
                raise self._failed(x, name, where[1], "failed")
            value: Media | str = text
        else:
            value = Media(_SYNONYMS.get(outcome.mime, outcome.mime), await _base64(outcome.body))
        self._metrics.fetched("fetched", len(outcome.body))
        return value

    def _failed(self, x: Exchange, name: Named, at: str, why: Failure) -> Fault:
        self._metrics.fetched(why)
        terms, wanted = self._terms, _WANTED[name.kind]
        path = path_of(x.peek.members, name.url) or at
        instead = "send the data itself."
        match why:
            case "full":
                return Fault(Kind.OVERLOADED, "Too many request bodies are held in memory; try again.", retry_after=1.0)
            case "timeout":
                message = f"'{path}': {wanted} did not arrive within {terms.seconds:g} s. Try again, or {instead}"
                return Fault(Kind.INVALID, message, param=path, code="media_timeout")
            case "too_large":
                message = f"'{path}' is over {_size(terms.most)}, or all that the request names are over {_size(terms.most * 2)}."
                return Fault(Kind.INVALID, message, param=path, code="media_too_large")
            case "refused" | "failed":
                message = f"'{path}' could not be fetched. It must be the public http(s) URL of {wanted}, without redirects; or {instead}"
                return Fault(Kind.INVALID, message, param=path, code="media_unavailable")


class _Basket:
    """What one request may hold of fetched bytes."""

    __slots__ = ("_left", "_x")

    def __init__(self, x: Exchange, most: int) -> None:
        self._x = x
        self._left = most

    def take(self, size: int) -> Failure | None:
        self._left -= size
        if self._left < 0:
            return "too_large"
        return None if self._x.client.hold(self._x, size) else "full"


def path_of(members: Mapping[str, msgspec.Raw], url: str) -> str | None:
    """Where in the client's own words an address stands, whatever the shape; None where it would take long to find."""
    for name, raw in members.items():
        if len(bytes(raw)) > MOST_SEARCHED:
            continue
        try:
            value = _decode(raw)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue  # a field that nobody reads need not make sense
        left: list[tuple[_Steps, Any]] = [] if name in _WORDS and value == url else [(("", name, None), value)]
        while left:
            steps, value = left.pop()
            if value == url:
                return _told(steps)
            if isinstance(value, dict):
                left += [((".", key, steps), each) for key, each in reversed(value.items()) if not (key in _WORDS and each == url)]
            elif isinstance(value, list):
                left += [(("[", at, steps), each) for at, each in reversed(tuple(enumerate(value)))]
    return None


def _told(steps: _Steps | None) -> str | None:
    """None for one that says more than a path is for."""
    parts: list[str] = []
    while steps is not None:
        before, step, steps = steps
        parts.append(f"[{step}]" if before == "[" else f"{before}{step}")
    return "".join(reversed(parts)) if sum(map(len, parts)) <= LONGEST_PATH else None


async def _base64(body: bytearray) -> str:
    view, pieces = memoryview(body), []
    for at in range(0, len(body), SLICE):
        pieces.append(str(binascii.b2a_base64(view[at : at + SLICE], newline=False), "ascii"))
        await asyncio.sleep(0)
    return "".join(pieces)


def _text(fetched: Fetched) -> str | None:
    """UTF-8, or what the server says; None if it is not."""
    encoding = {"": "utf-8-sig", "utf-8": "utf-8-sig", "utf8": "utf-8-sig", "iso-8859-1": "latin-1", "latin1": "latin-1"}.get(fetched.charset)
    if encoding is None and fetched.charset in {"us-ascii", "ascii", "windows-1252", "utf-16"}:
        encoding = fetched.charset
    try:
        return str(fetched.body, encoding or "utf-8-sig")
    except UnicodeDecodeError:
        return None


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"
