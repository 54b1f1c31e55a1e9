"""Who may sign for principals, and what their tokens' claims mean here: the values that configuration and admission agree on.

Law: values only. A claim is named by itself (`sub`, `https://example.com/tenant`), or by a path into objects (`realm_access.roles`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from llm_gateway.core.tenancy import Scope

# What a signature of each algorithm is made with (RFC 7518 section 3.1, RFC 8037 section 3.1): `kty` of a JSON Web Key, and which `crv` it may have.
KINDS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", (None,))),
    "ES256": ("EC", ("P-256",)), "ES384": ("EC", ("P-384",)), "ES512": ("EC", ("P-521",)), "EdDSA": ("OKP", ("Ed25519", "Ed448")),
}  # fmt: skip


class Claims(Struct, frozen=True):
    """Which claim holds what; "" none does."""

    tenant: str = "tenant"
    project: str = ""
    user: str = "sub"
    roles: str = ""


class Issuer(Struct, frozen=True, kw_only=True):
    """`audience`: one of them must be the token's. `tenant`: of all its tokens, whatever they say, if not "". `jwks`: its keys, as JSON; else
    they are fetched from `jwks_url`, or from where its discovery document says. `pinned`: keys that the file gives beside or instead of those, a
    JWK set as JSON, in which one without a `kid` is tried for every token that names none of the others. `required`: claims and what they must
    be, or contain. `roles`: what a role may do; empty: everybody may use models. `private`: its keys may be fetched from networks of one's own."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks: str = ""
    jwks_url: str = ""
    pinned: str = ""
    private: bool = False
    leeway: float = 60.0
    required: dict[str, str] = {}
    tenant: str = ""
    claims: Claims = Claims()
    roles: dict[str, tuple[Scope, ...]] = {}

    @property
    def fetched(self) -> bool:
        """Whether keys of it are to be fetched."""
        return not self.jwks and (bool(self.jwks_url) or not self.pinned)


def fits(key: dict[str, Any], algorithms: Iterable[str]) -> bool:
    """Whether a JSON Web Key verifies signatures of any of these."""
    kind, curve, only = key.get("kty"), key.get("crv"), key.get("alg")
    return any(each in KINDS and KINDS[each][0] == kind and curve in KINDS[each][1] and only in (None, each) for each in algorithms)
