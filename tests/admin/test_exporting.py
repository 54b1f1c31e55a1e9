"""Files of rows, as their readers read them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from databases import Migrated
from llm_gateway.admin import exporting
from llm_gateway.admin.exporting import FORMATS, export, writer
from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.asking import Question
from llm_gateway.stores.sql.engine import connect
from stores.sql.made import batch, line

ALL = Question(0, 1 << 50)


@pytest.fixture
async def engine(tmp_path, migrated: Migrated) -> AsyncIterator[AsyncEngine]:
    made = connect(migrated.sqlite(tmp_path))
    yield made
    await made.dispose()


async def exported(engine: AsyncEngine, form: str, question: Question = ALL) -> bytes:
    return b"".join([piece async for piece in export(engine, question, writer(form))])


async def test_all_rows_once_in_order_whatever_the_format(engine, monkeypatch):
    from pyarrow import parquet

    monkeypatch.setattr(exporting, "PAGE", 7)
    lines = [line(id=f"{number:02}", ts=f"2026-11-27T01:02:{number:02}.000Z", cost=number) for number in range(20)]
    await booking.book(engine, batch(*lines), 1.0)
    wanted = [f"{number:02}" for number in range(20)]
    assert [row["id"] for row in csv.DictReader(io.StringIO((await exported(engine, "csv")).decode()))] == wanted
    assert [json.loads(each)["id"] for each in (await exported(engine, "jsonl")).splitlines()] == wanted
    table = parquet.read_table(io.BytesIO(await exported(engine, "parquet")))
    assert table["id"].to_pylist() == wanted
    assert sum(table["cost_nano_usd"].to_pylist()) == sum(range(20))


@pytest.mark.parametrize("form", FORMATS)
async def test_nothing_is_a_whole_file_too(engine, form):
    from pyarrow import parquet

    data = await exported(engine, form)
    if form == "parquet":
        assert parquet.read_table(io.BytesIO(data)).num_rows == 0
    else:
        assert data.count(b"\n") == (form == "csv")


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
async def test_what_a_spreadsheet_would_compute_is_text(engine, value):
    await booking.book(engine, batch(line(model=value, key=value, session="plain", error=f"a{value}", outcome="x")), 1.0)
    (row,) = csv.DictReader(io.StringIO((await exported(engine, "csv")).decode(), newline=""))
    assert (row["model"], row["key"], row["session"], row["error"]) == ("'" + value, "'" + value, "plain", f"a{value}")
    assert json.loads(await exported(engine, "jsonl"))["model"] == value


async def test_what_a_csv_cell_may_hold(engine):
    said = 'a, "b"\nc'
    await booking.book(engine, batch(line(error=said, outcome="x", tags=["a", "b"], stream=True)), 1.0)
    (row,) = csv.DictReader(io.StringIO((await exported(engine, "csv")).decode(), newline=""))
    assert (row["error"], row["tags"], row["stream"], row["ts"], row["cost_usd"]) == (said, "a,b", "true", "2026-11-27T01:02:03.004Z", "1e-06")


async def test_parquet_has_types(engine):
    from pyarrow import parquet

    await booking.book(engine, batch(line(tags=["a", "b"]), line(id="b", cost=None)), 1.0)
    table = parquet.read_table(io.BytesIO(await exported(engine, "parquet")))
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["ts"], types["tags"], types["cost_nano_usd"], types["stream"], types["ms"]) == (
        "timestamp[ms, tz=UTC]", "list<element: string>", "int64", "bool", "double",
    )  # fmt: skip
    assert table["cost_nano_usd"].to_pylist() == [1000, None]
    assert table["tags"].to_pylist() == [["a", "b"], []]


async def test_only_what_was_asked_for(engine):
    await booking.book(engine, batch(line(id="1"), line(id="2", tenant="blue")), 1.0)
    question = Question(0, 1 << 50, where={"tenant": ("blue",)})
    assert [json.loads(each)["id"] for each in (await exported(engine, "jsonl", question)).splitlines()] == ["2"]
