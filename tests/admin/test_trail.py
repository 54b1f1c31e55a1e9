"""The audit log over the admin API, of a real gateway: what its operator sees, what a tenant's administrator, and whether it holds."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from e2e.conftest import KEY, free_port, running
from e2e.whole import TOKEN
from llm_gateway.admin import trail
from processes import eventually


class Audited:
    def __init__(self, folder: Path, metrics_port: int) -> None:
        self.log, self.metrics_port = folder / "data" / "audit", metrics_port

    def ask(self, method: str, path: str, body: object = None, token: str = TOKEN) -> tuple[int, Any]:
        client = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=20)
        client.request(method, f"/admin/v1/{path}", json.dumps(body) if body is not None else None, {"Authorization": f"Bearer {token}"})
        reply = client.getresponse()
        text = reply.read()
        client.close()
        return reply.status, json.loads(text) if text else None

    def read(self, token: str = TOKEN, **said: object) -> Any:
        status, body = self.ask("GET", f"audit?{urlencode(said)}", token=token)
        assert status == 200, body
        return body

    def refusal(self, token: str = TOKEN, **said: object) -> tuple[int, str | None]:
        status, body = self.ask("GET", f"audit?{urlencode(said)}", token=token)
        return status, body["error"].get("param") or body["error"]["code"]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("trail")
    metrics_port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": metrics_port},
        "data_dir": str(folder / "data"), "providers": {"echo": {}}, "keys": [{"name": "e2e", "key": KEY}], "admin": {"token": TOKEN},
    }  # fmt: skip
    with running(folder, config):
        made = Audited(folder, metrics_port)
        eventually(lambda: made.ask("GET", "keys")[0] == 200, 20)
        yield made


@pytest.fixture(scope="module")
def told(audited: Audited) -> dict[str, Any]:
    """Two tenants with an administrator each, who do a few things. Their keys, by tenant."""
    keys = {}
    for tenant in ("acme", "other"):
        assert audited.ask("POST", "tenants", {"name": tenant})[0] == 201
        keys[tenant] = audited.ask("POST", "keys", {"name": f"boss-{tenant}", "tenant": tenant, "scopes": ["admin"]})[1]
        made = audited.ask("POST", "keys", {"name": "k", "tenant": tenant}, keys[tenant]["key"])[1]
        assert audited.ask("DELETE", f"keys/{made['id']}", token=keys[tenant]["key"])[0] == 204
    audited.ask("POST", "tenants/acme/projects", {"name": "search"})
    audited.ask("PUT", "tenants/acme/secrets/echo", {"value": "sk-of-acme"})
    audited.ask("GET", "config", token="wrong")
    return keys


def test_the_operator_sees_all_of_it_and_that_it_holds(audited: Audited, told: dict[str, Any]) -> None:
    seen = audited.read(limit=1000)
    assert [line["seq"] for line in seen["data"]] == list(range(len(seen["data"]), 0, -1))
    verified = seen["verified"]
    assert (verified["holds"], verified["broken"], verified["first"], verified["last"]) == (True, "", 1, len(seen["data"]))
    assert seen["next_cursor"] is None
    assert not any(secret in json.dumps(seen) for secret in ("sk-of-acme", told["acme"]["key"], TOKEN))


def test_filters(audited: Audited, told: dict[str, Any]) -> None:
    assert {line["kind"] for line in audited.read(kind="refused")["data"]} == {"refused"}
    assert [line["action"].partition("/k")[0] for line in audited.read(actor="boss-acme of acme")["data"]] == ["DELETE /admin/v1", "POST /admin/v1"]
    actions = [line["action"] for line in audited.read(action="/secrets/")["data"]]
    assert actions == ["PUT /admin/v1/tenants/acme/secrets/echo"]
    assert audited.read(until="1h")["data"] == []
    assert len(audited.read(since="1h", limit=1000)["data"]) == len(audited.read(limit=1000)["data"])


def test_a_change_says_whom_it_is_about(audited: Audited, told: dict[str, Any]) -> None:
    about = [line["action"].split("/key_")[0] for line in audited.read(tenant="acme", limit=1000)["data"]]
    assert about == [
        "PUT /admin/v1/tenants/acme/secrets/echo", "POST /admin/v1/tenants/acme/projects", "DELETE /admin/v1/keys", "POST /admin/v1/keys",
        "POST /admin/v1/keys", "POST /admin/v1/tenants",
    ]  # fmt: skip


def test_pages_end_where_the_log_does(audited: Audited, told: dict[str, Any]) -> None:
    whole = [line["seq"] for line in audited.read(limit=1000)["data"]]
    seen, cursor = list[int](), ""
    while True:
        body = audited.read(limit=3, **({"cursor": cursor} if cursor else {}))
        assert ("verified" in body) is (cursor == ""), "with the first page alone"
        seen += [line["seq"] for line in body["data"]]
        if (cursor := body["next_cursor"] or "") == "":
            break
    assert seen == whole
    assert "verified" not in audited.read(verify="false")


def test_a_tenant_s_administrator_sees_its_own_lines_and_nothing_of_the_chain(audited: Audited, told: dict[str, Any]) -> None:
    seen = audited.read(token=told["other"]["key"], limit=1000)
    assert {line["tenant"] for line in seen["data"]} == {"other"}
    assert len(seen["data"]) == 4
    assert not any({"seq", "prev", "hash", "at"} & line.keys() for line in seen["data"])
    assert "verified" not in seen
    assert audited.refusal(token=told["other"]["key"], tenant="acme") == (404, "not_found")


def test_who_may_not_look_and_what_cannot_be_asked(audited: Audited) -> None:
    assert audited.refusal(token="wrong") == (401, "unauthorized")
    assert audited.refusal(token=KEY)[0] == 403
    for said in ({"kind": "nothing"}, {"since": "soon"}, {"limit": "0"}, {"cursor": "x"}, {"nobody": "1"}, {"verify": "maybe"}):
        assert audited.refusal(**said) == (400, next(iter(said)))


def test_harm_shows(audited: Audited, told: dict[str, Any]) -> None:
    """Last: the log does not hold any more afterwards."""
    assert trail.VERIFIED_FOR == 60
    file = next(audited.log.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b'"name":"boss-acme"', b'"name":"boss-adme"', 1))
    assert audited.read()["verified"]["holds"] is True, "it was checked less than a minute ago"
    found = trail.verify(audited.log, (audited.log.parent / "secret").read_text().strip().encode())
    assert "its hash is not that of its content" in found.broken
    file.write_bytes(file.read_bytes() + b"what somebody put there\n")
    assert audited.read(verify="false")["data"], "what is a line is shown all the same"
