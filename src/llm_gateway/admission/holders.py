"""From a key to its principal: whose limits its requests count against, and all that they allow together.

Law: records in, values out. What the configuration says of a holder wins over what was made at run time; its own keys at providers a tenant of the
configuration has from there all the same. Where several holders restrict
models, all must allow one; of regions and output caps the narrowest holds. A tenant, project or user that nobody wrote down is one without
limits of its own, but for those of everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Principal
from llm_gateway.core.tenancy import (
    Grant,
    Holder,
    Key,
    Project,
    Record,
    Tenant,
    User,
    key_id,
    project_id,
    tenant_id,
    user_id,
)

Find = Callable[[str], Record | None]
Entrusted = Callable[[str], Mapping[str, str]]
NOBODY_ELSE = frozenset({"\0"})  # models that no request names: what two disjoint lists have in common


class Everybody(Struct, frozen=True):
    """Of those who have no grant of their own."""

    tenant: Grant = Grant()
    user: Grant = Grant()
    key: Grant = Grant()


class Holders:
    """`written`: the configuration's records, by holder's id; `find`: those made at run time. `entrusted`: own keys at providers of a tenant
    that is among the written."""

    def __init__(
        self, written: Mapping[str, Record], everybody: Everybody, find: Find | None = None, entrusted: Entrusted | None = None
    ) -> None:
        self._written = written
        self._everybody = everybody
        self._find = find
        self._entrusted = entrusted

    def record(self, holder: str) -> Record | None:
        written = self._written.get(holder)
        return written if written is not None or self._find is None else self._find(holder)

    def principal(self, key: Key) -> Principal:
        """Raises Fault FORBIDDEN where the key, or whoever it belongs to, was disabled."""
        if called := self.barred(key):
            raise Fault(Kind.FORBIDDEN, f"This {called} is disabled. Ask the gateway's operator.", code=f"{called}_disabled")
        tenant = self.record(tenant_id(key.tenant))
        project = self.record(project_id(key.tenant, key.project)) if key.project else None
        user = self.record(user_id(key.tenant, key.user)) if key.user else None
        of_tenant = tenant if isinstance(tenant, Tenant) else Tenant(key.tenant, self._everybody.tenant)
        own = _first(key.grant, of_tenant.each_key, self._everybody.key)
        holders = [Holder(key_id(key.id), own)] if key.id else []  # a token is no key: who it names is limited
        if key.user:
            named = user.grant if isinstance(user, User) and user.grant != Grant() else None
            holders.append(Holder(user_id(key.tenant, key.user), _first(named, of_tenant.each_user, self._everybody.user)))
        if isinstance(project, Project):
            holders.append(Holder(project_id(key.tenant, key.project), project.grant))
        holders.append(Holder(tenant_id(key.tenant), of_tenant.grant))
        return principal(key, tuple(holders), tuple(sorted(self._secrets(of_tenant).items())))

    def _secrets(self, tenant: Tenant) -> Mapping[str, str]:
        if self._entrusted is not None and tenant_id(tenant.name) in self._written:
            return self._entrusted(tenant.name)
        return tenant.secrets

    def barred(self, key: Key) -> str:
        """Which of them is disabled: key, user, project or tenant; "" none."""
        whose = (user_id(key.tenant, key.user), project_id(key.tenant, key.project), tenant_id(key.tenant))
        records = zip(("key", "user", "project", "tenant"), (key, *map(self.record, whose)), strict=True)
        return next((called for called, each in records if each is not None and each.disabled), "")


def principal(key: Key, holders: tuple[Holder, ...], secrets: tuple[tuple[str, str], ...] = ()) -> Principal:
    grants = [each.grant for each in holders]
    caps = [each.max_output for each in grants if each.max_output is not None]
    return Principal(
        key.name, key.tenant, _common(each.models for each in grants), bool(key.aws), key.id, key.project, key.user,
        _common(each.regions for each in grants), min(caps) if caps else None, key.expires, key.ips, key.scopes,
        tuple(each for each in holders if _counts(each.grant)), secrets,
    )  # fmt: skip


def _first(*grants: Grant | None) -> Grant:
    return next(each for each in grants if each is not None)


def _counts(grant: Grant) -> bool:
    """Whether anything of it has to be counted."""
    return bool(grant.limits != Grant().limits or grant.by_model or grant.budgets)


def _common(lists: Iterable[tuple[str, ...]]) -> frozenset[str]:
    said = [frozenset(each) for each in lists if each]
    return (reduce(frozenset.__and__, said) or NOBODY_ELSE) if said else frozenset()
