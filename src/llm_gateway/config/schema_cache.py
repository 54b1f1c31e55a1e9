"""Sections of config.yaml about the response cache: the whole gateway's, and what an alias says differently.

Law: shape only, as `schema.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llm_gateway.config.values import Seconds, Section

Member = Annotated[str, Field(min_length=1)]


class Cache(Section):
    enabled: bool = Field(default=False, description="Answer identical requests of a tenant with the reply that was kept.")
    backend: Literal["memory", "redis"] = Field(
        default="memory", description="Where replies are kept: in each worker's memory, or in Redis (`redis.url`), for all workers and replicas."
    )
    ttl_seconds: Seconds = Field(default=3600.0, description="How long a reply is kept.")
    max_size_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="With `backend: memory`: how much, divided among the workers: each has its own. Then what was used least goes."
    )
    sampling: bool = Field(default=True, description="Chat requests whose temperature is not 0 too; `false`: only where it is 0.")
    ignore: tuple[Member, ...] = Field(
        default=("user", "metadata", "safety_identifier"), description="Members of a body in which identical requests may differ."
    )


class AliasCache(Section):
    enabled: bool | None = Field(default=None, description="On or off for this alias; as `cache.enabled` if unset.")
    ttl: Seconds | None = Field(default=None, description="Instead of `cache.ttl_seconds`.")
    sampling: bool | None = Field(default=None, description="Instead of `cache.sampling`.")
    ignore: tuple[Member, ...] | None = Field(default=None, description="Instead of `cache.ignore`.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value
