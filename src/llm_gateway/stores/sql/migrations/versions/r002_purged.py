"""How far what was removed is forgotten, so that whoever was away longer than that reads everything anew."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "002"
down_revision = "001"


def upgrade() -> None:
    op.add_column("revision", Column("purged", BigInteger, nullable=False, server_default=text("0")))
