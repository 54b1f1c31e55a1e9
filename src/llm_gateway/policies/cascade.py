"""Whether a cheap model's answer will do, or a dearer one is to be asked. Pure.

Law: judges whole replies by what can be told without understanding them; the first reason found is given, for log and journal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from msgspec import Struct

_decode = msgspec.json.Decoder().decode


class Escalation(Struct, frozen=True):
    """Any of these sends a reply back. `finish`: length, content_filter, refusal; `under`: fewer tokens; `matches`: found in a text of
    it; `invalid_json`: a text of it is none."""

    finish: frozenset[str] = frozenset()
    under: int | None = None
    matches: re.Pattern[str] | None = None
    invalid_json: bool = False

    def reason(self, ends: Iterable[str], output: int | None, texts: list[str]) -> str:
        """"" if the reply will do. ends: why its choices ended; texts: what they say."""
        for end in ends:
            if end in self.finish:
                return end
        if self.under is not None and output is not None and output < self.under:
            return "too_short"
        if self.matches is not None and any(map(self.matches.search, texts)):
            return "matches"
        return "no_json" if self.invalid_json and not all(map(_is_json, texts)) else ""


def _is_json(text: str) -> bool:
    try:
        _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
