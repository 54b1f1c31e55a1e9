"""Ids of function calls. Gemini seldom gives any, the other shapes need them.

Law: an id of ours is made of the reply's own id and the call's place, so it is the same however often it is read; it is
recognised by its prefix and never sent to Gemini, which did not make it.
"""

from __future__ import annotations

_PREFIX = "gcall_"


def made(reply: str, place: int) -> str:
    """reply: Gemini's responseId, or ""."""
    return f"{_PREFIX}{reply}_{place}" if reply else f"{_PREFIX}{place}"


def theirs(name: str) -> str | None:
    """The id as the upstream may have it; None for one of ours."""
    return None if name.startswith(_PREFIX) else name
