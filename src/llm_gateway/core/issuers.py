"""Who may sign for principals, and what their tokens' claims mean here: the values that configuration and admission agree on.

Law: values only. A claim is named by itself (`sub`, `https://example.com/tenant`), or by a path into objects (`realm_access.roles`).
"""

from __future__ import annotations

from msgspec import Struct

from llm_gateway.core.tenancy import Scope


class Claims(Struct, frozen=True):
    """Which claim holds what; "" none does."""

    tenant: str = "tenant"
    project: str = ""
    user: str = "sub"
    roles: str = ""


class Issuer(Struct, frozen=True, kw_only=True):
    """`audience`: one of them must be the token's. `tenant`: of all its tokens, whatever they say, if not "". `jwks`: its keys, as JSON; else
    they are fetched from `jwks_url`, or from where its discovery document says. `required`: claims and what they must be, or contain.
    `roles`: what a role may do; empty: everybody may use models. `private`: its keys may be fetched from networks of one's own."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks: str = ""
    jwks_url: str = ""
    private: bool = False
    leeway: float = 60.0
    required: dict[str, str] = {}
    tenant: str = ""
    claims: Claims = Claims()
    roles: dict[str, tuple[Scope, ...]] = {}
