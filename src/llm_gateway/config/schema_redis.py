"""The section of config.yaml about Redis, and the terms that it comes to.

Law: shape only, as `schema.py`; URLs are read by `stores/redis/terms.py`, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec.structs import replace
from pydantic import Field, SecretStr, field_validator

from llm_gateway.config.values import Section
from llm_gateway.stores.redis.terms import Login, Terms, Tls, parse

SCHEMES = r"^((redis|valkey)s?(\+(sentinel|cluster))?|unix)://"
FILES = ("ca", "cert", "key")


class RedisTls(Section):
    ca: str | None = Field(default=None, description="Trust this CA file instead of the system's.")
    cert: str | None = Field(default=None, description="Client certificate (mTLS), a PEM file.")
    key: str | None = Field(default=None, description="Key of the client certificate, a PEM file.")
    verify: bool = Field(default=True, description="Check the server's certificate.")
    server_name: str | None = Field(default=None, description="Name expected in the certificate, if not the host.")


class Sentinel(Section):
    username: str = Field(default="", description="ACL user at the sentinels, if they have any.")
    password: SecretStr | None = Field(default=None, description="What sentinels want to be told.")


class Redis(Section):
    url: str | None = Field(
        default=None,
        pattern=SCHEMES,
        description="redis://[user:password@]host:port/db (REDIS_URL), rediss://, unix:///path, redis+sentinel://host,host2/master, "
        "redis+cluster://host,host2. Workers and replicas count limits and budgets there, and tell each other what they find out.",
    )
    username: str | None = Field(default=None, description="ACL user, instead of the URL's.")
    password: SecretStr | None = Field(default=None, description="Its password, instead of the URL's; often `file:/path`.")
    cluster: bool | None = Field(default=None, description="Whether it is a cluster; unset, that is found out.")
    timeout_ms: Annotated[int, Field(ge=5, le=10_000)] = Field(
        default=50, description="Milliseconds of one operation; then requests are judged without Redis."
    )
    tls: RedisTls | None = Field(default=None, description="How TLS is checked; with redis:// it turns TLS on.")
    sentinel: Sentinel = Field(default=Sentinel(), description="How to get in at sentinels.")

    @field_validator("url")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            parse(value)
        return value


def terms(section: Redis) -> Terms | None:
    """What workers and operator go by; None without a Redis."""
    if section.url is None:
        return None
    said = parse(section.url)
    login = Login(
        section.username if section.username is not None else said.login.username,
        section.password.get_secret_value() if section.password is not None else said.login.password,
    )
    tls = said.tls
    if section.tls is not None:
        files = {name: str(Path(file).absolute()) for name in FILES if (file := getattr(section.tls, name)) is not None}
        tls = Tls(**files, verify=section.tls.verify, server_name=section.tls.server_name)
    return replace(
        said,
        login=login,
        tls=tls,
        sentinel=Login(section.sentinel.username, section.sentinel.password.get_secret_value() if section.sentinel.password else ""),
        cluster=section.cluster if section.cluster is not None else said.cluster,
        timeout=section.timeout_ms / 1000,
    )


def judge(section: Redis) -> Iterator[tuple[tuple[str, ...], str]]:
    """What does not go together: an option, and what is wrong with it."""
    made = terms(section)
    if made is None:
        return
    if made.cluster and (made.db or made.master):
        yield ("redis", "cluster"), "a cluster has neither sentinels nor databases"
    if made.tls is not None and not made.nodes[0][1]:
        yield ("redis", "tls"), "a Unix socket has no TLS"
    if section.tls is not None:
        if (section.tls.cert is None) is not (section.tls.key is None):
            yield ("redis", "tls"), "`cert` and `key` go together"
        for name in FILES:
            file = getattr(section.tls, name)
            if file is not None and not Path(file).is_file():
                yield ("redis", "tls", name), f"there is no file {file}"
    if made.login.username and not made.login.password:
        yield ("redis", "username"), "needs a password beside it"
