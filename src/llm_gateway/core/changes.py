"""What a worker finds out about a provider, key or model that the other workers should know: a value, and nothing else."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

What = Literal[
    "breaker_opened", "breaker_closed", "key_disabled", "key_restored", "cooling", "provider_down", "provider_up"
]  # fmt: skip


class Change(Struct, frozen=True):
    """`model` "": the whole key, or the whole provider where `key` is "" too. `seconds`: how long it holds from now, 0: until the
    opposite change. `reason`: short, and no secret."""

    provider: str
    key: str
    model: str
    what: What
    seconds: float = 0.0
    reason: str = ""
