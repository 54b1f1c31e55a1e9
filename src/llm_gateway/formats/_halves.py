r"""JSON in which half a character stands alone: an escape like \ud83d without its second half, or that without the first.

Services that cut text by UTF-16 units write it in the midst of an emoji. The JSON of the standard allows it and clients in
JavaScript join the halves again; our decoder refuses the whole text. Law: what goes through keeps its bytes; what we read has
the replacement character for each half.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw

T = TypeVar("T")
# Every escape, so that a backslash that is itself escaped begins none; of the surrogates, both halves where both are there.
_ESCAPES = re.compile(
    rb"\\(?:u[dD](?:[89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_ONE = len(rb"\ud83d")


def replaced(text: bytes) -> bytes:
    """The very object where there is none."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return text
    whole = _ESCAPES.sub(_replaced, text)
    return text if whole == text else whole


def _replaced(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if len(escape[0]) == _ONE else escape[0]


def tolerant(decode: Callable[[bytes | Raw], T]) -> Callable[[bytes | Raw], T]:
    """As `decode`, but for halves: they cost a second try, and nothing where there are none."""

    def tried(text: bytes | Raw) -> T:
        try:
            return decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            whole = replaced(came := bytes(text))
            if whole is came:
                raise
        return decode(whole)

    return tried
