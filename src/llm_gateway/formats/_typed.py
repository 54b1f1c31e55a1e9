"""Typed decoding of a request, with msgspec's path of the first wrong value turned into a Fault's `param`.

Law: names no shape's field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault
from llm_gateway.formats._members import invalid

T = TypeVar("T")

_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
_AT = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>.*?)`$", re.DOTALL)
_decode_any = msgspec.json.Decoder().decode


def decode(decoder: Callable[[bytes | Raw], T], body: bytes | Raw, under: str = "") -> T:
    """under: the path of `body` within the request."""
    try:
        return decoder(body)
    except msgspec.ValidationError as error:
        found = _AT.match(str(error))
        what = found["what"] if found else str(error)
        absent = _MISSING.search(what)
        path = ".".join(step for step in (under, found["path"] if found else "") if step)
        path = path or (absent["name"] if absent else "")  # of the body itself: by what it lacks
        raise invalid(f"'{path}': {what}." if path else f"{what}.", path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise too_deep() from None


def missing(path: str) -> Fault:
    return invalid(f"'{path}' is required.", path)


def names(kind: type[Struct]) -> frozenset[str]:
    """Every member name of a wire struct, its tag included."""
    config = kind.__struct_config__
    tag = {config.tag_field} if config.tag_field else set()
    return frozenset(kind.__struct_encode_fields__) | tag


def unread(items: Iterable[Any], known: frozenset[str], path: str, first: int = 0) -> dict[str, Raw]:
    """The members of decoded objects that their wire struct does not have, by path: `messages[2].prefix`. first: the number of the
    first of them."""
    found: dict[str, Raw] = {}
    for position, item in enumerate(items, first):
        if isinstance(item, dict) and not item.keys() <= known:
            for name in item.keys() - known:
                if item[name] is not None:
                    found[f"{path}[{position}].{name}"] = written(item[name])
    return found


def tree(raw: Raw) -> Any:
    return decode(_decode_any, raw)


def written(value: object) -> Raw:
    """A part of a request's tree. Reading it and writing it do not reach the same depth."""
    try:
        return Raw(msgspec.json.encode(value))
    except RecursionError:
        raise too_deep() from None


def too_deep() -> Fault:
    return invalid("The request body is nested too deeply.")
