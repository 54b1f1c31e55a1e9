"""Sections of config.yaml about who may use how much: limits, budgets, tenants, clients' keys. The admin API checks bodies by them too.

Law: shape only, as `schema.py`.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator

from llm_gateway.config.schema_routing import Regions
from llm_gateway.config.values import Section
from llm_gateway.core.tenancy import INFERENCE, Period, Scope


def parse_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError("expected an address or network such as 10.0.0.0/8") from None


def parse_moment(value: Any) -> Any:
    """A day is its start, and times without a zone are UTC."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a time such as 2026-12-31 or 2026-12-31T12:00:00Z") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


def within_time(value: datetime) -> datetime:
    """It is kept in Unix seconds and told in UTC: years are 1 to 9999 there, too."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a time such as 2026-12-31 or 2026-12-31T12:00:00Z") from None


MOST = 10**15  # beyond it no limit limits; records hold 64 bits
Count = Annotated[int, Field(ge=0, le=MOST)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$")]
Network = Annotated[str, AfterValidator(parse_network)]
Moment = Annotated[datetime, BeforeValidator(parse_moment), AfterValidator(within_time)]
Money = Annotated[Decimal, Field(ge=0, le=1_000_000_000, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=10)]


class Rates(Section):
    requests_per_minute: Count | None = Field(default=None, description="Requests in a minute; a minute's worth may come at once.")
    tokens_per_minute: Count | None = Field(default=None, description="Tokens of prompts and replies in a minute: estimated before, corrected after.")
    requests_per_day: Count | None = Field(default=None, description="Requests in a UTC day.")
    concurrent: Count | None = Field(default=None, description="Requests at once.")


class Limits(Rates):
    models: dict[str, Rates] = Field(default={}, description="Further limits by model, as clients name it.")


class Budget(Section):
    usd: Money = Field(description="US dollars in one period.")
    period: Period = Field(default="month", description="hour, day, week (from Monday), month, or total; of the UTC calendar.")
    hard: bool = Field(default=True, description="Refuse what would exceed it (429 `budget_exceeded`); `false` only tells.")
    alerts: tuple[Share, ...] = Field(default=(0.8, 1.0), description="Shares of it at which `budget_alert` is told.")


class Grant(Section):
    limits: Limits = Field(default=Limits(), description="How many requests and tokens.")
    budgets: tuple[Budget, ...] = Field(default=(), description="How much money.")
    models: tuple[str, ...] = Field(default=(), description="Models and aliases that may be used; all if empty.")
    regions: tuple[Regions, ...] = Field(default=(), description="Where its requests may be answered; anywhere if empty. 403 where none is left.")
    max_output_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = Field(
        default=None, description="Tokens of one reply at most; larger wishes are cut, and `x-gateway-adjusted-params` says so."
    )

    @field_validator("budgets")
    @classmethod
    def _once(cls, value: tuple[Budget, ...]) -> tuple[Budget, ...]:
        periods = [each.period for each in value]
        if len(set(periods)) != len(periods):
            raise ValueError("expected at most one budget of each period")
        return value


class Tenant(Grant):
    projects: dict[Name, Grant] = Field(default={}, description="Its projects; keys name theirs.")
    users: dict[Name, Grant] = Field(default={}, description="Its users; keys name theirs.")
    each_user: Grant | None = Field(default=None, description="Of each user that is not named.")
    each_key: Grant | None = Field(default=None, description="Of each key that says nothing itself.")
    enabled: bool = Field(default=True, description="`false`: its keys are refused.")


class Key(Grant):
    name: str = Field(min_length=1, description="Public name in logs.")
    key: SecretStr | None = Field(default=None, description="What clients send. Kept as a keyed hash only.")
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        default=None, description="Instead of `key`: its hash, from `llm-gateway keys hash`."
    )
    aws: Annotated[str, Field(pattern="^[A-Z0-9]{16,128}$")] | None = Field(
        default=None, description="Instead of `key`: an AWS access key id, from `llm-gateway keys new --aws`, for Bedrock clients."
    )
    tenant: Name = Field(default="default", description="Whose key it is.")
    project: Name | None = Field(default=None, description="The project of that tenant that it is for.")
    user: Name | None = Field(default=None, description="The user of that tenant who has it.")
    expires: Moment | None = Field(default=None, description="From then on it is refused; 2026-12-31 or 2026-12-31T12:00:00Z.")
    ips: tuple[Network, ...] = Field(default=(), description="Networks it may come from; any if empty.")
    scopes: tuple[Scope, ...] = Field(
        default=INFERENCE, min_length=1, description="`inference`: use models; `read`, `admin`: of its own tenant in the admin API."
    )

    @model_validator(mode="after")
    def _one(self) -> Key:
        if [self.key, self.digest, self.aws].count(None) != 2:
            raise ValueError("expected exactly one of `key`, `digest` and `aws`")
        if self.key is not None and len(self.key.get_secret_value()) < 8:
            raise ValueError("expected a key of at least 8 characters")
        return self


class Defaults(Section):
    """What holds for everybody who has no say of their own."""

    each_tenant: Limits | None = Field(default=None, description="Of each tenant without limits of its own.")
    each_user: Limits | None = Field(default=None, description="Of each user without.")
    each_key: Limits | None = Field(default=None, description="Of each key without.")


class Budgets(Section):
    each_tenant: tuple[Budget, ...] = Field(default=(), description="Of each tenant without budgets of its own.")
    each_user: tuple[Budget, ...] = Field(default=(), description="Of each user without.")
    each_key: tuple[Budget, ...] = Field(default=(), description="Of each key without.")
    on_redis_loss: Literal["closed", "open"] = Field(
        default="closed", description="Hard budgets while Redis is away: refuse (503), or go on and book what was spent when it is back."
    )
    min_output_tokens: Annotated[int, Field(ge=1)] = Field(
        default=256, description="Under a hard budget a reply without a limit gets the largest that what is left affords; below so many tokens it is refused."
    )
