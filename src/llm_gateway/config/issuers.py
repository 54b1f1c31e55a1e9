"""Issuers of tokens of the file, judged: each once, with keys that can be used, or fetched from where keys may be fetched.

Law: nothing is resolved; what a name leads to is judged again each time its keys are fetched (admin/keysets.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from llm_gateway.config import pems
from llm_gateway.config.load import Loaded
from llm_gateway.config.problems import Path, Problem, dotted, place
from llm_gateway.config.schema_auth import Jwt, PublicKey
from llm_gateway.core.issuers import Claims, Issuer, fits
from llm_gateway.policies import addresses

MOST_NAMELESS = 4  # keys of the file that a token which names no other is tried with: the dearest (P-384, P-521) take a millisecond each


def resolve(sections: tuple[Jwt, ...]) -> tuple[Issuer, ...]:
    """Of sections that `judge` finds nothing wrong with."""
    return tuple(
        Issuer(
            issuer=each.issuer, audience=each.audience, algorithms=each.algorithms, jwks=each.jwks or "", jwks_url=each.jwks_url or "",
            pinned=_pinned(each.public_keys), private=each.allow_private, leeway=each.leeway, required=each.required_claims,
            tenant=each.tenant or "", roles=each.roles,
            claims=Claims(each.claims.tenant, each.claims.project or "", each.claims.user, each.claims.roles or ""),
        )
        for each in sections
    )  # fmt: skip


def judge(loaded: Loaded) -> list[Problem]:
    problems = []
    names: set[str] = set()
    for position, each in enumerate(loaded.root.auth.jwt):
        path: Path = ("auth", "jwt", position)
        if each.issuer in names:
            problems.append(_problem(loaded, (*path, "issuer"), "is the issuer of another entry"))
        names.add(each.issuer)
        problems += _keys(loaded, (*path, "public_keys"), each)
        if each.jwks is None and (each.jwks_url is not None or not each.public_keys):
            problems += _address(loaded, (*path, "jwks_url" if each.jwks_url is not None else "issuer"), each)
    return problems


def rules(url: str, *, private: bool) -> addresses.Rules:
    """A port that stands in the file is fine, whatever it is; the host is judged as any other."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None
    return addresses.Rules(addresses.WEB_PORTS if port is None else frozenset({port}), private=private)


def _address(loaded: Loaded, path: Path, section: Jwt) -> Iterator[Problem]:
    url = section.jwks_url or section.issuer
    judged = rules(url, private=section.allow_private)
    found = addresses.place(url, judged)
    if found is None:
        yield _problem(loaded, path, "expected an address: https:// or http://, a host, no user or password")
    elif addresses.is_address(found.host) and not addresses.reachable(found.host, judged):
        yield _problem(loaded, path, "leads into a network of one's own", "`allow_private: true` allows loopback and private ones")


def _keys(loaded: Loaded, path: Path, section: Jwt) -> Iterator[Problem]:
    kids: set[str] = set()
    count = 0
    for position, each in enumerate(section.public_keys):
        here = (*path, position)
        try:
            found = pems.read(each.pem)
        except pems.PemError as error:
            yield _problem(loaded, here, str(error))
            continue
        count += len(found) if each.kid is None else 0
        if each.kid is not None and len(found) > 1:
            yield _problem(loaded, here, f"expected one key where there is a `kid`, found {len(found)}")
        if each.kid is not None and each.kid in kids:
            yield _problem(loaded, (*here, "kid"), "is the id of another key")
        kids.update([each.kid] if each.kid is not None else [])
        for key in found:
            if not fits(key, section.algorithms):
                kind = key.get("crv") or key["kty"]
                yield _problem(loaded, here, f"none of `algorithms` ({', '.join(section.algorithms)}) is for a key of its kind, {kind}")
    if count > MOST_NAMELESS:
        yield _problem(loaded, path, f"expected at most {MOST_NAMELESS} keys without a `kid`, found {count}")


def _pinned(keys: tuple[PublicKey, ...]) -> str:
    """A JWK set, "" where there are none."""
    made = [key | ({"kid": each.kid} if each.kid is not None else {}) for each in keys for key in pems.read(each.pem)]
    return msgspec.json.encode({"keys": made}).decode() if made else ""


def _problem(loaded: Loaded, path: Path, message: str, hint: str = "") -> Problem:
    return Problem(place(path, loaded.where), dotted(path), message, hint)
