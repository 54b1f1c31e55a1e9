"""Both databases, empty, for whatever is said of either; and one that a newer gateway has been at."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade
from stores.sql.newer import newer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gateway.db"
    return request.getfixturevalue("postgres").database()


@pytest.fixture(params=["sqlite", "postgresql", "newer"])
async def engine(request: pytest.FixtureRequest, tmp_path) -> AsyncIterator[AsyncEngine]:
    """With its tables."""
    postgres = request.param == "postgresql"
    made = connect(request.getfixturevalue("postgres").database() if postgres else f"sqlite:///{tmp_path}/gateway.db")
    await upgrade(made)
    if request.param == "newer":
        await upgrade(made, newer(tmp_path / "newer"))
    yield made
    await made.dispose()
