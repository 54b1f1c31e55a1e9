"""Own keys at providers of tenants that config.yaml defines."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Double, Text, text

revision = "003"
down_revision = "002"

NIL = text("0")


def upgrade() -> None:
    op.create_table(
        "tenant_secrets",
        Column("tenant", Text, primary_key=True, nullable=False),
        Column("secrets", Text, nullable=False, server_default=text("'{}'")),
        Column("created", Double, nullable=False, server_default=NIL),
        Column("removed", Double),
        Column("changed", BigInteger, nullable=False, server_default=NIL),
    )
    op.create_index("ix_tenant_secrets_changed", "tenant_secrets", ["changed"])
