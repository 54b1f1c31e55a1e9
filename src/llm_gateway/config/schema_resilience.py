"""What may stand under `resilience:`, and what providers may say differently. Shape only."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from llm_gateway.config.operations import Health
from llm_gateway.config.values import Seconds, Section


class Retry(Section):
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        default=5, description="Attempts of one request on all targets together."
    )
    base_seconds: Seconds = Field(
        default=0.5, description="First pause before the same target again; full jitter, doubling."
    )
    cap_seconds: Seconds = Field(default=8.0, description="Longest such pause.")
    wait_retry_after_seconds: Seconds = Field(default=2.0, description="A Retry-After up to this is waited out.")
    budget: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.2, description="Share of active requests that may be retries."
    )
    budget_min: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Retries allowed however few requests are active."
    )


class RateLimit(Section):
    requests_per_minute: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Requests a minute; so many may come at once.")
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Tokens a minute, of prompts and replies; estimated before a call, corrected after it."
    )


class Queue(Section):
    max_wait: Seconds = Field(default=0.0, description="How long a request may wait for room at its providers' limits; 0: not at all, 429 at once.")
    max_length: Annotated[int, Field(ge=1)] = Field(default=1000, description="How many may wait, per worker.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"max_wait": value} if isinstance(value, (int, float, str)) else value


class Breaker(Section):
    enabled: bool = Field(default=True, description="`false`: never opens.")
    failures: Annotated[int, Field(ge=0)] = Field(default=5, description="Opens after so many in a row; 0: not by that.")
    ratio: Annotated[float, Field(gt=0, le=1)] = Field(default=0.5, description="Or when this share of calls fails,")
    volume: Annotated[int, Field(ge=1)] = Field(default=20, description="of at least so many")
    window: Annotated[Seconds, Field(gt=0)] = Field(default=30.0, description="within so long.")
    ejection: Annotated[Seconds, Field(gt=0)] = Field(default=10.0, description="Open for so long, times how often it opened in a row.")
    max_ejection: Annotated[Seconds, Field(gt=0)] = Field(default=300.0, description="But never longer.")
    recovery: Seconds = Field(default=10.0, description="After a good probe its share of calls grows back over so long.")
    probe_interval: Annotated[Seconds, Field(gt=0)] = Field(
        default=1.0, description="Where nobody else is left, one real call finds out so often; the others get 503 at once."
    )
    panic: bool = Field(default=False, description="Where nobody else is left, ask whatever the breaker says.")
    key_ejection: Seconds = Field(
        default=300.0, description="A key that is refused (401, 402; 403 for that model) is left alone for so long; 0: it is not."
    )
    cooling: bool = Field(default=True, description="Who says 429 and when to come again is left alone until then.")


class Concurrency(Section):
    initial: Annotated[int, Field(ge=1)] = Field(default=20, description="Calls at once to begin with, per target.")
    min: Annotated[int, Field(ge=1)] = Field(default=4, description="Never fewer.")
    max: Annotated[int, Field(ge=1)] = Field(default=1000, description="Never more.")

    @model_validator(mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {} if value is True else value

    @model_validator(mode="after")
    def _ordered(self) -> Concurrency:
        if not self.min <= self.initial <= self.max:
            raise ValueError("expected min <= initial <= max")
        return self


class Resilience(Section):
    queue: Queue = Field(default=Queue(), description="Waiting by priority (`x-gateway-priority`), then tenants in turn.")
    retry: Retry = Field(default=Retry(), description="When and how often a failed attempt is repeated.")
    health: Health = Field(default=Health(), description="How the operator process asks providers whether they are there.")
    breaker: Breaker = Field(default=Breaker(), description="When a target that fails is left alone.")
    concurrency: Concurrency | None = Field(
        default=None, description="Find out how many calls at once each target takes (`true`, or bounds); beyond that the next is asked."
    )
