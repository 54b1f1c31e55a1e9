"""The admin API for tenants, projects, users and keys: what it does, what it refuses, and to whom. In process, with a real database."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from databases import Migrated
from llm_gateway.admin.database import Database
from llm_gateway.admin.fleet import Fleet
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.registry import Registry
from llm_gateway.admission.auth import aws_secret
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.config.tenancy import key_digest
from llm_gateway.core.tenancy import Key, Tenant, place, signer
from llm_gateway.models.catalogue import load_catalogue
from llm_gateway.stores.sql.directory import Register
from postgres import Postgres

NOW = 1_700_000_000.0  # long ago
TOKEN, SECRET = "admin-token-of-the-tests", b"0123456789abcdef"
CONFIG = """
providers: {echo: {}, openai: {api_key: sk-up}}
tenants:
  written: {limits: {requests_per_minute: 5}, projects: {search: {}}, users: {bob: {}}}
keys:
  - {name: cfg, key: sk-config-01, tenant: written}
  - {name: cfg-admin, key: sk-config-admin, tenant: written, scopes: [admin]}
"""


class Api:
    """A client of it, without a socket. Every answer is JSON, or empty."""

    def __init__(self, folder: Path, url: str | None = None, config: str = CONFIG) -> None:
        """url: of the database; one of SQLite in the folder, if not said."""
        self._folder = folder
        self.snapshot = self.read(config)
        self.said = io.StringIO()
        notices = Notices(self.said, "json", "info")
        self.database = Database(url or f"sqlite:///{folder}/gateway.db", notices, lambda *_: None)
        self.register = Register(self.database.engine)
        fleet = Fleet(self.snapshot, lambda _: None, lambda *_: None)
        self.registry = Registry(self.database, fleet, notices, lambda: (TOKEN, self.snapshot))
        self.app = Starlette(routes=self.registry.routes())
        self.peer = "127.0.0.1"

    def read(self, config: str) -> Snapshot:
        (self._folder / "config.yaml").write_text(config)
        loaded = load(str(self._folder / "config.yaml"), {"LLM_GATEWAY__DATA_DIR": str(self._folder)})
        material = msgspec.structs.replace(imagined(loaded.root), secret=SECRET)
        return compile_snapshot(loaded, {}, material, load_catalogue().resolve, 1).snapshot

    async def ask(self, method: str, path: str, body: object = None, token: str | None = TOKEN) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        headers = [(b"authorization", f"Bearer {token}".encode())] if token is not None else []
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": headers,
            "client": (self.peer, 1), "server": ("test", 80), "scheme": "http", "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
        }  # fmt: skip
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in told[1:])
        return told[0]["status"], json.loads(text) if text else None

    async def good(self, method: str, path: str, body: object = None, token: str = TOKEN) -> Any:
        status, answer = await self.ask(method, path, body, token)
        assert status in (200, 201, 204), answer
        return answer

    async def key(self, **said: object) -> Any:
        return await self.good("POST", "/admin/v1/keys", {"name": "k", **said})


@pytest.fixture
async def api(tmp_path: Path, migrated: Migrated) -> AsyncIterator[Api]:
    migrated.sqlite(tmp_path)
    made = Api(tmp_path)
    await made.registry.table.look()
    yield made
    await made.registry.table.close()
    await made.database.close()


@pytest.fixture
async def acme(api: Api) -> Api:
    await api.good("POST", "/admin/v1/tenants", {"name": "acme"})
    return api


def error(answer: tuple[int, Any]) -> tuple[int, str, str | None]:
    return answer[0], answer[1]["error"]["code"], answer[1]["error"]["param"]


LIMITS = {"requests_per_minute": 60, "models": {"gpt-4": {"tokens_per_minute": 1000}}}
GRANT = {
    "limits": LIMITS, "budgets": [{"usd": 12.5, "period": "day", "hard": False, "alerts": [0.5]}], "models": ["gpt-4"], "regions": ["eu"],
    "max_output_tokens": 4096,
}  # fmt: skip


# -- tenants -----------------------------------------------------------------------------------------------------


async def test_a_tenants_life(api: Api) -> None:
    said = {"name": "acme", **GRANT, "each_user": {"limits": {"concurrent": 2}}}
    made = await api.good("POST", "/admin/v1/tenants", said)
    assert {name: made[name] for name in said} == said
    assert (made["enabled"], made["source"], made["secrets"], made["created"][-1]) == (True, "api", [], "Z")
    assert await api.good("GET", "/admin/v1/tenants/acme") == made
    changed = await api.good("PATCH", "/admin/v1/tenants/acme", {"enabled": False, "limits": {"models": None, "concurrent": 3}, "budgets": None})
    kept = {name: value for name, value in made.items() if name != "budgets"}
    assert changed == {**kept, "enabled": False, "limits": {"requests_per_minute": 60, "concurrent": 3}}
    assert api.registry.table.directory.find("tenant:acme") == (await api.register.get(Tenant, "acme")).record
    assert (await api.ask("DELETE", "/admin/v1/tenants/acme")) == (204, None)
    assert (await api.ask("GET", "/admin/v1/tenants/acme"))[0] == 404
    assert api.registry.table.directory.find("tenant:acme") is None


async def test_what_was_read_can_be_sent_back(acme: Api) -> None:
    made = await acme.good("PATCH", "/admin/v1/tenants/acme", {**GRANT, "each_key": GRANT, "each_user": {}})
    said = {name: made[name] for name in made if name not in ("secrets", "source", "created")}
    assert await acme.good("PATCH", "/admin/v1/tenants/acme", said) == made


async def test_lists_go_on_where_they_ended_and_hold_what_the_file_defines(api: Api) -> None:
    for name in ("zeta", "alpha", "written-too"):
        await api.good("POST", "/admin/v1/tenants", {"name": name})
    first = await api.good("GET", "/admin/v1/tenants?limit=2")
    assert ([row["name"] for row in first["data"]], first["next"]) == (["alpha", "written"], "written")
    rest = await api.good("GET", f"/admin/v1/tenants?limit=2&after={first['next']}")
    assert ([(row["name"], row["source"]) for row in rest["data"]], rest["next"]) == ([("written-too", "api"), ("zeta", "api")], None)


async def test_pages_lose_nobody_where_the_database_sorts_as_people_do(tmp_path: Path, postgres: Postgres) -> None:
    """As most of PostgreSQL's do: en_US puts `alpha` before `Zeta`, and `a-b` behind `aa`."""
    postgres.run("CREATE DATABASE people TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'")
    api = Api(tmp_path, f"{postgres.database().rpartition('/')[0]}/people", CONFIG.replace("name: cfg,", "name: Zed,"))
    names = ["Zeta", "alpha", "beta", "a-b", "aa", "Beta", "0"]
    for name in names:
        await api.good("POST", "/admin/v1/tenants", {"name": name})
        await api.good("POST", "/admin/v1/tenants/written/users", {"name": name})
        await api.key(name=name)
    found = {}
    for path, by in (("tenants", "name"), ("tenants/written/users", "name"), ("keys", "id")):
        rows, after = [], ""
        while after is not None:
            page = await api.good("GET", f"/admin/v1/{path}?limit=1&after={after}")
            rows += [row[by] for row in page["data"]]
            after = page["next"]
        found[path] = rows
    await api.registry.table.close()
    await api.database.close()
    assert found["tenants"] == sorted([*names, "written"])
    assert found["tenants/written/users"] == sorted([*names, "bob"])
    assert found["keys"] == sorted(found["keys"])
    assert len(found["keys"]) == len(names) + 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "tenants", {"name": "written"}),
        ("PATCH", "tenants/written", {"enabled": False}),
        ("DELETE", "tenants/written", None),
        ("POST", "tenants/written/projects", {"name": "search"}),
        ("PATCH", "tenants/written/projects/search", {}),
        ("DELETE", "tenants/written/users/bob", None),
        ("PATCH", "keys/cfg", {"name": "x"}),
        ("POST", "keys/cfg/rotate", None),
        ("POST", "keys/cfg/revoke", None),
        ("DELETE", "keys/cfg", None),
    ],
)
async def test_what_the_file_defines_is_not_changed_here(api: Api, method: str, path: str, body: object) -> None:
    answer = await api.ask(method, f"/admin/v1/{path}", body)
    assert error(answer) == (409, "defined_in_configuration", None)
    assert "config.yaml" in answer[1]["error"]["message"]


