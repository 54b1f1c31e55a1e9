"""Sections of config.yaml about who may call: whether a key is needed, and who else may vouch for a caller.

Law: shape only, as `schema.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec
from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from llm_gateway.config.schema_tenancy import Name
from llm_gateway.config.values import Seconds, Section, Url
from llm_gateway.core.tenancy import Scope

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


def one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _short(items: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [items, {"type": "array", "items": items, "minItems": 1}]})


Words = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(one_or_several), _short({"type": "string"})]
Scopes = Annotated[tuple[Scope, ...], BeforeValidator(one_or_several), _short({"enum": list(get_args(Scope))})]
Claim = Annotated[str, Field(min_length=1, max_length=200)]


class Claims(Section):
    """A claim's name, or a path into objects such as `realm_access.roles`."""

    tenant: Claim = Field(default="tenant", description="Holds the tenant's name.")
    project: Claim | None = Field(default=None, description="Holds the project's name.")
    user: Claim = Field(default="sub", description="Holds the user's name.")
    roles: Claim | None = Field(default=None, description="Holds roles: a list, or text with spaces between.")


class PublicKey(Section):
    pem: str = Field(min_length=1, description="A public key or a certificate in PEM, or several without `kid`; usually `file:/path`.")
    kid: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="Its id: tokens with another one are not tried with it. Unset: all are that name none of the others."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"pem": value} if isinstance(value, str) else value


class Jwt(Section):
    """Keys come from `public_keys`, and from `jwks`, else from `jwks_url`, else, where none of those stands, from where `issuer`'s
    /.well-known/openid-configuration says."""

    issuer: str = Field(min_length=1, description="What `iss` must be, exactly.")
    audience: Words = Field(min_length=1, description="What `aud` must be or contain; one of these.")
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1, description="The only ones that are accepted.")
    jwks: str | None = Field(default=None, description="The issuer's public keys as a JWK set, usually `file:/path`; then nothing is fetched.")
    jwks_url: Url | None = Field(default=None, description="Where to fetch them from; by discovery if neither this nor `public_keys` is set.")
    public_keys: Annotated[tuple[PublicKey, ...], BeforeValidator(one_or_several)] = Field(
        default=(), max_length=32, description="The issuer's public keys in PEM, beside those of `jwks` or `jwks_url`; alone, nothing is fetched."
    )
    allow_private: bool = Field(default=False, description="Fetch from loopback and private networks too; never from link-local or a cloud's metadata.")
    leeway: Annotated[Seconds, Field(le=600)] = Field(default=60.0, description="By how much clocks may differ.")
    required_claims: dict[Claim, str] = Field(default={}, description="Claims that must be this, or contain it.")
    tenant: Name | None = Field(default=None, description="The tenant of all its tokens, whatever they say.")
    claims: Claims = Field(default=Claims(), description="Which claim holds what.")
    roles: dict[str, Scopes] = Field(
        default={}, description="Role -> `inference`, `read`, `admin`; a token without any is refused. Unset: everybody may use models."
    )

    @field_validator("jwks")
    @classmethod
    def _keys(cls, value: str | None) -> str | None:
        try:
            keys = msgspec.json.decode(value)["keys"] if value is not None else []
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError('expected a JWK set: {"keys": [...]}') from None
        if not isinstance(keys, list):
            raise ValueError('expected a JWK set: {"keys": [...]}')  # noqa: TRY004  pydantic hears ValueError
        return value

    @model_validator(mode="after")
    def _whole(self) -> Jwt:
        if self.roles and self.claims.roles is None:
            raise ValueError("`roles` needs `claims.roles`, which says where they stand")
        if self.jwks is None and self.jwks_url is None and not self.public_keys and not self.issuer.startswith(("https://", "http://")):
            raise ValueError("expected `jwks`, `jwks_url` or `public_keys`, since `issuer` is no address to discover them from")
        return self


class Auth(Section):
    required: bool = Field(default=True, description="`false` lets anybody in; on loopback addresses only.")
    force: bool = Field(default=False, description="Allow `required: false` on other addresses too.")
    jwt: tuple[Jwt, ...] = Field(default=(), description="Who else may vouch for callers: issuers of JSON Web Tokens, sent instead of a key.")
