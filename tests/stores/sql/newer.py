"""The migrations of a gateway that is newer than this one."""

from __future__ import annotations

from pathlib import Path

from llm_gateway.stores.sql import tables
from llm_gateway.stores.sql.migrate import FOLDER

LATER = """
from alembic import op
from sqlalchemy import Column, Text
revision, down_revision = "later", {newest!r}
def upgrade():
    for table in {names!r}:
        op.add_column(table, Column("news", Text, nullable=False, server_default="x"))
    op.create_table("novelty", Column("id", Text, primary_key=True))
"""


def newer(folder: Path) -> Path:
    """Every table has one more column, and there is one more table."""
    versions = folder / "versions"
    versions.mkdir(parents=True)
    for each in (FOLDER / "versions").glob("r*.py"):
        (versions / each.name).write_text(each.read_text())
    names = [each.name for each in tables.METADATA.sorted_tables]
    (versions / "later.py").write_text(LATER.format(newest=tables.REVISION, names=names))
    return folder