async def test_a_tenant_of_the_file_may_have_more_projects_users_and_keys(api: Api) -> None:
    await api.good("POST", "/admin/v1/tenants/written/projects", {"name": "more"})
    assert [(row["name"], row["source"]) for row in (await api.good("GET", "/admin/v1/tenants/written/projects"))["data"]] == [
        ("more", "api"), ("search", "config"),
    ]  # fmt: skip
    for project in ("more", "search"):
        assert (await api.key(tenant="written", project=project))["project"] == project


@pytest.mark.parametrize("kind", ["projects", "users"])
async def test_a_members_life(acme: Api, kind: str) -> None:
    path = f"/admin/v1/tenants/acme/{kind}"
    made = await acme.good("POST", path, {"name": "one", **GRANT})
    assert (made["tenant"], made["budgets"]) == ("acme", GRANT["budgets"])
    assert error(await acme.ask("POST", path, {"name": "one"})) == (409, "exists", "name")
    assert (await acme.good("GET", f"{path}/one")) == made
    assert (await acme.good("PATCH", f"{path}/one", {"enabled": False}))["enabled"] is False
    assert [row["name"] for row in (await acme.good("GET", path))["data"]] == ["one"]
    await acme.key(tenant="acme", **{kind[:-1]: "one"})
    assert error(await acme.ask("DELETE", f"{path}/one")) == (409, "in_use", None)
    await acme.good("DELETE", f"{path}/one?cascade=true")
    assert (await acme.good("GET", "/admin/v1/keys?tenant=acme"))["data"] == []
    assert (await acme.ask("POST", "/admin/v1/tenants/nobody/users", {"name": "x"}))[0] == 404


