"""`llm-gateway usage`, where no gateway runs: by its database."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import pytest

from llm_gateway.commands.usage import usd
from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.engine import connect
from llm_gateway.stores.sql.migrate import upgrade
from stores.sql.made import batch, line

NOVEMBER = ("--since", "2026-11-01", "--until", "2026-12-01")
LINES = (
    line(id="1", cost=1_500_000_000, tags=["batch", "eu"]), line(id="2", cost=250_000_000, model="smart", project=None), line(id="3", cost=None),
    line(id="4", tenant="blue", cost=7),
)  # fmt: skip


@pytest.fixture
def used(shell, tmp_path):
    async def book() -> None:
        (tmp_path / "data").mkdir(exist_ok=True)
        engine = connect(f"sqlite:///{tmp_path}/data/gateway.db")
        await upgrade(engine)
        await booking.book(engine, batch(*LINES), 1.0)
        await engine.dispose()

    asyncio.run(book())
    return shell


def table(text: str) -> list[list[str]]:
    return [each.split() for each in text.splitlines()]


def test_a_table_the_dearest_first_and_a_total(used):
    said = table(used("usage", *NOVEMBER))
    assert said[0] == ["tenant", "model", "requests", "failed", "cached", "input", "output", "unpriced", "USD"]
    assert [each[:3] + each[-1:] for each in said[1:]] == [
        ["acme", "gpt-4", "2", "1.500000"], ["acme", "smart", "1", "0.250000"], ["blue", "gpt-4", "1", "0.000000007"], ["total", "4", "0", "1.750000007"],
    ]  # fmt: skip


def test_by_whatever_is_wanted_and_only_some(used):
    said = table(used("usage", "--by", "project", "--where", "tenant=acme", *NOVEMBER))
    assert [each[:2] for each in said[1:3]] == [["acme", "search"], ["acme", "(no"]]
    told = json.loads(used("usage", "--by", "key", "--where", "tenant=acme", "--where", "tenant=blue", "--json", *NOVEMBER))
    assert [(each["tenant"], each["key"], each["key_id"], each["requests"]) for each in told["data"]] == [("acme", "ci", "k1", 3), ("blue", "ci", "k1", 1)]
    assert told["total"]["requests"] == 4


def test_nothing_is_a_table_too(used):
    assert table(used("usage", "--where", "tenant=nobody", *NOVEMBER))[-1] == ["0", "0", "0", "0", "0", "0", "0.000000"]


def test_what_cannot_be_asked_is_said(used):
    assert "`shoe` is nothing to group by" in used("usage", "--by", "shoe", status=1)
    assert "expected `name=value`" in used("usage", "--where", "tenant", status=2)
    assert "is no parameter" in used("usage", "--where", "shoe=1", status=1)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_to_a_file(used, tmp_path, form):
    out = tmp_path / "out"
    used("usage", "export", "--format", form, "--out", str(out), "--where", "tenant=acme", *NOVEMBER)
    text = out.read_text()
    rows = list(csv.DictReader(io.StringIO(text))) if form == "csv" else [json.loads(each) for each in text.splitlines()]
    assert [each["id"] for each in rows] == ["1", "2", "3"]


def test_an_export_that_cannot_be_made_says_so(used):
    assert "expected csv, jsonl, parquet" in used("usage", "export", "--format", "xml", status=1)


def test_an_invoice_adds_up(used):
    said = used("usage", "invoice", "--tenant", "acme", "--month", "2026-11")
    assert "Tenant acme, 2026-11-01 to 2026-12-01" in said
    assert "1.750000" in said
    assert "1 replies have no price" in said
    told = used.read("usage", "invoice", "--tenant", "acme", "--month", "2026-11")
    assert sum(each["cost_nano_usd"] for each in told["projects"]) == told["total"]["cost_nano_usd"] == 1_750_000_000
    assert {each["tag"]: each["cost_nano_usd"] for each in told["tags"]} == {"batch": 1_500_000_000, "eu": 1_500_000_000, "": 250_000_000}
    assert used.read("usage", "invoice", "--tenant", "acme", "--month", "2026-12")["total"]["requests"] == 0


def test_a_month_is_a_month(used):
    assert "is no month" in used("usage", "invoice", "--tenant", "acme", "--month", "November", status=2)


@pytest.mark.parametrize(
    ("nano", "text"), [(0, "0.000000"), (7, "0.000000007"), (1_500_000_000, "1.500000"), (1_234_567_890_123, "1234.567890123"), (10, "0.00000001")]
)
def test_money_for_the_eye(nano, text):
    assert usd(nano) == text
