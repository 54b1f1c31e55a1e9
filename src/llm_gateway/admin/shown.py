"""Tenants, projects, users and keys as the admin API shows them: in the words in which they are said.

Law: pure. What may be changed stands in the names of config/schema_admin.py, so that what was read can be sent back; nothing secret
stands anywhere. `source`: `config` for what config.yaml defines, and this API cannot change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from llm_gateway.config import tenancy
from llm_gateway.config.schema_admin import HolderBody, KeyBody, TenantBody
from llm_gateway.core.tenancy import Grant, Key, Limits, Project, Tenant, User
from llm_gateway.stores.sql.directory import Stored

_RATES = {"requests": "requests_per_minute", "tokens": "tokens_per_minute", "day": "requests_per_day", "concurrent": "concurrent"}


def grant(made: Grant) -> dict[str, Any]:
    """Only what it says."""
    rates: dict[str, Any] = _rates(made.limits)
    if made.by_model:
        rates["models"] = {model: _rates(each) for model, each in made.by_model.items()}
    budgets = [{"usd": each.amount / tenancy.NANO, "period": each.period, "hard": each.hard, "alerts": list(each.alerts)} for each in made.budgets]
    said = {"limits": rates, "budgets": budgets, "models": list(made.models), "regions": list(made.regions), "max_output_tokens": made.max_output}
    return {name: value for name, value in said.items() if value}


def tenant(made: Tenant) -> dict[str, Any]:
    """What may be said of it."""
    each = {"each_user": made.each_user, "each_key": made.each_key}
    shown = {name: grant(value) for name, value in each.items() if value is not None}
    return {"name": made.name, "enabled": not made.disabled, **grant(made.grant), **shown}


def holder(made: Project | User) -> dict[str, Any]:
    return {"name": made.name, "enabled": not made.disabled, **grant(made.grant)}


def key(made: Key) -> dict[str, Any]:
    said = {"project": made.project, "user": made.user, "ips": list(made.ips), "expires": moment(made.expires)}
    shown = {name: value for name, value in said.items() if value}
    own = grant(made.grant) if made.grant is not None else {}
    return {"name": made.name, "tenant": made.tenant, "scopes": list(made.scopes), "enabled": not made.disabled, **shown, **own}


def stored_tenant(stored: Stored | Tenant) -> dict[str, Any]:
    record = stored.record if isinstance(stored, Stored) else stored
    assert isinstance(record, Tenant)  # noqa: S101  the caller asked for those
    return {**tenant(record), "secrets": sorted(record.secrets), **_origin(stored)}


def stored_holder(stored: Stored | Project | User) -> dict[str, Any]:
    record = stored.record if isinstance(stored, Stored) else stored
    assert isinstance(record, Project | User)  # noqa: S101
    return {"tenant": record.tenant, **holder(record), **_origin(stored)}


def stored_key(stored: Stored | Key, now: float) -> dict[str, Any]:
    record = stored.record if isinstance(stored, Stored) else stored
    assert isinstance(record, Key)  # noqa: S101
    over = bool(record.expires) and record.expires <= now
    status = "revoked" if record.disabled else "expired" if over else "active"
    shown = {"id": record.id, **key(record), "status": status, **_origin(stored)}
    if record.aws:
        shown["aws_access_key_id"] = record.aws
    if isinstance(stored, Stored):
        shown |= {"created_by": stored.by, "overlaps": [moment(each) for each in stored.overlaps]}
    return shown


def moment(seconds: float) -> str | None:
    """RFC 3339 in UTC; None for never."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else None


def as_tenant(body: TenantBody, secrets: dict[str, str]) -> Tenant:
    each_user, each_key = (tenancy.grant(each) if each is not None else None for each in (body.each_user, body.each_key))
    return Tenant(body.name, tenancy.grant(body), each_user, each_key, not body.enabled, secrets)


def as_holder(kind: type[Project | User], whose: str, body: HolderBody) -> Project | User:
    return kind(whose, body.name, tenancy.grant(body), not body.enabled)


def as_key(body: KeyBody, key_id: str, *, digest: bytes = b"", aws: str = "") -> Key:
    own = tenancy.grant(body)
    return Key(
        id=key_id, name=body.name, digest=digest, aws=aws, tenant=body.tenant, project=body.project or "", user=body.user or "",
        grant=own if own != Grant() else None, expires=tenancy.ends(body.expires),
        ips=body.ips, scopes=body.scopes, disabled=not body.enabled,
    )  # fmt: skip


def _rates(made: Limits) -> dict[str, int]:
    return {name: value for field, name in _RATES.items() if (value := getattr(made, field)) is not None}


def _origin(stored: object) -> dict[str, Any]:
    return {"source": "api", "created": moment(stored.created)} if isinstance(stored, Stored) else {"source": "config"}