# -- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("tenants", {}, "name", "is required"),
        ("tenants", {"name": "a b"}, "name", "expected a name"),
        ("tenants", {"name": "a", "limits": {"requests": 5}}, "limits.requests", "did you mean `requests_per_"),
        ("tenants", {"name": "a", "limits": {"models": {"m": {"concurrent": -1}}}}, "limits.models.m.concurrent", "at least 0"),
        ("tenants", {"name": "a", "budgets": [{"usd": "x"}]}, "budgets[0].usd", ""),
        ("tenants", {"name": "a", "budgets": [{"usd": 1}, {"usd": 2}]}, "budgets", "at most one"),
        ("tenants", {"name": "a", "disabled": True}, "disabled", "`enabled`"),
        ("keys", {"name": "k", "ips": ["10.0.0.0/99"]}, "ips[0]", "address or network"),
        ("keys", {"name": "k", "expires": "soon"}, "expires", "2026-12-31"),
        ("keys", {"name": "k", "scopes": ["root"]}, "scopes[0]", "inference"),
        ("keys", {"name": "k", "scopes": []}, "scopes", "at least one"),
        ("keys", {"name": "k", "digest": "0" * 64}, "digest", "unknown option"),
        ("keys", {"name": "k", "tenant": "nobody"}, "tenant", "create it first"),
        ("keys", {"name": "k", "project": "nothing"}, "project", "create it first"),
    ],
)
async def test_a_body_that_is_wrong_is_told_which_field(api: Api, path: str, body: object, param: str, words: str) -> None:
    answer = await api.ask("POST", f"/admin/v1/{path}", body)
    assert error(answer) == (400, "invalid_request", param)
    assert words in answer[1]["error"]["message"]


async def test_everything_that_is_wrong_is_told_at_once_and_no_value(api: Api) -> None:
    status, answer = await api.ask("POST", "/admin/v1/keys", {"name": "", "ips": ["secret-word"], "limits": 5})
    assert (status, {each["param"] for each in answer["errors"]}) == (400, {"name", "ips[0]", "limits"})
    assert "secret-word" not in json.dumps(answer)


TOO_LONG = b'{"name": "' + b"a" * (1 << 20) + b'"}'


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 400), (b"1", 400), (b'{"name": "\xff"}', 400), (b"[" * 5000, 400), (TOO_LONG, 413)]
)
async def test_what_is_no_object_or_too_much_is_refused(api: Api, body: bytes, status: int) -> None:
    assert (await api.ask("POST", "/admin/v1/tenants", body))[0] == status


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=%C2%B2", "tennant=a", "enabled=yes"])
async def test_a_filter_that_does_nothing_is_refused(api: Api, query: str) -> None:
    assert (await api.ask("GET", f"/admin/v1/keys?{query}"))[0] == 400


