"""Issuers of tokens of the file, judged: each once, and fetched from where keys may be fetched.

Law: nothing is resolved; what a name leads to is judged again each time its keys are fetched (admin/keysets.py).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from llm_gateway.config.load import Loaded
from llm_gateway.config.problems import Problem, dotted, place
from llm_gateway.config.schema_auth import Jwt
from llm_gateway.core.issuers import Claims, Issuer
from llm_gateway.policies import addresses


def resolve(sections: tuple[Jwt, ...]) -> tuple[Issuer, ...]:
    return tuple(
        Issuer(
            issuer=each.issuer, audience=each.audience, algorithms=each.algorithms, jwks=each.jwks or "", jwks_url=each.jwks_url or "",
            private=each.allow_private, leeway=each.leeway, required=each.required_claims, tenant=each.tenant or "", roles=each.roles,
            claims=Claims(each.claims.tenant, each.claims.project or "", each.claims.user, each.claims.roles or ""),
        )
        for each in sections
    )  # fmt: skip


def judge(loaded: Loaded) -> list[Problem]:
    problems = []
    names: set[str] = set()
    for position, each in enumerate(loaded.root.auth.jwt):
        option = "jwks_url" if each.jwks_url is not None else "issuer"
        path = ("auth", "jwt", position, option)
        if each.issuer in names:
            path = ("auth", "jwt", position, "issuer")
            problems.append(Problem(place(path, loaded.where), dotted(path), "is the issuer of another entry"))
        names.add(each.issuer)
        if each.jwks is not None:
            continue
        url = each.jwks_url or each.issuer
        judged = rules(url, private=each.allow_private)
        found = addresses.place(url, judged)
        if found is None:
            problems.append(Problem(place(path, loaded.where), dotted(path), "expected an address: https:// or http://, a host, no user or password"))
        elif addresses.is_address(found.host) and not addresses.reachable(found.host, judged):
            hint = "`allow_private: true` allows loopback and private ones"
            problems.append(Problem(place(path, loaded.where), dotted(path), "leads into a network of one's own", hint))
    return problems


def rules(url: str, *, private: bool) -> addresses.Rules:
    """A port that stands in the file is fine, whatever it is; the host is judged as any other."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return addresses.Rules(addresses.WEB_PORTS if port is None else frozenset({port}), private=private)
