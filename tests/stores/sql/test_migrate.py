"""Tables come into being once, under a lock, and only ever grow."""

from __future__ import annotations

import ast
import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import insert, select, text

from llm_gateway.stores.sql import tables
from llm_gateway.stores.sql.engine import connect, reading, writing
from llm_gateway.stores.sql.migrate import FOLDER, status, upgrade
from llm_gateway.stores.sql.steps import between
from stores.sql.newer import newer

GROWS = {"create_table", "create_index", "add_column", "bulk_insert"}


async def test_the_tables_are_those_this_version_knows(url):
    engine = connect(url)
    assert (await status(engine)).present == ""
    await upgrade(engine)
    found = await status(engine)
    assert found.present == found.newest == between("", FOLDER)[0] == tables.REVISION
    assert not found.pending
    async with reading(engine) as connection:
        options = {"version_table": "schema_version", "compare_type": True, "compare_server_default": True}
        changes = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync, opts=options), tables.METADATA))
        assert changes == []
        assert (await connection.execute(select(tables.revision.c.serial))).scalars().all() == [0]
    await engine.dispose()


async def test_of_many_that_start_at_once_one_migrates(url):
    engines = [connect(url) for _ in range(4)]
    found = await asyncio.gather(*(upgrade(engine) for engine in engines))
    assert sorted(len(each.pending) for each in found) == [0, 0, 0, len(list((FOLDER / "versions").glob("r*.py")))]
    for engine in engines:
        await engine.dispose()


async def test_a_migration_that_fails_leaves_nothing_behind(url, tmp_path):
    engine = connect(url)
    await upgrade(engine)
    newest = (await status(engine)).newest
    folder = newer(tmp_path / "newer")
    broken = folder / "versions" / "later.py"
    broken.write_text(broken.read_text() + "    raise ValueError\n")
    with pytest.raises(ValueError):
        await upgrade(engine, folder)
    assert (await status(engine)).present == newest
    async with writing(engine) as connection:
        await connection.execute(text("CREATE TABLE novelty (id TEXT)"))  # it is not there
    await engine.dispose()


async def test_an_older_gateway_goes_on_with_a_newer_database(url, tmp_path):
    engine = connect(url)
    await upgrade(engine)
    await upgrade(engine, newer(tmp_path / "newer"))
    found = await upgrade(engine)
    assert (found.present, found.pending, found.newer) == ("later", (), True)
    async with writing(engine) as connection:
        await connection.execute(insert(tables.tenants).values(name="acme"))
    async with reading(engine) as connection:
        assert (await connection.execute(select(tables.tenants))).mappings().one()["grant"] == "{}"
    await engine.dispose()


@pytest.mark.parametrize("path", sorted((FOLDER / "versions").glob("r*.py")), ids=lambda path: path.name)
def test_migrations_add_and_take_nothing_away(path):
    done = {
        node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "op"
    }
    assert done
    assert done <= GROWS


@pytest.mark.parametrize("path", sorted((FOLDER / "versions").glob("r*.py")), ids=lambda path: path.name)
def test_columns_that_are_added_ask_nothing_of_those_who_do_not_know_them(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "op.add_column":
            column = node.args[1]
            assert isinstance(column, ast.Call)
            said = {word.arg: ast.unparse(word.value) for word in column.keywords}
            assert said.get("nullable") != "False" or "server_default" in said
