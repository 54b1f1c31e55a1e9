"""What Alembic does for us: which migrations lie between a database and this gateway, and doing them.

Law: within a connection's transaction, which its caller ends. No `env.py`: nothing of ours runs when a file is read.
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
from sqlalchemy import Connection

from llm_gateway.stores.sql.tables import METADATA, VERSION


def between(present: str, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The newest revision in `folder`, and those that are missing, the oldest first; none where only a newer gateway knows `present`."""
    scripts = _scripts(folder)
    try:
        pending = tuple(reversed([each.revision for each in scripts.iterate_revisions("head", present or "base")]))
    except (CommandError, ResolutionError):
        pending = ()
    return scripts.get_current_head() or "", pending


def upgrade(connection: Connection, folder: Path) -> None:
    scripts = _scripts(folder)

    def steps(present: Any, _context: MigrationContext) -> list[MigrationStep]:
        found = scripts.iterate_revisions("head", present or "base", implicit_base=True)
        return [MigrationStep.upgrade_from_script(scripts.revision_map, each) for each in reversed(list(found))]

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True, version_table=VERSION)
        environment.run_migrations()


def _scripts(folder: Path) -> ScriptDirectory:
    return ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])
