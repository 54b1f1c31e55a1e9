"""What one process learns of an upstream and others should know: a value, told from worker to operator to the other workers."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

What = Literal[
    "breaker_opened", "breaker_closed", "key_disabled", "key_restored", "cooling", "provider_down", "provider_up"
]


class Change(Struct, frozen=True):
    """`key`, `model` "": all of them. `seconds`: how long it holds from now on, 0: until the opposite is told. `reason`: a word
    or two, never a secret."""

    provider: str
    key: str
    model: str
    what: What
    seconds: float = 0.0
    reason: str = ""
