"""Bodies of the admin API about tenants, projects, users and keys: by the same sections as config.yaml.

Law: shape only. What is not said has the section's default; a PATCH is merged into what is there first (RFC 7396), then judged as a whole.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from llm_gateway.config.schema_tenancy import Grant, Moment, Name, Network
from llm_gateway.config.values import Credential, Seconds, Section
from llm_gateway.core.tenancy import INFERENCE, Scope

MONTH = 31 * 86400


def without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text without NUL, which no database takes")
    return text


class TenantBody(Grant):
    """A tenant, as it is created and changed."""

    name: Name = Field(description="Its name, for ever.")
    each_user: Grant | None = Field(default=None, description="Of each of its users without limits of their own.")
    each_key: Grant | None = Field(default=None, description="Of each of its keys without.")
    enabled: bool = Field(default=True, description="`false`: its keys are refused (403).")


class HolderBody(Grant):
    """A project or user of a tenant."""

    name: Name = Field(description="Its name within the tenant, for ever.")
    enabled: bool = Field(default=True, description="`false`: its keys are refused (403).")


class KeyBody(Grant):
    """A client's key. It has limits of its own where it says any; else those its tenant has for each."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(without_nul)] = Field(description="Public name in logs; need not be unique.")
    tenant: Name = Field(default="default", description="Whose key it is, for ever.")
    project: Name | None = Field(default=None, description="The project of that tenant that it is for.")
    user: Name | None = Field(default=None, description="The user of that tenant who has it.")
    expires: Moment | None = Field(default=None, description="From then on it is refused (401); 2026-12-31 or 2026-12-31T12:00:00Z.")
    ips: tuple[Network, ...] = Field(default=(), description="Networks it may come from; any if empty.")
    scopes: tuple[Scope, ...] = Field(
        default=INFERENCE, min_length=1, description="`inference`: use models; `read`, `admin`: look at and change its own tenant by the admin API."
    )
    enabled: bool = Field(default=True, description="`false`: it is refused (401), as after a revocation.")


class NewKeyBody(KeyBody):
    """What can be said of a key only when it is made."""

    aws: bool = Field(default=False, description="AWS credentials instead of a key, for clients of Bedrock's API.")


class RotationBody(Section):
    overlap_seconds: Annotated[Seconds, Field(le=MONTH)] = Field(default=0.0, description="For so long the secret of before works, too; at most 31 days.")


class SecretBody(Section):
    key: Credential = Field(min_length=1, max_length=16384, description="The tenant's own key at a provider. Kept encrypted, never shown.")
