"""The operator's tables, as this version knows them.

Law: names and types alone. They only grow: a migration adds tables, columns (nullable, or with a default) and indexes, and takes nothing
away, so that a gateway of the version before works on. Statements therefore name the columns they write, and never say `*`.

Who there is: a `changed` column bears the serial (of `revision`) of a record's last change, `removed` when it went (Unix seconds); records
stay for a while (`purging.forget`), so that whoever polls by serial hears of their end too. Values are msgspec's JSON of those in
core/tenancy.py. Money is nano-USD.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA = MetaData()
REVISION = "003"  # the newest of migrations/versions
VERSION = "schema_version"  # the table that says which a database is at
NONE, NOBODY, NO, NIL = text("''"), text("'[]'"), text("false"), text("0")


def _word(name: str, *, primary: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=primary, nullable=False, server_default=None if primary else NONE)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=NIL)


def _life() -> tuple[Column[Any], ...]:
    return (Column("disabled", Boolean, nullable=False, server_default=NO), *_times())


def _times() -> tuple[Column[Any], ...]:
    return (
        Column("created", Double, nullable=False, server_default=NIL),
        Column("removed", Double),
        Column("changed", BigInteger, nullable=False, server_default=NIL, index=True),
    )


def _grant() -> Column[str]:
    return Column("grant", Text, nullable=False, server_default=text("'{}'"))


# One row, id 1. `serial` grows by one with each change of what follows; other replicas look at it once a second. `purged`: the largest
# `changed` of a record that was removed and is no more in its table; who knows less than that has to read everything.
revision = Table(
    "revision",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("serial", BigInteger, nullable=False, server_default=NIL),
    Column("purged", BigInteger, nullable=False, server_default=NIL),
)

# `each_user`, `each_key`: a grant, or none. `secrets`: sealed.
tenants = Table(
    "tenants",
    METADATA,
    _word("name", primary=True),
    _grant(),
    Column("each_user", Text),
    Column("each_key", Text),
    Column("secrets", Text, nullable=False, server_default=text("'{}'")),
    *_life(),
)

# Own keys at providers, sealed, of tenants that config.yaml defines, who have no row in `tenants`, or one that does not count. A tenant that the
# file does not name any more keeps its row here, unused.
secrets = Table(
    "tenant_secrets",
    METADATA,
    _word("tenant", primary=True),
    Column("secrets", Text, nullable=False, server_default=text("'{}'")),
    *_times(),
)

projects = Table("projects", METADATA, _word("tenant", primary=True), _word("name", primary=True), _grant(), *_life())

users = Table("users", METADATA, _word("tenant", primary=True), _word("name", primary=True), _grant(), *_life())

# `removed` is when it was revoked. `digest`: 32 bytes, or `aws`: an access key id. `successor`: id of the key it was rotated to.
keys = Table(
    "keys",
    METADATA,
    _word("id", primary=True),
    _word("name"),
    Column("digest", LargeBinary, unique=True),
    Column("aws", String(128), unique=True),
    _word("tenant"),
    _word("project"),
    _word("user"),
    Column("grant", Text),
    Column("expires", Double, nullable=False, server_default=NIL),
    Column("ips", Text, nullable=False, server_default=NOBODY),
    Column("scopes", Text, nullable=False, server_default=text("'[\"inference\"]'")),
    Column("successor", Text),
    _word("created_by"),
    *_life(),
    Index("keys_tenant", "tenant", "name"),
)

# One row for each request, and one more for each of its attempts that cost money without becoming the reply (`parent`: the request's id).
# `at`: Unix milliseconds, when it came in. `ms`, `upstream_ms`, `first_token_ms`: milliseconds. `cost`, `saved`: nano-USD.
usage = Table(
    "usage",
    METADATA,
    _word("id", primary=True),
    Column("at", BigInteger, nullable=False),
    *map(_word, ("parent", "request_id", "tenant", "project", "user", "key_id", "key", "session", "tags", "peer", "method", "route")),
    Column("status", Integer, nullable=False, server_default=NIL),
    *map(_word, ("outcome", "error", "finish", "model", "provider", "upstream_model", "upstream_key", "upstream_id", "tier", "prices")),
    *(Column(name, Double, nullable=False, server_default=NIL) for name in ("ms", "upstream_ms", "first_token_ms")),
    *map(_count, ("bytes_in", "bytes_out", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning", "audio_input")),
    *map(_count, ("audio_output", "image_input", "image_output", "accepted_prediction", "rejected_prediction", "searches")),
    Column("cost", BigInteger),
    Column("saved", BigInteger),
    *(Column(name, Boolean, nullable=False, server_default=NO) for name in ("stream", "estimated", "cached")),
    Column("attempts", Integer, nullable=False, server_default=NIL),
    Column("fallbacks", Integer, nullable=False, server_default=NIL),
    Index("usage_at", "at", "id"),
    Index("usage_tenant_at", "tenant", "at"),
)

DIMENSIONS = ("tenant", "project", "user", "key_id", "key", "model", "provider", "upstream_model", "tags")
SUMS = (
    "requests", "failed", "cached", "absorbed", "unpriced", "estimated", "input", "output", "cache_read", "cache_write", "reasoning",
    "audio_input", "audio_output", "image_input", "image_output", "searches", "cost", "saved", "bytes_in", "bytes_out",
)  # fmt: skip


def _rollup(name: str) -> Table:
    """Sums of one hour or day of UTC. `start`: its Unix milliseconds; `place`: 16 bytes of a hash of the dimensions."""
    return Table(
        name,
        METADATA,
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        Column("place", LargeBinary, primary_key=True),
        *map(_word, DIMENSIONS),
        *map(_count, SUMS),
        Column("ms", Double, nullable=False, server_default=NIL),
        Index(f"{name}_tenant", "tenant", "start"),
    )


hourly = _rollup("usage_hourly")
daily = _rollup("usage_daily")

# Which tags stand in a set of tags (`a,b`, in order, each once). `seen`: Unix milliseconds of the last day it was met.
tag_sets = Table(
    "usage_tags", METADATA, _word("tags", primary=True), _word("tag", primary=True), _count("seen"), Index("usage_tags_tag", "tag")
)

# How far each journal file of each gateway (`replica`) is loaded, in bytes.
journal_files = Table(
    "journal_files",
    METADATA,
    _word("replica", primary=True),
    _word("name", primary=True),
    Column("offset", BigInteger, nullable=False, server_default=NIL),
    Column("loaded", Double, nullable=False, server_default=NIL),
)

# Lines of the journal that nobody could read or the database would not take, as they were.
journal_refused = Table(
    "journal_refused",
    METADATA,
    _word("replica", primary=True),
    _word("name", primary=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("line", LargeBinary, nullable=False),
    _word("reason"),
    Column("at", Double, nullable=False, server_default=NIL),
)

# `holder`: as core/tenancy.py names it. `window`: the UTC window that `amount` (nano-USD) was spent in.
spend = Table(
    "spend",
    METADATA,
    _word("holder", primary=True),
    _word("period", primary=True),
    _word("window"),
    _count("amount"),
    Column("changed", BigInteger, nullable=False, server_default=NIL, index=True),
)
