"""Tenants' own keys at providers by the admin API, on both databases: of tenants that were made here, and of those that config.yaml defines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from admin.test_tenancy import SECRET, TOKEN, Api, error
from databases import Migrated
from llm_gateway.admission.auth import Keys
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.admission.vault import Vault
from llm_gateway.core.tenancy import Secrets, place
from llm_gateway.wiring import keys as wired

CONFIG = """
providers:
  echo: {}
  openai: {api_key: sk-up}
  written-own: {type: openai, api_key: sk-of-the-file, tenants: [written]}
  written-keyless: {type: openai_compatible, base_url: "https://api.example.com", tenants: [written]}
  shared: {type: openai, api_key: sk-of-two, tenants: [written, acme]}
  others: {type: openai, api_key: sk-of-another, tenants: [other]}
tenants:
  written: {limits: {requests_per_minute: 5}}
keys:
  - {name: cfg, key: sk-config-01, tenant: written}
  - {name: cfg-admin, key: sk-config-admin, tenant: written, scopes: [admin]}
  - {name: cfg-read, key: sk-config-read, tenant: written, scopes: [read]}
"""
GONE = CONFIG.replace("tenants:\n  written: {limits: {requests_per_minute: 5}}\n", "")
PATH = "/admin/v1/tenants/written/secrets"


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path, migrated: Migrated) -> AsyncIterator[Api]:
    url = migrated.postgres(request.getfixturevalue("postgres")) if request.param == "postgresql" else migrated.sqlite(tmp_path)
    made = Api(tmp_path, url, CONFIG)
    await made.registry.table.look()
    await made.good("POST", "/admin/v1/tenants", {"name": "acme"})
    yield made
    await made.registry.table.close()
    await made.database.close()


def opened(api: Api, key: str = "sk-config-01", directory: Directory | None = None) -> dict[str, str | None]:
    """What a worker would use of the tenant's own, by provider."""
    known: Keys = wired(api.snapshot, directory or api.registry.table.directory)
    principal = known.principal({b"authorization": f"Bearer {key}".encode()})
    return {provider: Vault(SECRET).open(principal.tenant, provider, sealed) for provider, sealed in principal.secrets}


def rows(answer: Any) -> list[tuple[str, str, bool]]:
    return [(row["provider"], row["source"], row["used"]) for row in answer["data"]]


FILES = [("written-own", "config", True)]


@pytest.mark.parametrize("tenant", ["acme", "written"])
async def test_it_is_kept_sealed_told_to_workers_and_never_shown(api: Api, tenant: str, tmp_path: Path) -> None:
    path, files = f"/admin/v1/tenants/{tenant}/secrets", FILES if tenant == "written" else []
    key = (await api.key(tenant=tenant))["key"]
    assert rows(await api.good("GET", path)) == files
    assert await api.good("PUT", f"{path}/openai", {"key": "sk-its-own"}) == {"provider": "openai"}
    assert rows(await api.good("GET", path)) == [("openai", "api", True), *files]
    assert (await api.good("GET", f"/admin/v1/tenants/{tenant}"))["secrets"] == ["openai"]
    listed = (await api.good("GET", "/admin/v1/tenants"))["data"]
    assert {row["name"]: row["secrets"] for row in listed} == {"acme": [], "written": []} | {tenant: ["openai"]}
    assert opened(api, key) == {"openai": "sk-its-own"}
    await api.good("PUT", f"{path}/openai", {"key": "sk-its-next"})
    await api.good("PUT", f"{path}/echo", {"key": "sk-elsewhere"})
    assert opened(api, key) == {"openai": "sk-its-next", "echo": "sk-elsewhere"}
    answer = await api.ask("PUT", f"{path}/opnai", {"key": "x"})
    assert (error(answer), "`openai`" in answer[1]["error"]["message"]) == ((404, "not_found", "provider"), True)
    for provider in ("openai", "echo"):
        assert await api.ask("DELETE", f"{path}/{provider}") == (204, None)
        assert (await api.ask("DELETE", f"{path}/{provider}"))[0] == 404
    assert opened(api, key) == {}
    assert rows(await api.good("GET", path)) == files
    await api.good("PUT", f"{path}/openai", {"key": "sk-its-own"})  # where there was one before
    assert opened(api, key) == {"openai": "sk-its-own"}
    await api.database.engine.dispose()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()) + api.said.getvalue().encode()
    assert b"sk-its" not in kept


async def test_a_change_of_an_api_tenant_leaves_its_keys(api: Api) -> None:
    await api.good("PUT", "/admin/v1/tenants/acme/secrets/openai", {"key": "sk-acmes-own"})
    await api.good("PATCH", "/admin/v1/tenants/acme", {"limits": {"concurrent": 1}})
    assert rows(await api.good("GET", "/admin/v1/tenants/acme/secrets")) == [("openai", "api", True)]


async def test_where_the_file_gives_it_one_that_one_counts(api: Api) -> None:
    answer = await api.ask("PUT", f"{PATH}/written-own", {"key": "sk"})
    assert error(answer) == (409, "defined_in_configuration", "provider")
    assert "providers.written-own.tenants" in answer[1]["error"]["message"]
    assert error(await api.ask("DELETE", f"{PATH}/written-own")) == (409, "defined_in_configuration", "provider")
    for provider in ("shared", "written-keyless"):  # what is several tenants', or has no key, is no key of its own
        await api.good("PUT", f"{PATH}/{provider}", {"key": "sk"})
    assert rows(await api.good("GET", PATH)) == [("shared", "api", True), ("written-keyless", "api", True), *FILES]