@pytest.mark.parametrize(("apart", "said", "param"), [
    (("budgets",), {"budgets": [{"usd": 1}]}, "budgets"), (("limits", "budgets"), {"limits": {"concurrent": 1}}, "limits"),
    (("limits", "budgets"), {"limits": {"models": {"m": {"concurrent": 1}}}}, "limits"),
])  # fmt: skip
async def test_a_limit_that_would_be_none_is_refused(acme: Api, apart: Any, said: dict[str, object], param: str) -> None:
    """With several workers and no Redis; what does not touch it can still be changed."""
    paths = ("tenants/acme", "tenants/acme/users/bob", "tenants/acme/projects/p")
    await acme.good("POST", "/admin/v1/tenants/acme/users", {"name": "bob", **said})
    await acme.good("POST", "/admin/v1/tenants/acme/projects", {"name": "p"})
    key = (await acme.key(**said))["id"]
    acme.snapshot = msgspec.structs.replace(acme.snapshot, tenancy=msgspec.structs.replace(acme.snapshot.tenancy, apart=apart))
    more = {**said, "max_output_tokens": 5}
    for method, path, body in (*(("PATCH", path, more) for path in (*paths, f"keys/{key}")), ("POST", "keys", {"name": "n", **said})):
        assert error(await acme.ask(method, f"/admin/v1/{path}", body)) == (400, "invalid_request", param), path
    assert error(await acme.ask("PATCH", "/admin/v1/tenants/acme", {"each_key": said}))[2] == f"each_key.{param}"
    for path in (*paths, f"keys/{key}"):
        await acme.good("PATCH", f"/admin/v1/{path}", {"enabled": False})


async def test_names_stay(acme: Api) -> None:
    await acme.good("POST", "/admin/v1/tenants/acme/users", {"name": "bob"})
    key = await acme.key(tenant="acme")
    for path, body in (("tenants/acme", {"name": "b"}), ("tenants/acme/users/bob", {"name": "b"}), (f"keys/{key['id']}", {"tenant": "default"})):
        assert error(await acme.ask("PATCH", f"/admin/v1/{path}", body)) == (400, "invalid_request", next(iter(body)))


async def test_an_answer_is_503_while_the_database_is_away(api: Api, tmp_path: Path) -> None:
    await api.database.engine.dispose()
    (tmp_path / "gateway.db").rename(tmp_path / "hidden")
    (tmp_path / "gateway.db").mkdir()
    for method, path, body in (("GET", "tenants/acme", None), ("POST", "keys", {"name": "k"}), ("DELETE", "tenants/acme", None)):
        assert error(await api.ask(method, f"/admin/v1/{path}", body)) == (503, "database_unavailable", None)


# -- keys ---------------------------------------------------------------------------------------------------------


