"""Both databases, empty, for whatever is said of either; and one that a newer gateway has been at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from databases import Migrated
from llm_gateway.stores.sql.engine import connect
from stores.sql.newer import newer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gateway.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture(params=["sqlite", "postgresql", "newer"])
async def engine(request: pytest.FixtureRequest, tmp_path, migrated: Migrated) -> AsyncIterator[AsyncEngine]:
    """With its tables."""
    if request.param == "postgresql":
        made = connect(migrated.postgres(request.getfixturevalue("postgres")))
    else:
        made = connect(migrated.sqlite(tmp_path, *([newer(tmp_path / "newer")] if request.param == "newer" else [])))
    yield made
    await made.dispose()
