"""Seals of other APIs in a place of this shape that comes back: a reasoning item's `encrypted_content`.

Law: a value of ours is told from OpenAI's own by its opening, and holds what was sealed exactly as it came, with the name of
the shape that sealed it. Clients keep `encrypted_content` and send it back untouched, which is what it is for.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from msgspec import Struct

# signature: of the item's own text; redacted: the whole thought; part: of the call or text that stands before the item.
Use = Literal["signature", "redacted", "part"]
_OPENING = "llm-gateway-seal-1"
_USES = frozenset(get_args(Use))


class Seal(Struct, frozen=True, gc=False):
    shape: str
    use: Use
    value: str


def write(seal: Seal) -> str:
    return f"{_OPENING}:{seal.shape}:{seal.use}:{seal.value}"


def read(text: str | None) -> Seal | None:
    """None for what is not a seal of ours."""
    if text is None or not text.startswith(_OPENING):
        return None
    opening, *rest = text.split(":", 3)
    if opening != _OPENING or len(rest) != 3 or rest[1] not in _USES:
        return None
    return Seal(rest[0], cast(Use, rest[1]), rest[2])
