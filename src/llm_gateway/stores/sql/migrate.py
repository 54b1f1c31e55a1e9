"""Brings a database to the tables of this version. What a newer gateway has already done to it is left alone.

Law: one at a time in the world (PostgreSQL: an advisory lock; SQLite: its write lock), all of it or nothing, and nothing is ever dropped.
A database that is newer than this gateway is fine, since versions only add (tables.py). Alembic is loaded when there is something to do:
a start that finds all in order does without its 0.1 s.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from msgspec import Struct
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import reading, writing
from llm_gateway.stores.sql.tables import REVISION, VERSION

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x6C6C6D67  # of PostgreSQL's advisory locks: "llmg"


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
        return await connection.run_sync(_status, folder)


async def upgrade(engine: AsyncEngine, folder: Path = FOLDER) -> Schema:
    """Returns what was found, so `pending` is what was done. Waits for whoever is at it."""
    found = await status(engine, folder)
    if not found.pending:
        return found
    async with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        found = await connection.run_sync(_status, folder)
        if found.pending:
            await connection.run_sync(load_steps().upgrade, folder)
        return found


def load_steps() -> ModuleType:
    """Alembic, and what we ask of it."""
    from llm_gateway.stores.sql import steps  # noqa: PLC0415  only where there is something to do

    return steps


def _status(connection: Connection, folder: Path) -> Schema:
    present = ""
    if inspect(connection).has_table(VERSION):
        present = str(connection.execute(text(f"SELECT version_num FROM {VERSION}")).scalar_one_or_none() or "")  # noqa: S608  our own name
    if folder == FOLDER and present == REVISION:
        return Schema(present, REVISION)
    newest, pending = load_steps().between(present, folder)
    return Schema(present, newest, pending)
