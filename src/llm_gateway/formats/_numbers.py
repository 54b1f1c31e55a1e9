"""Numbers out of replies that no schema holds to: a missing, null, negative or absurd count reads as zero.

Law: never raises. A reply is not refused, and a bill not lost, because one count in it is odd.
"""

from __future__ import annotations

from typing import Any

LARGEST = 1 << 53  # beyond it JSON readers disagree about what was written
_FLOOR = -9999.0  # what OpenAI writes for "impossible"; JSON has no infinity


def tokens(fields: dict[str, Any], *names: str) -> int:
    """The first of `names` that holds a usable count, 0 if none does."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int | float) and 0 < value < LARGEST:
            return int(value)
    return 0


def money(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < LARGEST:
        return float(value)
    return None


def likelihood(value: object) -> float:
    """A token's logarithm of probability."""
    return float(value) if isinstance(value, int | float) and _FLOOR < value < LARGEST else _FLOOR


def section(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """The object under `name`; {} where it is absent, null or no object."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}
