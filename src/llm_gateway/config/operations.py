"""What may stand in config.yaml about watching and telling: health probes, events, webhooks.

Law: as schema.py, of which this is a part.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from llm_gateway.config.values import Seconds, Section
from llm_gateway.core.happenings import Kind

Interval = Annotated[Seconds, Field(ge=0.05)]
Path = Annotated[str, Field(pattern=r"^/[!-~]*$")]


class Health(Section):
    enabled: bool = Field(default=True, description="`false`: providers are judged by their traffic alone.")
    interval: Interval = Field(default=30.0, description="Between two probes of a provider.")
    timeout: Interval = Field(default=5.0, description="For one probe; more is a failure.")
    fall: Annotated[int, Field(ge=1)] = Field(default=3, description="Failures in a row after which it is unhealthy.")
    rise: Annotated[int, Field(ge=1)] = Field(default=2, description="Answers in a row after which it is healthy again.")


class ProviderHealth(Section):
    enabled: bool | None = Field(default=None, description="Instead of `resilience.health.enabled`.")
    path: Path | None = Field(
        default=None, description="What to GET, with its query, from the root of its host; the service's own cheap request if unset."
    )
    interval: Interval | None = Field(default=None, description="Instead of `resilience.health.interval`.")
    timeout: Interval | None = Field(default=None, description="Instead of `resilience.health.timeout`.")
    fall: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Instead of `resilience.health.fall`.")
    rise: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Instead of `resilience.health.rise`.")


class Webhook(Section):
    url: str = Field(description="Where events are posted to, `https://host/path`; no redirect is followed, no proxy used.")
    secret: SecretStr = Field(
        description="Signs what is posted: `whsec_` and 24 to 64 bytes in base64, or any text of at least 24 characters."
    )
    events: tuple[Kind, ...] = Field(default=(), description="Which events; all if empty.")
    timeout: Interval = Field(default=5.0, description="For one attempt.")
    allow_private: bool = Field(
        default=False, description="Its host may be in loopback and private networks; never link-local or a cloud's metadata."
    )


class Events(Section):
    webhooks: tuple[Webhook, ...] = Field(default=(), description="Who events are posted to.")
