"""`llm-gateway tenants`, where no gateway runs."""

from __future__ import annotations

import sqlite3

from llm_gateway.admission.directory import KEYS, Directory


def test_a_tenants_life(shell) -> None:
    made = shell.read("tenants", "create", "acme", "--limit", "concurrent=5", "--budget", "10/day")
    assert (made["limits"], made["budgets"][0]["usd"]) == ({"concurrent": 5}, 10.0)
    assert shell.read("tenants", "show", "acme") == made
    assert shell.read("tenants", "set", "acme", "--disable", "--unset", "budgets", "--limit", "requests_per_day=1") == {
        **{name: value for name, value in made.items() if name != "budgets"}, "enabled": False, "limits": {"concurrent": 5, "requests_per_day": 1},
    }  # fmt: skip
    assert [row.split()[0] for row in shell("tenants", "list").splitlines()] == ["NAME", "acme", "written"]
    shell("tenants", "delete", "acme")
    assert "no such record" in shell("tenants", "show", "acme", status=1)


def test_its_projects_and_users(shell) -> None:
    shell("tenants", "create", "acme")
    for option, listing in (("--project", ()), ("--user", ("--users",))):
        shell("tenants", "create", "acme", option, "one", "--model", "gpt-4")
        assert shell.read("tenants", "set", "acme", option, "one", "--region", "eu")["models"] == ["gpt-4"]
        assert shell.read("tenants", "show", "acme", option, "one")["regions"] == ["eu"]
        assert [row["name"] for row in shell.read("tenants", "list", "acme", *listing)] == ["one"]
        shell("keys", "create", "k", "--tenant", "acme", option, "one")
        assert "keys belong to it" in shell("tenants", "delete", "acme", option, "one", status=1)
        shell("tenants", "delete", "acme", option, "one", "--cascade")
        assert shell.read("tenants", "list", "acme", *listing) == []
    assert "not both" in shell("tenants", "show", "acme", "--user", "a", "--project", "b", status=2)


def test_its_own_key_at_a_provider_is_read_and_never_shown(shell) -> None:
    shell("tenants", "create", "acme")
    shell("tenants", "secret", "acme", "echo", typed="sk-acmes-own\n")
    assert shell.read("tenants", "show", "acme")["secrets"] == ["echo"]
    assert "sk-acmes-own" not in "\n".join(sqlite3.connect(shell.file.parent / "data" / "gateway.db").iterdump())
    shell("tenants", "secret", "acme", "echo", "--remove")
    assert shell.read("tenants", "show", "acme")["secrets"] == []


def test_what_the_file_defines_is_changed_there(shell) -> None:
    assert "config.yaml defines it" in shell("tenants", "set", "written", "--disable", status=1)


def test_a_tenant_of_the_file_has_keys_of_its_own_too(shell) -> None:
    shell("tenants", "secret", "written", "echo", typed="sk-writtens-own\n")
    assert shell.read("tenants", "show", "written")["secrets"] == ["echo"]
    assert shell.read("tenants", "secret", "written") == [{"provider": "echo", "source": "api", "used": True}]
    assert [row.split() for row in shell("tenants", "secret", "written").splitlines()] == [["PROVIDER", "SOURCE", "USED"], ["echo", "api", "true"]]
    data = shell.file.parent / "data"
    assert "sk-writtens-own" not in "\n".join(sqlite3.connect(data / "gateway.db").iterdump())
    directory = Directory()  # as workers of the next start read it, before the database was asked
    assert directory.open(data / KEYS, confirmed=False) == ""
    assert directory.secrets("written").keys() == {"echo"}
    assert "say of which" in shell("tenants", "secret", "written", "--remove", status=2)
    shell("tenants", "secret", "written", "echo", "--remove")
    assert shell.read("tenants", "secret", "written") == []
