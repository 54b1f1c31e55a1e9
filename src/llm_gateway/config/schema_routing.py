"""What may stand under `models:`: names that clients call, where they lead and how one is chosen. Shape only."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llm_gateway.config.schema_cache import AliasCache
from llm_gateway.config.values import Seconds, Section

Region = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
Regions = Annotated[str, Field(pattern=r"^[a-z0-9*-]{1,63}$")]
Ability = Literal["image", "audio", "document", "video", "tools", "schema"]
Strategy = Literal["priority", "weighted", "round_robin", "least_busy", "latency", "throughput", "cost", "adaptive"]


class Target(Section):
    target: str = Field(pattern=r"^[^/\s]+/\S+$", description="`provider/model`.")
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=1, description="Share among targets, where the strategy weighs them."
    )
    region: Region | None = Field(default=None, description="Where it runs; the provider's if unset.")
    zone: Region | None = Field(default=None, description="The zone within the region.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"target": value} if isinstance(value, str) else value


class AliasTimeout(Section):
    total: Seconds | None = Field(default=None, description="Whole request through this alias.")
    first_chunk: Seconds | None = Field(default=None, description="First meaningful chunk of a stream, then the next target.")
    silence: Seconds | None = Field(default=None, description="Between bytes of a stream.")
    attempt: Seconds | None = Field(default=None, description="One attempt of a plain call, then the next target.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"total": value} if isinstance(value, (int, float, str)) else value


class AliasRetry(Section):
    max_attempts: Annotated[int, Field(ge=1, le=20)] | None = Field(
        default=None, description="Attempts on all targets together; `resilience.retry.max_attempts` if unset."
    )
    max_retries: Annotated[int, Field(ge=0, le=10)] | None = Field(
        default=None, description="Further attempts on the same target; the provider's if unset."
    )


class AdaptiveWeights(Section):
    latency: Annotated[float, Field(ge=0, le=100)] = Field(default=1.0, description="Of the expected time to the last token.")
    cost: Annotated[float, Field(ge=0, le=100)] = Field(default=1.0, description="Of the expected cost.")
    errors: Annotated[float, Field(ge=0, le=100)] = Field(default=2.0, description="Of the share of calls that failed of late.")


class When(Section):
    tags: tuple[str, ...] = Field(default=(), description="All of these stand in the request's `x-gateway-tags`.")
    tenants: tuple[str, ...] = Field(default=(), description="The caller's tenant is one of these.")
    keys: tuple[str, ...] = Field(default=(), description="The caller's key is one of these, by name.")
    needs: tuple[Ability, ...] = Field(default=(), description="It has all of these in it: image, audio, document, video, tools, schema.")
    prompt_over: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Its prompt has more tokens, by estimate.")
    prompt_under: Annotated[int, Field(ge=1)] | None = Field(default=None, description="Its prompt has fewer tokens, by estimate.")
    stream: bool | None = Field(default=None, description="It asks for a stream, or does not.")
    regions: tuple[Regions, ...] = Field(default=(), description="This gateway (`server.region`) runs in one of these regions, areas or patterns.")


class Rule(Section):
    when: When = Field(description="All of it must be true of a request.")
    use: str = Field(min_length=1, description="The alias it then goes by.")


class Hedge(Section):
    after: Annotated[str, Field(pattern=r"^(p\d\d|\d+(\.\d+)?\s*(ms|s|m|h)?)$")] = Field(
        default="p95", description="A quantile of the target's recent times to the first token, or seconds."
    )
    budget: Annotated[float, Field(gt=0, le=1)] = Field(default=0.1, description="At most this share of requests.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value is True:
            return {}
        value = {"after": value} if isinstance(value, (str, int, float)) else value
        if isinstance(value, dict) and isinstance(value.get("after"), (int, float)):
            return {**value, "after": str(value["after"])}
        return value


class Shadow(Section):
    target: str = Field(pattern=r"^[^/\s]+/\S+$", description="`provider/model` that copies go to.")
    share: Annotated[float, Field(gt=0, le=1)] = Field(default=0.01, description="Share of requests that are copied.")


class Cascade(Section):
    finish: tuple[Literal["length", "content_filter", "refusal"], ...] = Field(default=(), description="The reply ended for one of these.")
    output_under: Annotated[int, Field(ge=1)] | None = Field(default=None, description="It has fewer tokens.")
    matches: str | None = Field(default=None, min_length=1, description="This regular expression is found in its text, e.g. `I (don't|do not) know`.")
    invalid_json: bool = Field(default=False, description="Its text is no JSON.")

    @model_validator(mode="after")
    def _something(self) -> Cascade:
        if not (self.finish or self.output_under or self.matches or self.invalid_json):
            raise ValueError("expected at least one of `finish`, `output_under`, `matches` and `invalid_json`")
        try:
            re.compile(self.matches or "")
        except re.error as error:
            raise ValueError(f"`matches` is no regular expression: {error}") from None
        return self


class Alias(Section):
    tenants: tuple[str, ...] = Field(default=(), description="Whose it is: for all other tenants there is no such model. Everybody's if empty.")
    strategy: Strategy = Field(
        default="priority",
        description="`priority`: the first target that can. `weighted`, `round_robin`, `least_busy`. `latency`: soonest to the last token; "
        "`throughput`: most tokens a second; `cost`: cheapest for this request; `adaptive`: latency, cost and errors together.",
    )
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = Field(
        description="`provider/model`, or `{target, weight, region, zone}`."
    )
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Aliases, `provider/model` or well-known model names, in order."
    )
    context_fallbacks: tuple[str, ...] = Field(default=(), description="Where requests go that are too long for a target, in the same words.")
    content_filter_fallbacks: tuple[str, ...] = Field(default=(), description="Where requests go that a target's filter refuses.")
    timeout: AliasTimeout = Field(
        default=AliasTimeout(), description="Seconds for the whole request, or `{total, first_chunk}`."
    )
    retry: AliasRetry = Field(default=AliasRetry(), description="How often, where this alias differs from others.")
    sticky: Literal["none", "session", "prefix"] = Field(
        default="session",
        description="What stays with one target and key: requests of one `x-gateway-session`; with `prefix` also conversations that begin "
        "alike, whose prompt is in that provider's cache.",
    )
    weights: AdaptiveWeights = Field(default=AdaptiveWeights(), description="What counts how much for `adaptive`.")
    residency: tuple[Regions, ...] = Field(
        default=(), description="Only targets that run in these regions, areas (`eu`) or patterns (`eu-*`); 403 if there are none."
    )
    rules: tuple[Rule, ...] = Field(default=(), description="Requests that go by another alias; the first that fits.")
    hedge: Hedge | None = Field(
        default=None, description="Ask a second target as well when the first is slow (`true`, `p95`, seconds); whoever speaks first is the reply."
    )
    shadow: Shadow | None = Field(default=None, description="Copy a share of requests to another target and throw its answers away.")
    cascade: Cascade | None = Field(
        default=None, description="Send a whole reply back and ask the next target if any of this is true of it. Streams are never sent back."
    )

    cache: AliasCache = Field(default=AliasCache(), description="The response cache, where this alias differs; `false`: not for it.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"targets": [value]}
        return {"targets": value} if isinstance(value, list) else value
