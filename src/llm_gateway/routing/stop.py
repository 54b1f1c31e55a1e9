"""One place of a plan's: a provider and model with all the keys it can be asked by. Values only."""

from __future__ import annotations

from msgspec import Struct

from llm_gateway.routing.target import Target


class Stop(Struct, frozen=True):
    """One provider and model: its keys are alternatives, taken in turn or by their weights.

    `lacks`: abilities it is known not to have; `context`: tokens, if known; `region`, `zone`: where it runs; `distance`: from here; `mark`:
    its name, as sessions are hashed to."""

    keys: tuple[Target, ...]
    weight: int = 1
    weights: tuple[int, ...] = ()  # of the keys, where they differ
    lacks: frozenset[str] = frozenset()
    context: int | None = None
    regions: tuple[str, ...] = ()
    distance: int = 0
    mark: bytes = b""

    @property
    def name(self) -> str:
        return f"{self.keys[0].provider}/{self.keys[0].model}"
