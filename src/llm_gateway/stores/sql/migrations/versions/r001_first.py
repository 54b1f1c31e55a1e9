"""Who there is, what was used, what was spent: the first tables (stores/sql/tables.py says what they mean)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, LargeBinary, String, Text, text

revision = "001"
down_revision = None

NONE, NO, NIL = text("''"), text("false"), text("0")
DIMENSIONS = ("tenant", "project", "user", "key_id", "key", "model", "provider", "upstream_model", "tags")
SUMS = (
    "requests", "failed", "cached", "absorbed", "unpriced", "estimated", "input", "output", "cache_read", "cache_write", "reasoning",
    "audio_input", "audio_output", "image_input", "image_output", "searches", "cost", "saved", "bytes_in", "bytes_out",
)  # fmt: skip


def upgrade() -> None:
    _directory()
    _keys()
    _usage()
    _sums("usage_hourly")
    _sums("usage_daily")
    _loading()


def _name(name: str) -> Column[str]:
    return Column(name, Text, primary_key=True, nullable=False)


def _words(*names: str) -> list[Column[str]]:
    return [Column(name, Text, nullable=False, server_default=NONE) for name in names]


def _counts(*names: str) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default=NIL) for name in names]


def _times(*names: str) -> list[Column[float]]:
    return [Column(name, Double, nullable=False, server_default=NIL) for name in names]


def _flags(*names: str) -> list[Column[bool]]:
    return [Column(name, Boolean, nullable=False, server_default=NO) for name in names]


def _text(name: str, default: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default=text(f"'{default}'"))


def _directory() -> None:
    table = op.create_table("revision", Column("id", Integer, primary_key=True, autoincrement=False), *_counts("serial"))
    op.bulk_insert(table, [{"id": 1, "serial": 0}])
    own: tuple[Column[str], ...] = (Column("each_user", Text), Column("each_key", Text), _text("secrets", "{}"))
    for name, columns in (("tenants", own), ("projects", (_name("tenant"),)), ("users", (_name("tenant"),))):
        life = (*_times("created"), Column("removed", Double), *_counts("changed"))
        op.create_table(name, _name("name"), *columns, _text("grant", "{}"), *_flags("disabled"), *life)
        op.create_index(f"ix_{name}_changed", name, ["changed"])


def _keys() -> None:
    op.create_table(
        "keys",
        _name("id"),
        Column("digest", LargeBinary, unique=True),
        Column("aws", String(128), unique=True),
        *_words("name", "tenant", "project", "user", "created_by"),
        Column("grant", Text),
        *_times("expires", "created"),
        _text("ips", "[]"),
        _text("scopes", '["inference"]'),
        Column("successor", Text),
        *_flags("disabled"),
        Column("removed", Double),
        *_counts("changed"),
    )
    op.create_index("ix_keys_changed", "keys", ["changed"])
    op.create_index("keys_tenant", "keys", ["tenant", "name"])


def _usage() -> None:
    op.create_table(
        "usage",
        _name("id"),
        Column("at", BigInteger, nullable=False),
        *_words("parent", "request_id", "tenant", "project", "user", "key_id", "key", "session", "tags", "peer", "method", "route"),
        Column("status", Integer, nullable=False, server_default=NIL),
        *_words("outcome", "error", "finish", "model", "provider", "upstream_model", "upstream_key", "upstream_id", "tier", "prices"),
        *_times("ms", "upstream_ms", "first_token_ms"),
        *_counts("bytes_in", "bytes_out", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning", "audio_input"),
        *_counts("audio_output", "image_input", "image_output", "accepted_prediction", "rejected_prediction", "searches"),
        Column("cost", BigInteger),
        Column("saved", BigInteger),
        *_flags("stream", "estimated", "cached"),
        Column("attempts", Integer, nullable=False, server_default=NIL),
        Column("fallbacks", Integer, nullable=False, server_default=NIL),
    )
    op.create_index("usage_at", "usage", ["at", "id"])
    op.create_index("usage_tenant_at", "usage", ["tenant", "at"])


def _sums(name: str) -> None:
    op.create_table(
        name,
        Column("start", BigInteger, primary_key=True, autoincrement=False),
        Column("place", LargeBinary, primary_key=True),
        *_words(*DIMENSIONS),
        *_counts(*SUMS),
        *_times("ms"),
    )
    op.create_index(f"{name}_tenant", name, ["tenant", "start"])


def _loading() -> None:
    op.create_table("usage_tags", _name("tags"), _name("tag"), *_counts("seen"))
    op.create_index("usage_tags_tag", "usage_tags", ["tag"])
    op.create_table("journal_files", _name("replica"), _name("name"), *_counts("offset"), *_times("loaded"))
    where = Column("offset", BigInteger, primary_key=True, autoincrement=False)
    line = Column("line", LargeBinary, nullable=False)
    op.create_table("journal_refused", _name("replica"), _name("name"), where, line, *_words("reason"), *_times("at"))
    op.create_table("spend", _name("holder"), _name("period"), *_words("window"), *_counts("amount", "changed"))
    op.create_index("ix_spend_changed", "spend", ["changed"])