async def test_one_that_the_file_gives_later_takes_its_place_and_it_can_be_taken_out(api: Api) -> None:
    await api.good("PUT", f"{PATH}/openai", {"key": "sk-own"})
    api.snapshot = api.read(CONFIG.replace("openai: {api_key: sk-up}", "openai: {api_key: sk-up, tenants: [written]}"))
    assert rows(await api.good("GET", PATH)) == [("openai", "api", False), ("openai", "config", True), *FILES]
    assert await api.ask("DELETE", f"{PATH}/openai") == (204, None)


async def test_another_tenants_provider_is_not_there(api: Api) -> None:
    for path in ("written/secrets/others", "acme/secrets/written-own"):
        answer = await api.ask("PUT", f"/admin/v1/tenants/{path}", {"key": "sk"})
        assert error(answer) == (404, "not_found", "provider")
        assert "did you mean" not in answer[1]["error"]["message"]


async def test_of_a_tenant_that_the_file_drops_they_stay_unused_until_it_is_back_or_they_are_taken_out(api: Api) -> None:
    await api.good("PUT", f"{PATH}/openai", {"key": "sk-own"})
    await api.good("PUT", f"{PATH}/echo", {"key": "sk-other"})
    before, api.snapshot = api.snapshot, api.read(GONE)
    assert opened(api) == {}
    assert rows(await api.good("GET", PATH)) == [("echo", "api", False), ("openai", "api", False), *FILES]
    assert error(await api.ask("PUT", f"{PATH}/openai", {"key": "sk"})) == (404, "not_found", "tenant")
    assert await api.ask("DELETE", f"{PATH}/echo") == (204, None)
    await api.good("POST", "/admin/v1/tenants", {"name": "written"})  # another one, of the same name
    assert opened(api) == {}
    assert rows(await api.good("GET", PATH)) == FILES
    await api.good("PUT", f"{PATH}/echo", {"key": "sk-the-others"})
    assert opened(api) == {"echo": "sk-the-others"}
    api.snapshot = before
    assert opened(api) == {"openai": "sk-own"}
    assert rows(await api.good("GET", PATH)) == [("openai", "api", True), *FILES]


async def test_of_nobody_there_is_nothing(api: Api) -> None:
    for method, body in (("GET", None), ("PUT", {"key": "sk"}), ("DELETE", None)):
        path = "/admin/v1/tenants/nobody/secrets" + ("/openai" if method != "GET" else "")
        assert (await api.ask(method, path, body))[0] == 404


@pytest.mark.parametrize("body", [{}, {"key": ""}, {"key": "sk", "more": 1}])
async def test_a_body_that_is_wrong_changes_nothing(api: Api, body: object) -> None:
    before = await api.register.serial()
    assert (await api.ask("PUT", f"{PATH}/openai", body))[0] == 400
    assert await api.register.serial() == before


async def test_who_may(api: Api) -> None:
    """Its own administrators and the operator; readers look. To others it is not there."""
    stranger = (await api.key(tenant="acme", scopes=["admin"]))["key"]
    for token, statuses in (
        ("sk-config-01", (403, 403, 403)), ("sk-config-read", (200, 403, 403)), (stranger, (404, 404, 404)), ("sk-config-admin", (200, 200, 204)),
        (TOKEN, (200, 200, 204)),
    ):  # fmt: skip
        asked = (("GET", PATH, None), ("PUT", f"{PATH}/openai", {"key": "sk"}), ("DELETE", f"{PATH}/openai", None))
        assert tuple([(await api.ask(*each, token))[0] for each in asked]) == statuses


async def test_the_key_table_of_the_next_start_holds_them_too(api: Api, tmp_path: Path) -> None:
    await api.good("PUT", f"{PATH}/openai", {"key": "sk-own"})
    fresh = Directory()  # as the next start reads it, before anybody has asked the database
    assert fresh.open(tmp_path / KEYS, confirmed=False) == ""
    assert opened(api, directory=fresh) == opened(api) == {"openai": "sk-own"}
    await api.good("DELETE", f"{PATH}/openai")
    fresh.open(tmp_path / KEYS, confirmed=False)
    assert opened(api, directory=fresh) == opened(api) == {}
    await api.good("PUT", f"{PATH}/openai", {"key": "sk-own"})
    assert api.registry.table.directory.find("secrets:written") is None, "it is nobody's limits"
    assert place("secrets:written") in (await api.register.since(0))[1]
    assert api.registry.table.directory.secrets("written") == (await api.register.entrusted(["written"]))["written"]
    assert Secrets("written").secrets == {}


@pytest.mark.parametrize("key", ["sk\r\nx-more: 1", "sk\n.", "sk\0.", "sk-\u00e9", "sk\u2028.", "\n"])
async def test_what_no_header_can_carry_is_no_key(api: Api, key: str) -> None:
    """A tenant's administrator would write requests of his own on a connection that others share."""
    answer = await api.ask("PUT", f"{PATH}/openai", {"key": key}, "sk-config-admin")
    assert error(answer) == (400, "invalid_request", "key")
    assert rows(await api.good("GET", PATH)) == FILES
