"""Who there is and what they may: the values that configuration, SQL, key table, Redis and admission agree on (ADR 009).

Law: values and names only. Money is in nano-USD, windows are those of the UTC calendar.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from msgspec import Struct

Period = Literal["hour", "day", "week", "month", "total"]
Scope = Literal["inference", "read", "admin"]
Measure = Literal["requests", "tokens", "day", "concurrent", "budget"]

INFERENCE: tuple[Scope, ...] = ("inference",)


class Limits(Struct, frozen=True, omit_defaults=True, gc=False):
    """None: any number. `requests`, `tokens`: in a minute; `day`: requests in a UTC day; `concurrent`: at once."""

    requests: int | None = None
    tokens: int | None = None
    day: int | None = None
    concurrent: int | None = None


class Budget(Struct, frozen=True, omit_defaults=True, gc=False):
    """`amount`: nano-USD in one `period`. Not `hard`: nothing is refused. `alerts`: shares of it that somebody wants to be told of."""

    amount: int
    period: Period = "month"
    hard: bool = True
    alerts: tuple[float, ...] = (0.8, 1.0)


class Grant(Struct, frozen=True, omit_defaults=True):
    """What one holder may use. `models`, `regions` empty: all. `by_model`: limits by model as clients name it, beside `limits`."""

    limits: Limits = Limits()
    by_model: dict[str, Limits] = {}
    budgets: tuple[Budget, ...] = ()
    models: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    max_output: int | None = None


class Tenant(Struct, frozen=True, omit_defaults=True, tag="tenant"):
    """`each_user`, `each_key`: of those that have no grant of their own. `secrets`: own keys at providers, by provider."""

    name: str
    grant: Grant = Grant()
    each_user: Grant | None = None
    each_key: Grant | None = None
    disabled: bool = False
    secrets: dict[str, str] = {}


class Project(Struct, frozen=True, omit_defaults=True, tag="project"):
    tenant: str
    name: str
    grant: Grant = Grant()
    disabled: bool = False


class User(Struct, frozen=True, omit_defaults=True, tag="user"):
    tenant: str
    name: str
    grant: Grant = Grant()
    disabled: bool = False


class Key(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="key"):
    """A client's key. `id`: of its own for ever, in gauges and usage rows; `digest`: HMAC-SHA-256(secret, whole key), 32 bytes; or, of one
    that signs, `aws`, its access key id. `expires`: Unix seconds, 0 never. `ips`: networks it may come from, any if empty."""

    id: str
    name: str
    digest: bytes = b""
    aws: str = ""
    tenant: str = "default"
    project: str = ""
    user: str = ""
    grant: Grant | None = None
    expires: float = 0.0
    ips: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] = INFERENCE
    disabled: bool = False


class Secrets(Struct, frozen=True, omit_defaults=True, tag="secrets"):
    """Own keys at providers, by provider, sealed, of a tenant that config.yaml defines: such a one has no record of its own to hold them."""

    tenant: str
    secrets: dict[str, str] = {}


Record = Tenant | Project | User | Key
Entry = Record | Secrets  # all that is made at run time


class Holder(Struct, frozen=True, gc=False):
    """Somebody who is limited: `id` is `tenant:acme`, `project:acme/search`, `user:acme/bob` or `key:<id>`."""

    id: str
    grant: Grant


class Claim(Struct, frozen=True, gc=False):
    """One limit that a request counts against. `gauge`: the holder's id, with ` model` behind it where the limit is by model.
    `limit`: in a minute, in a day, at once, or nano-USD in a `period`."""

    gauge: str
    measure: Measure
    limit: int
    period: Period = "total"
    hard: bool = True
    alerts: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """Of the gauge in stores and tables: `key:1 tokens`, `tenant:acme budget month`."""
        return f"{self.gauge} {self.measure}" if self.measure != "budget" else f"{self.gauge} budget {self.period}"


def tenant_id(tenant: str) -> str:
    return f"tenant:{tenant}"


def project_id(tenant: str, project: str) -> str:
    return f"project:{tenant}/{project}"


def user_id(tenant: str, user: str) -> str:
    return f"user:{tenant}/{user}"


def key_id(key: str) -> str:
    return f"key:{key}"


def secrets_id(tenant: str) -> str:
    return f"secrets:{tenant}"


def place(name: str) -> bytes:
    """Where a record or an amount stands in a table, 32 bytes: of a holder's id, a signer (`aws:AKGW...`) or a claim's name. Keys
    themselves stand at their digest."""
    return sha256(name.encode()).digest()


def signer(access_key: str) -> str:
    """The name of one who signs, given the AWS access key id."""
    return f"aws:{access_key}"


def position(record: Entry) -> bytes:
    """Where a record stands."""
    match record:
        case Tenant():
            return place(tenant_id(record.name))
        case Project():
            return place(project_id(record.tenant, record.name))
        case User():
            return place(user_id(record.tenant, record.name))
        case Secrets():
            return place(secrets_id(record.tenant))
        case Key():
            return record.digest or place(signer(record.aws))
