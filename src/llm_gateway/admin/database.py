"""The operator's connection to its database, and the one place that brings its tables up to date.

Law: nothing is connected or made before somebody needs it; whoever does calls `ready` first, and again where that fails. What brings
tables up to date takes half a second to import, and is only where they are not. A file that was taken away meanwhile is brought back (stores/sql/files.py).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.admin.notices import Notices
from llm_gateway.core.happenings import Kind
from llm_gateway.stores.sql.engine import connect, reading
from llm_gateway.stores.sql.files import File, LostError, path_of, reopen
from llm_gateway.stores.sql.tables import REVISION

if TYPE_CHECKING:
    from llm_gateway.stores.sql.migrate import Schema


def load_upgrade() -> Callable[[AsyncEngine], Awaitable[Schema]]:
    from llm_gateway.stores.sql.migrate import upgrade  # noqa: PLC0415

    return upgrade


class Database:
    """url: as config/state.py resolves it; tell: events. `reopened`: how often its file was another all of a sudden."""

    def __init__(self, url: str, notices: Notices, tell: Callable[[Kind, dict[str, object]], None]) -> None:
        self.engine = connect(url)
        self._notices = notices
        self._tell = tell
        self.reopened = 0
        self._upgrading = asyncio.Lock()
        self._upgraded = False
        self._file: File | None = None

    async def ready(self) -> None:
        """Returns once its tables are there. Raises SQLAlchemy's errors while it is away."""
        if self._upgraded and not self._gone():
            return
        async with self._upgrading:
            if self._upgraded and self._file is not None and self._file.gone():
                await self._reopen(self._file)
            if await self._current():
                self._settle()
                return
            upgrade = await asyncio.to_thread(load_upgrade)
            found = await upgrade(self.engine)
            self._settle()
        if found.pending:
            tell = self._tell if found.present else self._made
            tell("database_migrated", {"from": found.present, "to": found.newest, "kind": self.engine.dialect.name})
        if found.newer:
            self._notices.say("warn", "database is newer than this gateway", present=found.present, known=found.newest)

    def _settle(self) -> None:
        self._upgraded = True
        path = path_of(self.engine)
        self._file = File.of(path) if path is not None else None

    def _gone(self) -> bool:
        return self._file is not None and self._file.gone()

    async def _reopen(self, file: File) -> None:
        """Raises LostError, once, where nothing is left of it; a new one is made then."""
        self.reopened += 1
        try:
            back = await reopen(self.engine, file)
        except LostError:
            self._upgraded = False
            await self.engine.dispose()
            raise
        except sqlite3.Error as error:
            raise OSError(f"{file.path}: {error}") from error
        self._upgraded = False
        what = "was taken away, and brought back from what is open" if back else "is another all of a sudden, which is read now"
        self._notices.say("error", f"database file {what}", file=str(file.path))
        self._tell("database_away", {"error": f"{file.path} {what}", "rows": 0, "seconds": 0.0, "retry_seconds": 0.0})
        self._tell("database_back", {"failures": 0})

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
