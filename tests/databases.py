"""Databases with this version's tables in them: migrated once, copied for each test. A migration takes as long as ten of the tests.

Tests of migrations, and of what an operator does with an empty database, begin with one (tests/stores/sql/test_migrate.py, tests/admin/test_books.py).
"""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import FOLDER, upgrade
from postgres import Postgres


class Migrated:
    """folder: where the originals are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals: dict[object, str] = {}

    def sqlite(self, folder: Path, *later: Path) -> str:
        """The URL of a new one in that folder. later: folders of migrations that come behind ours."""
        original = self._folder / f"{len(later)}.db"
        if not original.exists():
            _apart(_upgrade(f"sqlite:///{original}", *later))
        shutil.copy(original, folder / "gateway.db")
        return f"sqlite:///{folder}/gateway.db"

    def postgres(self, server: Postgres) -> str:
        """The URL of a new one in that server."""
        if server not in self._originals:
            url = server.database()
            _apart(_upgrade(url))
            self._originals[server] = url.rpartition("/")[2]
        return server.database(self._originals[server])


async def _upgrade(url: str, *later: Path) -> None:
    engine = connect(url)
    for folder in (FOLDER, *later):
        await upgrade(engine, folder)
    await engine.dispose()


def _apart(work: Coroutine[Any, Any, None]) -> None:
    """On a loop of its own, whether or not the test's is running."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001  told below
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
