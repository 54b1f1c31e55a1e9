"""Sections about tenants, keys, limits and budgets -> the values that admission serves by.

Law: pure. The admin API makes grants out of bodies by the same `grant`.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from datetime import datetime
from decimal import ROUND_FLOOR
from typing import TYPE_CHECKING, Literal

from llm_gateway.config import schema_tenancy as said
from llm_gateway.config import snapshot
from llm_gateway.config.problems import Path as OptionPath
from llm_gateway.config.problems import Problem, dotted, place
from llm_gateway.config.state import shared
from llm_gateway.core.tenancy import Budget, Grant, Key, Limits, Project, Tenant, User

if TYPE_CHECKING:
    from llm_gateway.config.load import Loaded
    from llm_gateway.config.material import Material

NANO = 1_000_000_000


def key_digest(secret: bytes, key: str) -> bytes:
    """What is kept of a client's key."""
    return hmac.digest(secret, key.encode(), "sha256")


def grant(section: said.Grant) -> Grant:
    return Grant(
        limits(section.limits),
        {model: limits(each) for model, each in section.limits.models.items()},
        budgets(section.budgets),
        section.models,
        section.regions,
        section.max_output_tokens,
    )


def limits(section: said.Rates) -> Limits:
    return Limits(section.requests_per_minute, section.tokens_per_minute, section.requests_per_day, section.concurrent)


def budgets(section: tuple[said.Budget, ...]) -> tuple[Budget, ...]:
    return tuple(Budget(int((each.usd * NANO).to_integral_value(ROUND_FLOOR)), each.period, each.hard, each.alerts) for each in section)


def ends(expires: datetime | None) -> float:
    """In Unix seconds; 0, which is the epoch, says never."""
    return expires.timestamp() or 1.0 if expires is not None else 0.0


def tenancy(loaded: Loaded, workers: int) -> snapshot.Tenancy:
    root = loaded.root
    shared = root.redis.url is not None
    return snapshot.Tenancy(
        tenants=tuple(
            Tenant(
                name,
                grant(each),
                grant(each.each_user) if each.each_user is not None else None,
                grant(each.each_key) if each.each_key is not None else None,
                not each.enabled,
            )
            for name, each in root.tenants.items()
        ),
        projects=tuple(Project(tenant, name, grant(each)) for tenant, of in root.tenants.items() for name, each in of.projects.items()),
        users=tuple(User(tenant, name, grant(each)) for tenant, of in root.tenants.items() for name, each in of.users.items()),
        each_tenant=_default(root.limits.each_tenant, root.budgets.each_tenant),
        each_user=_default(root.limits.each_user, root.budgets.each_user),
        each_key=_default(root.limits.each_key, root.budgets.each_key),
        least_output=root.budgets.min_output_tokens,
        on_redis_loss=root.budgets.on_redis_loss,
        shares=1 if shared else workers * root.replicas,
        together=workers * root.replicas,
        apart=apart(loaded),
    )


def apart(loaded: Loaded) -> tuple[Literal["limits", "budgets"], ...]:
    """What several workers or replicas would each count for themselves."""
    root = loaded.root
    if (root.workers == 1 and root.replicas == 1 and not shared(root)) or root.redis.url is not None:
        return ()
    return ("budgets",) if root.state == "per_worker" else ("limits", "budgets")


def _default(rates: said.Limits | None, money: tuple[said.Budget, ...]) -> Grant:
    return grant(said.Grant(limits=rates if rates is not None else said.Limits(), budgets=money))


def keys(loaded: Loaded, material: Material) -> tuple[tuple[Key, ...], list[Problem]]:
    made: list[Key] = []
    problems: list[Problem] = []
    names: set[str] = set()
    digests: set[bytes] = set()
    tenants = loaded.root.tenants
    for position, each in enumerate(loaded.root.keys):
        path: OptionPath = ("keys", position)
        plain = each.key.get_secret_value() if each.key is not None else None
        digest = key_digest(material.secret, plain) if plain is not None else bytes.fromhex(each.digest or "")
        identity = digest or (each.aws or "").encode()
        if each.name in names:
            problems.append(_problem(loaded, (*path, "name"), "is the name of another key"))
        if identity in digests:
            problems.append(_problem(loaded, path, "is the same key as another"))
        if each.project is not None and each.project not in getattr(tenants.get(each.tenant), "projects", {}):
            problems.append(_problem(loaded, (*path, "project"), f"the tenant `{each.tenant}` has no project `{each.project}`"))
        names.add(each.name)
        digests.add(identity)
        own = grant(each)
        made.append(
            Key(
                id=each.name, name=each.name, digest=digest, aws=each.aws or "", tenant=each.tenant, project=each.project or "", user=each.user or "",
                grant=own if own != Grant() else None, expires=ends(each.expires),
                ips=each.ips, scopes=each.scopes,
            )
        )  # fmt: skip
    if material.development_key is not None:
        made.append(Key(id="development", name="development", digest=key_digest(material.secret, material.development_key)))
    return tuple(made), problems


def unshareable(loaded: Loaded) -> list[Problem]:
    """Limits that several workers or replicas would each count for themselves: refused, since they would not be limits."""
    kinds = apart(loaded)
    problems = []
    for path, each in _grants(loaded) if kinds else ():
        if each.budgets:
            hint = "set redis.url (REDIS_URL), or run one worker, no replica, and SQLite"
            problems.append(_problem(loaded, _at(path, "budgets"), "would be counted by each worker alone, and overspent", hint))
        if "limits" in kinds and (each.limits != Limits() or each.by_model):
            hint = "set redis.url (REDIS_URL), or `state: per_worker`, which divides it by the number of workers and replicas"
            problems.append(_problem(loaded, _at(path, "limits"), "would be counted by each worker alone", hint))
    return problems


def _at(path: OptionPath, what: str) -> OptionPath:
    """`limits.each_key` holds limits itself."""
    return path if path[0] == what else (*path, what)


def _grants(loaded: Loaded) -> Iterator[tuple[OptionPath, Grant]]:
    """Every place that may hold limits or budgets."""
    root = loaded.root
    for who in ("each_tenant", "each_user", "each_key"):
        rates, money = getattr(root.limits, who), getattr(root.budgets, who)
        if rates is not None:
            yield ("limits", who), _default(rates, ())
        if money:
            yield ("budgets", who), _default(None, money)
    for name, tenant in root.tenants.items():
        yield ("tenants", name), grant(tenant)
        for part, of in (("projects", tenant.projects), ("users", tenant.users)):
            for each, section in of.items():
                yield ("tenants", name, part, each), grant(section)
        for part, one in (("each_user", tenant.each_user), ("each_key", tenant.each_key)):
            if one is not None:
                yield ("tenants", name, part), grant(one)
    for position, key in enumerate(root.keys):
        yield ("keys", position), grant(key)


def _problem(loaded: Loaded, path: OptionPath, message: str, hint: str = "") -> Problem:
    return Problem(place(path, loaded.where), dotted(path), message, hint)
