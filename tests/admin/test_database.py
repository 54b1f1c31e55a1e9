"""The operator's database has its tables before anybody uses them, and nobody pays for what is up to date."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import pytest
from sqlalchemy.exc import SQLAlchemyError

from llm_gateway.admin.database import Database
from llm_gateway.admin.notices import Notices
from llm_gateway.stores.sql.directory import Register
from llm_gateway.stores.sql.files import LostError
from llm_gateway.stores.sql.migrate import status
from llm_gateway.stores.sql.tables import REVISION


async def test_an_empty_one_gets_its_tables_once(tmp_path) -> None:
    said, told = io.StringIO(), list[str]()
    for times in (1, 1):
        database = Database(f"sqlite:///{tmp_path}/gateway.db", Notices(said, "json", "info"), lambda kind, _: told.append(kind))
        await asyncio.gather(*(database.ready() for _ in range(3)))
        assert await Register(database.engine).serial() == 0
        assert said.getvalue().count("database made") == times
        assert told == [], "a new one is no event"
        assert (await status(database.engine)).newest == REVISION
        await database.close()


async def test_one_that_is_away_is_asked_again(tmp_path) -> None:
    path = tmp_path / "gateway.db"
    path.mkdir()
    database = Database(f"sqlite:///{path}", Notices(io.StringIO(), "json", "info"), lambda _kind, _said: None)
    for _ in range(2):
        with pytest.raises(SQLAlchemyError):
            await database.ready()
    path.rmdir()
    await database.ready()
    await database.close()


async def test_what_nobody_has_open_any_more_is_made_anew_after_an_error(tmp_path) -> None:
    path = tmp_path / "gateway.db"
    database = Database(f"sqlite:///{path}", Notices(io.StringIO(), "json", "info"), lambda _kind, _said: None)
    await database.ready()
    await database.engine.dispose()
    path.unlink()
    with pytest.raises(LostError):
        await database.ready()
    await database.ready()
    assert await Register(database.engine).serial() == 0
    await database.close()


async def test_what_cannot_be_read_in_its_place_is_left_alone(tmp_path) -> None:
    path = tmp_path / "gateway.db"
    database = Database(f"sqlite:///{path}", Notices(io.StringIO(), "json", "info"), lambda _kind, _said: None)
    await database.ready()
    path.unlink()
    path.write_bytes(b"something else" * 1000)
    for _ in range(2):
        with pytest.raises(OSError, match="not a database"):
            await database.ready()
    assert path.read_bytes().startswith(b"something else")
    path.unlink()
    await database.ready()
    await database.close()


def test_an_operator_does_not_import_what_upgrades() -> None:
    program = "import llm_gateway.operator, sys; sys.exit(any(name.partition('.')[0] in ('alembic', 'mako') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