async def test_a_keys_secret_is_shown_once_and_kept_as_a_hash(api: Api, tmp_path: Path) -> None:
    made = await api.key(**GRANT, expires="2030-01-01", ips=["10.0.0.1"], scopes=["inference", "read"], user="bob")
    assert made["key"].startswith("sk-gw-")
    assert len(made["key"]) > 40
    assert (made["expires"], made["ips"], made["status"], made["created_by"]) == ("2030-01-01T00:00:00Z", ["10.0.0.1/32"], "active", "admin token")
    shown = await api.good("GET", f"/admin/v1/keys/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert await api.register.owner(key_digest(SECRET, made["key"]))
    assert api.registry.table.directory.key(key_digest(SECRET, made["key"]))
    await api.database.engine.dispose()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert made["key"].encode() not in kept
    assert made["key"] not in api.said.getvalue()


async def test_keys_are_listed_by_what_is_asked(acme: Api) -> None:
    for name, tenant in (("a", "default"), ("b", "acme"), ("c", "acme")):
        await acme.key(name=name, tenant=tenant)
    last = (await acme.good("GET", "/admin/v1/keys?name=c"))["data"][0]["id"]
    await acme.good("POST", f"/admin/v1/keys/{last}/revoke")

    async def names(query: str) -> set[str]:
        return {row["name"] for row in (await acme.good("GET", f"/admin/v1/keys?{query}"))["data"]}

    assert await names("") == {"a", "b", "c", "cfg", "cfg-admin"}
    assert await names("tenant=acme") == {"b", "c"}
    assert await names("tenant=acme&enabled=true") == {"b"}
    assert await names("tenant=written") == {"cfg", "cfg-admin"}
    found, after = [], ""
    while after is not None:
        page = await acme.good("GET", f"/admin/v1/keys?limit=2&after={after}")
        found += [row["name"] for row in page["data"]]
        after = page["next"]
    assert sorted(found) == ["a", "b", "c", "cfg", "cfg-admin"]


async def test_a_key_rotates_is_revoked_and_goes(api: Api) -> None:
    first = await api.key()
    directory = api.registry.table.directory

    def known(secret: str) -> Key | None:
        return directory.key(key_digest(SECRET, secret))

    second = await api.good("POST", f"/admin/v1/keys/{first['id']}/rotate", {"overlap_seconds": 3600})
    assert (second["id"], second["key"] != first["key"], len(second["overlaps"])) == (first["id"], True, 1)
    assert known(first["key"]).id == known(second["key"]).id == first["id"]
    assert known(first["key"]).expires > 0
    third = await api.good("POST", f"/admin/v1/keys/{first['id']}/rotate")
    assert known(second["key"]) is None
    revoked = await api.good("POST", f"/admin/v1/keys/{first['id']}/revoke")
    assert (revoked["status"], revoked["enabled"]) == ("revoked", False)
    assert known(first["key"]).disabled
    assert known(third["key"]).disabled
    assert (await api.good("PATCH", f"/admin/v1/keys/{first['id']}", {"enabled": True}))["status"] == "active"
    await api.good("DELETE", f"/admin/v1/keys/{first['id']}")
    assert (known(first["key"]), known(third["key"])) == (None, None)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/revoke"), ("PATCH", "")):
        assert (await api.ask(method, f"/admin/v1/keys/{first['id']}{path}"))[0] == 404
    assert error(await api.ask("POST", f"/admin/v1/keys/{first['id']}/rotate", {"overlap_seconds": "32d"}))[0] in (400, 404)


async def test_a_key_takes_limits_of_its_own_and_gives_them_back(api: Api) -> None:
    key = await api.key(limits={"requests_per_minute": 5})
    stored = (await api.register.key(key["id"], 0)).record
    assert stored.grant is not None
    await api.good("PATCH", f"/admin/v1/keys/{key['id']}", {"limits": None, "expires": "2031-01-01T00:00:00Z"})
    stored = (await api.register.key(key["id"], 0)).record
    assert (stored.grant, stored.expires) == (None, 1_924_992_000.0)
    assert "expires" not in await api.good("PATCH", f"/admin/v1/keys/{key['id']}", {"expires": None})


@pytest.mark.parametrize("said", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
async def test_a_time_that_cannot_be_told_again_is_refused(acme: Api, said: str) -> None:
    """A tenant's administrator could end the listing of everybody's keys by it."""
    boss = await acme.key(tenant="acme", scopes=["admin"])
    await acme.registry.table.look()
    assert error(await acme.ask("POST", "/admin/v1/keys", {"name": "x", "expires": said}, boss["key"])) == (400, "invalid_request", "expires")
    assert error(await acme.ask("PATCH", f"/admin/v1/keys/{boss['id']}", {"expires": said})) == (400, "invalid_request", "expires")
    assert len((await acme.good("GET", "/admin/v1/keys"))["data"]) == 3


async def test_a_key_that_ended_with_the_epoch_has_ended(acme: Api) -> None:
    """0 is never, as records have it."""
    made = await acme.key(tenant="acme", expires="1970-01-01T00:00:00Z", scopes=["read"])
    await acme.registry.table.look()
    assert made["status"] == "expired"
    assert (await acme.ask("GET", "/admin/v1/keys", token=made["key"]))[0] == 401
    (key,) = acme.read("keys: [{name: a, key: sk-12345678, expires: 1970-01-01}]").keys
    assert 0 < key.expires < NOW


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_number_beyond_all_measure_and_a_nul_are_refused(
    tmp_path: Path, migrated: Migrated, kind: str, request: pytest.FixtureRequest
) -> None:
    url = migrated.sqlite(tmp_path) if kind == "sqlite" else migrated.postgres(request.getfixturevalue("postgres"))
    api = Api(tmp_path, url)
    answers = [
        await api.ask("POST", "/admin/v1/tenants", {"name": "acme", "limits": {"requests_per_minute": 10**30}}),
        await api.ask("POST", "/admin/v1/tenants", {"name": "acme", "max_output_tokens": 10**30}),
        await api.ask("POST", "/admin/v1/keys", {"name": "a\0b"}),
        await api.ask("GET", "/admin/v1/keys?name=%00"),
        await api.ask("GET", "/admin/v1/keys?after=%00"),
        await api.ask("GET", "/admin/v1/keys/\0"),
        await api.ask("GET", "/admin/v1/tenants/\0"),
    ]
    await api.database.close()
    assert [status for status, _ in answers if status >= 500] == []
    assert [status for status, _ in answers[:3]] == [400] * 3


async def test_aws_credentials_are_computed_and_rotate_too(api: Api) -> None:
    made = await api.key(aws=True)
    assert "key" not in made
    assert made["aws_secret_access_key"] == aws_secret(SECRET, made["aws_access_key_id"])
    again = await api.good("POST", f"/admin/v1/keys/{made['id']}/rotate", {"overlap_seconds": 60})
    for each in (made, again):
        assert api.registry.table.directory.key(place(signer(each["aws_access_key_id"]))).id == made["id"]
    assert "aws_secret_access_key" not in await api.good("GET", f"/admin/v1/keys/{made['id']}")


# -- roles ---------------------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, str, object, dict[str, int]]] = [
    # what is asked, and what the admin token, acme's administrator, acme's reader, its plain key and another tenant's administrator get
    ("GET", "tenants", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 200}),
    ("POST", "tenants", {"name": "new"}, {"token": 201, "admin": 403, "read": 403, "plain": 403, "other": 403}),
    ("GET", "tenants/acme", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 404}),
    ("PATCH", "tenants/acme", {"limits": {"concurrent": 9}}, {"token": 200, "admin": 403, "read": 403, "plain": 403, "other": 404}),
    ("PATCH", "tenants/acme", {"budgets": []}, {"token": 200, "admin": 403, "read": 403, "plain": 403, "other": 404}),
    ("PATCH", "tenants/acme", {"each_key": {"limits": {"concurrent": 1}}}, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("GET", "tenants/acme/projects", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 404}),
    ("POST", "tenants/acme/projects", {"name": "p"}, {"token": 201, "admin": 201, "read": 403, "plain": 403, "other": 404}),
    ("PATCH", "tenants/acme/projects/search", {"enabled": True}, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("DELETE", "tenants/acme/projects/search", None, {"token": 204, "admin": 204, "read": 403, "plain": 403, "other": 404}),
    ("GET", "tenants/acme/users/bob", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 404}),
    ("POST", "tenants/acme/users", {"name": "u"}, {"token": 201, "admin": 201, "read": 403, "plain": 403, "other": 404}),
    ("PATCH", "tenants/acme/users/bob", {}, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("DELETE", "tenants/acme/users/bob", None, {"token": 204, "admin": 204, "read": 403, "plain": 403, "other": 404}),
    ("GET", "tenants/acme/secrets", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 404}),
    ("PUT", "tenants/acme/secrets/openai", {"key": "sk"}, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("GET", "keys", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 200}),
    ("GET", "keys?tenant=acme", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 200}),
    ("POST", "keys", {"name": "n", "tenant": "acme"}, {"token": 201, "admin": 201, "read": 403, "plain": 403, "other": 404}),
    ("POST", "keys", {"name": "n", "tenant": "acme", "scopes": ["admin"]}, {"token": 201, "admin": 201, "read": 403, "plain": 403, "other": 404}),
    ("GET", "keys/{victim}", None, {"token": 200, "admin": 200, "read": 200, "plain": 403, "other": 404}),
    ("PATCH", "keys/{victim}", {"name": "v2"}, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("POST", "keys/{victim}/rotate", None, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("POST", "keys/{victim}/revoke", None, {"token": 200, "admin": 200, "read": 403, "plain": 403, "other": 404}),
    ("DELETE", "keys/{victim}", None, {"token": 204, "admin": 204, "read": 403, "plain": 403, "other": 404}),
    ("DELETE", "tenants/acme?cascade=true", None, {"token": 204, "admin": 403, "read": 403, "plain": 403, "other": 403}),
]


@pytest.mark.parametrize(("method", "path", "body", "statuses"), ROUTES, ids=[f"{each[0]} {each[1]} {each[2] or ''}" for each in ROUTES])
async def test_role_by_route(acme: Api, method: str, path: str, body: object, statuses: dict[str, int]) -> None:
    await acme.good("POST", "/admin/v1/tenants", {"name": "other"})
    await acme.good("POST", "/admin/v1/tenants/acme/projects", {"name": "search"})
    await acme.good("POST", "/admin/v1/tenants/acme/users", {"name": "bob"})
    scopes = {"admin": ("acme", ["admin"]), "read": ("acme", ["read"]), "plain": ("acme", ["inference"]), "other": ("other", ["admin", "read"])}
    tokens = {role: (await acme.key(name=role, tenant=tenant, scopes=said))["key"] for role, (tenant, said) in scopes.items()}
    victim = (await acme.key(name="victim", tenant="acme"))["id"]
    where = "/admin/v1/" + path.replace("{victim}", victim)
    before = await acme.register.serial()
    refused = {role: (await acme.ask(method, where, body, tokens[role]))[0] for role in ("other", "plain", "read")}
    assert refused == {role: statuses[role] for role in refused}
    assert (await acme.ask(method, where, body, None))[0] == 401
    assert await acme.register.serial() == before  # whatever was refused changed nothing
    for role in ("admin", "token"):
        token = tokens.get(role, TOKEN)
        assert (await acme.ask(method, where, body, token))[0] == statuses[role], role
        if statuses[role] < 300 and method != "GET":
            assert await acme.register.serial() > before
            break  # what was made or deleted cannot be so again; the token's ways are in the other tests


async def test_nobody_sees_what_is_another_tenants(acme: Api) -> None:
    await acme.good("POST", "/admin/v1/tenants", {"name": "other"})
    mine = (await acme.key(name="mine", tenant="other", scopes=["admin"]))["key"]
    await acme.key(name="acmes", tenant="acme")
    assert [row["name"] for row in (await acme.good("GET", "/admin/v1/tenants", token=mine))["data"]] == ["other"]
    assert [row["name"] for row in (await acme.good("GET", "/admin/v1/keys", token=mine))["data"]] == ["mine"]
    assert (await acme.good("GET", "/admin/v1/keys?tenant=acme", token=mine))["data"] == []
    made = await acme.good("POST", "/admin/v1/keys", {"name": "n"}, token=mine)
    assert (made["tenant"], made["created_by"]) == ("other", "mine")
    assert error(await acme.ask("PATCH", f"/admin/v1/keys/{made['id']}", {"tenant": "acme", "project": "search"}, mine)) == (400, "invalid_request", "tenant")


async def test_an_administrator_of_the_file_has_its_tenant_too(api: Api) -> None:
    assert (await api.good("POST", "/admin/v1/keys", {"name": "n"}, token="sk-config-admin"))["tenant"] == "written"
    assert error(await api.ask("GET", "/admin/v1/tenants", None, "sk-config-01")) == (403, "insufficient_scope", None)


async def test_a_key_of_an_administrator_is_refused_like_any_other(acme: Api) -> None:
    made = await acme.key(tenant="acme", scopes=["admin"], ips=["10.0.0.0/8"])
    assert error(await acme.ask("GET", "/admin/v1/tenants", None, made["key"])) == (403, "address_not_allowed", None)
    acme.peer = "10.1.1.1"
    await acme.good("GET", "/admin/v1/tenants", token=made["key"])
    await acme.good("PATCH", f"/admin/v1/keys/{made['id']}", {"expires": "2020-01-01"})
    assert error(await acme.ask("GET", "/admin/v1/tenants", None, made["key"])) == (401, "expired_api_key", None)
    await acme.good("PATCH", f"/admin/v1/keys/{made['id']}", {"expires": None, "enabled": False})
    assert error(await acme.ask("GET", "/admin/v1/tenants", None, made["key"])) == (401, "revoked_api_key", None)
    await acme.good("PATCH", f"/admin/v1/keys/{made['id']}", {"enabled": True})
    await acme.good("PATCH", "/admin/v1/tenants/acme", {"enabled": False})
    assert error(await acme.ask("GET", "/admin/v1/tenants", None, made["key"])) == (403, "tenant_disabled", None)
    for wrong in ("sk-gw-wrong", "", TOKEN + "x"):
        assert error(await acme.ask("GET", "/admin/v1/tenants", None, wrong)) == (401, "unauthorized", None)


async def test_changes_are_said_with_who_made_them(acme: Api) -> None:
    key = await acme.key(tenant="acme", name="boss", scopes=["admin"])
    await acme.good("POST", "/admin/v1/tenants/acme/users", {"name": "bob"}, token=key["key"])
    said = [json.loads(line) for line in acme.said.getvalue().splitlines()]
    assert [(each["event"], each["by"]) for each in said if "by" in each] == [
        ("tenant created", "admin token"), ("key created", "admin token"), ("user created", "boss"),
    ]  # fmt: skip
