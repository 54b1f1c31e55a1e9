"""The operator's connection to its database, and the one place that brings its tables up to date.

Law: nothing is connected or made before somebody needs it; whoever does calls `ready` first, and again where that fails. What brings
tables up to date takes half a second to import, and is only where they are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.admin.notices import Notices
from llm_gateway.core.happenings import Kind
from llm_gateway.stores.sql.engine import connect, reading
from llm_gateway.stores.sql.tables import REVISION

if TYPE_CHECKING:
    from llm_gateway.stores.sql.migrate import Schema


def load_upgrade() -> Callable[[AsyncEngine], Awaitable[Schema]]:
    from llm_gateway.stores.sql.migrate import upgrade  # noqa: PLC0415

    return upgrade


class Database:
    """url: as config/state.py resolves it; tell: events."""

    def __init__(self, url: str, notices: Notices, tell: Callable[[Kind, dict[str, object]], None]) -> None:
        self.engine = connect(url)
        self._notices = notices
        self._tell = tell
        self._upgrading = asyncio.Lock()
        self._upgraded = False

    async def ready(self) -> None:
        """Returns once its tables are there. Raises SQLAlchemy's errors while it is away."""
        if self._upgraded:
            return
        async with self._upgrading:
            if await self._current():
                self._upgraded = True
                return
            upgrade = await asyncio.to_thread(load_upgrade)
            found = await upgrade(self.engine)
            self._upgraded = True
        if found.pending:
            tell = self._tell if found.present else self._made
            tell("database_migrated", {"from": found.present, "to": found.newest, "kind": self.engine.dialect.name})
        if found.newer:
            self._notices.say("warn", "database is newer than this gateway", present=found.present, known=found.newest)

    async def _current(self) -> bool:
        """Whether its tables are just those of this gateway."""
        try:
            async with reading(self.engine) as connection:
                return bool(await connection.scalar(text("SELECT version_num FROM schema_version")) == REVISION)
        except (OperationalError, ProgrammingError):  # there are none, or nobody answers: what comes next will say so
            return False

    def _made(self, _kind: Kind, said: dict[str, object]) -> None:
        """A new one is no event."""
        self._notices.say("info", "database made", **said)

    async def close(self) -> None:
        await self.engine.dispose()
