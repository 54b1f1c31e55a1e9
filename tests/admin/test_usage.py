"""The admin API's answers about usage: to the gateway's operator, and to a tenant about itself."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from llm_gateway.admin.database import Database
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.registry import Registry
from llm_gateway.admin.usage import Usage
from llm_gateway.commands.alone import ask
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.stores.sql import booking
from llm_gateway.stores.sql.booking import Batch
from stores.sql.made import batch, line

TOKEN = "admin-token-of-the-tests"
CONFIG = """
providers: {echo: {}}
keys:
  - {name: reader, key: sk-acme-reader, tenant: acme, scopes: [read]}
  - {name: stranger, key: sk-blue-admin, tenant: blue, scopes: [admin]}
  - {name: client, key: sk-acme-client, tenant: acme}
"""
Ask = Callable[..., Coroutine[Any, Any, Any]]


def some() -> Batch:
    """Three requests of acme's, one of blue's."""
    return batch(
        line(id="1", tags=["batch"]), line(id="2", model="smart", status=429, outcome="rate_limit_exceeded", cost=None, input=0, output=0),
        line(id="3", project="chat", cost=2500), line(id="4", tenant="blue", key_id="k2", key="stranger", cost=7),
    )  # fmt: skip


@pytest.fixture
async def usage(tmp_path) -> AsyncIterator[Ask]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    loaded = load(str(tmp_path / "config.yaml"), {"LLM_GATEWAY__DATA_DIR": str(tmp_path)})
    material = msgspec.structs.replace(imagined(loaded.root), secret=b"0123456789abcdef")
    snapshot = compile_snapshot(loaded, {}, material, load_catalogue().resolve, 1).snapshot
    notices = Notices(io.StringIO(), "json", "info")
    database = Database(f"sqlite:///{tmp_path}/gateway.db", notices, lambda *_: None)
    registry = Registry(database, Fleet(snapshot, lambda _: None, lambda *_: None), notices, lambda: (TOKEN, snapshot))
    await database.ready()
    await booking.book(database.engine, some(), 1.0)
    app = Starlette(routes=Usage(registry.ground, database.engine, lambda: 100_000).routes())

    async def asked(path: str, token: str = TOKEN, status: int = 200) -> Any:
        found, text = await ask(app, "GET", f"/admin/v1/usage{path}", (token, b""))
        assert found == status, text
        return json.loads(text) if text.startswith("{") and not text.startswith('{"ts"') else text

    yield asked
    await database.close()


async def test_an_error_names_the_parameter_that_is_none(usage):
    found = await usage("?shoe=1", status=400)
    assert found["error"]["param"] == "shoe"
    assert "no parameter" in found["error"]["message"]


async def test_sums_by_what_was_asked(usage):
    told = await usage("?since=2026-11-01&until=2026-12-01&group_by=tenant,model")
    assert (told["since"], told["until"], told["group_by"]) == ("2026-11-01T00:00:00.000Z", "2026-12-01T00:00:00.000Z", ["tenant", "model"])
    assert [(each["tenant"], each["model"], each["requests"], each["cost_nano_usd"]) for each in told["data"]] == [
        ("acme", "gpt-4", 2, 3500), ("blue", "gpt-4", 1, 7), ("acme", "smart", 1, 0),
    ]  # fmt: skip
    total = told["total"]
    assert (total["requests"], total["failed"], total["cost_nano_usd"], total["cost_usd"]) == (4, 1, 3507, 3.507e-06)
    assert told["next_offset"] is None


async def test_a_tenants_key_sees_its_own_tenant_whatever_it_asks_for(usage):
    for asked in ("", "&tenant=blue", "&tenant=acme,blue"):
        told = await usage(f"?since=2026-11-01&until=2026-12-01&group_by=tenant{asked}", "sk-acme-reader")
        assert [(each["tenant"], each["requests"]) for each in told["data"]] == [("acme", 3)]
        assert told["total"]["requests"] == 3
        rows = await usage(f"/rows?since=2026-11-01&until=2026-12-01{asked}", "sk-acme-reader")
        assert sorted(each["id"] for each in rows["data"]) == ["1", "2", "3"]
        exported = await usage(f"/export?format=jsonl&since=2026-11-01&until=2026-12-01{asked}", "sk-acme-reader")
        assert sorted(json.loads(each)["id"] for each in exported.splitlines()) == ["1", "2", "3"]
    assert (await usage("?since=2026-11-01&until=2026-12-01", "sk-blue-admin"))["total"]["requests"] == 1


@pytest.mark.parametrize("path", ["", "/rows", "/export"])
async def test_others_see_nothing(usage, path):
    assert (await usage(path, "wrong", 401))["error"]["code"] == "unauthorized"
    assert (await usage(path, "sk-acme-client", 403))["error"]["code"] == "insufficient_scope"


async def test_rows_come_in_pages(usage):
    found, more = [], ""
    for _ in range(3):
        told = await usage(f"/rows?since=2026-11-01&until=2026-12-01&limit=2{more}")
        found += [each["id"] for each in told["data"]]
        if told["next_cursor"] is None:
            break
        more = f"&cursor={told['next_cursor']}"
    assert found == ["4", "3", "2", "1"]


async def test_exports_of_each_kind(usage):
    rows = list(csv.DictReader(io.StringIO(await usage("/export?since=2026-11-01&until=2026-12-01"))))
    assert [(each["id"], each["cost_nano_usd"]) for each in rows] == [("1", "1000"), ("2", ""), ("3", "2500"), ("4", "7")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("?group_by=shoe", "group_by: `shoe`"), ("?since=tomorrow", "since: `tomorrow`"), ("/rows?cursor=!", "cursor"),
        ("/export?format=xml", "format: expected csv"), ("/rows?group_by=tenant", "group_by"), ("/export?limit=no", "limit"),
    ],
)  # fmt: skip
async def test_what_cannot_be_understood_is_said(usage, path, message):
    refused = (await usage(path, status=400))["error"]
    assert refused["code"] == "invalid_request"
    assert message in refused["message"]
