"""A call whose arguments Gemini streams piece by piece (`streamFunctionCallArguments`) -> the whole call.

Law: pieces go where their path says; a text that continues is added to; an index beyond an array's end means its end. A
path that cannot be read or followed is a Fault. https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec

from llm_gateway.formats._incoming import broken
from llm_gateway.formats.gemini import _wire

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d{1,9})\]|\['((?:[^'\\]|\\.)*)'\]|\[\"((?:[^\"\\]|\\.)*)\"\]")
_VALUES = ("stringValue", "numberValue", "boolValue")
_DEEPEST = 64


class PartialCall:
    """One call being told. `signature`: the seal that came with its opening."""

    __slots__ = ("_args", "_going", "opening", "signature")

    def __init__(self, opening: _wire.Call, signature: str | None) -> None:
        self.opening = opening
        self.signature = signature
        self._args: dict[str, Any] = {}
        self._going: tuple[str | int, ...] | None = None  # the path of a text that is still being told
        self.add(opening)

    def add(self, piece: _wire.Call) -> None:
        for one in piece.partial_args or ():
            path = _path(one.get("jsonPath"))
            value = next((one[name] for name in _VALUES if name in one), None)
            _put(self._args, path, value, more=self._going == path)
            self._going = path if one.get("willContinue") is True else None

    def arguments(self) -> str:
        return msgspec.json.encode(self._args).decode()


def _path(text: object) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    if not isinstance(text, str) or not text.startswith("$"):
        raise broken()
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or len(steps) >= _DEEPEST:
            raise broken()
        name, number, *quoted = found.groups()
        steps.append(int(number) if number is not None else next(one for one in (name, *quoted) if one is not None))
        at = found.end()
    if not steps or not isinstance(steps[0], str):
        raise broken()
    return tuple(steps)


def _put(tree: dict[str, Any], path: tuple[str | int, ...], value: Any, *, more: bool) -> None:
    place: Any = tree
    for step, following in itertools.pairwise(path):
        place = _step(place, step, [] if isinstance(following, int) else {})
    last = path[-1]
    held = _held(place, last)
    if more and isinstance(held, str) and isinstance(value, str):
        value = held + value
    _set(place, last, value)


def _step(place: Any, step: str | int, empty: Any) -> Any:
    held = _held(place, step)
    return held if isinstance(held, dict | list) else _set(place, step, empty)


def _held(place: Any, step: str | int) -> Any:
    if isinstance(place, dict) and isinstance(step, str):
        return place.get(step)
    if isinstance(place, list) and isinstance(step, int):
        return place[step] if step < len(place) else None
    raise broken()


def _set(place: Any, step: str | int, value: Any) -> Any:
    if isinstance(place, dict):
        place[step] = value
    elif isinstance(place, list) and isinstance(step, int):
        place[step : step + 1] = [value]  # beyond the end: at the end
    return value
