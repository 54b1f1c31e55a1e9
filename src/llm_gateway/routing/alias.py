"""What the configuration says of a name that clients may call. Values only."""

from __future__ import annotations

from msgspec import Struct

from llm_gateway.policies.cascade import Escalation
from llm_gateway.routing.plan import Hedge, Rule


class Goal(Struct, frozen=True):
    """One target as written. `region`, `zone`: its own, where the provider's do not hold for it."""

    provider: str
    model: str
    weight: int = 1
    region: str | None = None
    zone: str | None = None


class Alias(Struct, frozen=True):
    """Lists of goals are resolved: no alias stands in them. `attempts`, `retries`: None, as for everybody. `rules` lead to aliases;
    `shadow`: where copies go, and which share; `tenants`: whose it is, everybody's if empty. Seconds: `attempt` (of a plain call), `silence`, `first_chunk`."""

    name: str
    targets: tuple[Goal, ...]
    fallbacks: tuple[Goal, ...] = ()
    context_fallbacks: tuple[Goal, ...] = ()
    content_filter_fallbacks: tuple[Goal, ...] = ()
    first_chunk: float | None = None
    silence: float | None = None
    attempt: float | None = None
    timeout: float | None = None
    strategy: str = "priority"
    sticky: str = "session"
    weights: tuple[float, float, float] = (1.0, 1.0, 2.0)
    residency: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    attempts: int | None = None
    retries: int | None = None
    hedge: Hedge | None = None
    shadow: tuple[Goal, float] | None = None
    cascade: Escalation | None = None
    tenants: frozenset[str] = frozenset()

    def goals(self) -> tuple[Goal, ...]:
        """All there are, for whatever reason they may be come to."""
        shadow = (self.shadow[0],) if self.shadow is not None else ()
        return (*self.targets, *self.fallbacks, *self.context_fallbacks, *self.content_filter_fallbacks, *shadow)
