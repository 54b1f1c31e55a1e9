"""Brings a database to the tables of this version. What a newer gateway has already done to it is left alone.

Law: one at a time in the world (PostgreSQL: an advisory lock; SQLite: its write lock), all of it or nothing, and nothing is ever dropped.
A database that is newer than this gateway is fine, since versions only add (tables.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from msgspec import Struct
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import reading, writing
from llm_gateway.stores.sql.tables import METADATA

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x6C6C6D67  # of PostgreSQL's advisory locks: "llmg"
VERSION = "schema_version"


class Schema(Struct, frozen=True):
    """`present`: the database's revision, "" if it is empty. `newest`: the one this gateway knows. `pending`: what is to be done."""

    present: str
    newest: str
    pending: tuple[str, ...] = ()

    @property
    def newer(self) -> bool:
        """Another gateway, newer than this one, has been here."""
        return bool(self.present) and not self.pending and self.present != self.newest


async def status(engine: AsyncEngine, folder: Path = FOLDER) -> Schema:
    async with reading(engine) as connection:
        return await connection.run_sync(_status, _scripts(folder))


async def upgrade(engine: AsyncEngine, folder: Path = FOLDER) -> Schema:
    """Returns what was found, so `pending` is what was done. Waits for whoever is at it."""
    scripts = _scripts(folder)
    async with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        found = await connection.run_sync(_status, scripts)
        if found.pending:
            await connection.run_sync(_upgrade, scripts)
        return found


def _scripts(folder: Path) -> ScriptDirectory:
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])


def _status(connection: Connection, scripts: ScriptDirectory) -> Schema:
    newest = scripts.get_current_head() or ""
    present = ""
    if inspect(connection).has_table(VERSION):
        present = MigrationContext.configure(connection, opts={"version_table": VERSION}).get_current_revision() or ""
    try:
        pending = tuple(reversed([each.revision for each in scripts.iterate_revisions("head", present or "base")]))
    except (CommandError, ResolutionError):  # a revision that only a newer gateway knows
        pending = ()
    return Schema(present, newest, pending)


def _upgrade(connection: Connection, scripts: ScriptDirectory) -> None:
    def steps(present: Any, _context: MigrationContext) -> list[MigrationStep]:
        found = scripts.iterate_revisions("head", present or "base", implicit_base=True)
        return [MigrationStep.upgrade_from_script(scripts.revision_map, each) for each in reversed(list(found))]

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True, version_table=VERSION)
        environment.run_migrations()
