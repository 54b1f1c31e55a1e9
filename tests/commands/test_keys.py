"""`llm-gateway keys`, where no gateway runs: all it can do, by the database alone."""

from __future__ import annotations

import sqlite3

import pytest

from llm_gateway.commands import grants, usage

GRANT = {
    "limits": {"requests_per_minute": 60, "models": {"gpt-4:o": {"concurrent": 2}}}, "models": ["gpt-4", "gpt-5"], "regions": ["eu"],
    "budgets": [{"usd": 10.0, "period": "day", "hard": True, "alerts": [0.8, 1.0]}, {"usd": 2.5, "period": "total", "hard": False, "alerts": [0.8, 1.0]}],
    "max_output_tokens": 100,
}  # fmt: skip
OPTIONS = (
    "--limit", "requests_per_minute=60", "--limit", "gpt-4:o:concurrent=2", "--budget", "10/day", "--budget", "2.5/total:soft",
    "--model", "gpt-4", "--model", "gpt-5", "--region", "eu", "--max-output-tokens", "100",
)  # fmt: skip


def test_a_key_is_made_with_all_that_may_be_said_of_it(shell) -> None:
    said = ("--user", "bob", "--ip", "10.0.0.0/8", "--scope", "read", "--scope", "admin", "--expires", "2030-01-01")
    made = shell.read("keys", "create", "ci", *said, *OPTIONS)
    assert {name: made[name] for name in GRANT} == GRANT
    assert (made["tenant"], made["user"], made["ips"], made["scopes"], made["expires"]) == (
        "default", "bob", ["10.0.0.0/8"], ["read", "admin"], "2030-01-01T00:00:00Z",
    )  # fmt: skip
    assert shell.read("keys", "show", made["id"]) == {name: value for name, value in made.items() if name != "key"}


def test_a_secret_is_printed_once(shell) -> None:
    text = shell("keys", "create", "ci")
    secret = text.partition("KEY=")[2].split()[0]
    assert text.startswith("# shown once:\nKEY=sk-gw-")
    key = text.partition("id ")[2].split()[0]
    assert secret not in shell("keys", "list") + shell("keys", "show", key) + shell("keys", "set", key, "--name", "x") + shell("keys", "revoke", key)
    made = shell("keys", "create", "boto", "--aws")
    assert "AWS_ACCESS_KEY_ID=AKGW" in made
    assert "AWS_SECRET_ACCESS_KEY=" in made


def test_keys_are_listed_by_what_is_asked(shell) -> None:
    first = shell.read("keys", "create", "a")["id"]
    shell("tenants", "create", "acme")
    shell("keys", "create", "b", "--tenant", "acme")
    shell("keys", "revoke", first)
    rows = shell("keys", "list").splitlines()
    assert rows[0].split() == ["ID", "NAME", "TENANT", "PROJECT", "USER", "SCOPES", "STATUS", "EXPIRES", "SOURCE"]
    assert len(rows) == 4
    assert [row["name"] for row in shell.read("keys", "list", "--tenant", "acme")] == ["b"]
    assert [row["name"] for row in shell.read("keys", "list", "--revoked")] == ["a"]
    assert {row["name"] for row in shell.read("keys", "list", "--enabled")} == {"cfg", "b"}


def test_a_key_changes_rotates_and_goes(shell) -> None:
    made = shell.read("keys", "create", "ci", *OPTIONS)
    changed = shell.read("keys", "set", made["id"], "--unset", "limits", "--unset", "models", "--disable", "--budget", "1/hour")
    assert ("limits" in changed, "models" in changed, changed["enabled"], len(changed["budgets"])) == (False, False, False, 1)
    rotated = shell.read("keys", "rotate", made["id"], "--overlap", "30m")
    assert (rotated["key"] != made["key"], len(rotated["overlaps"])) == (True, 1)
    shell("keys", "delete", made["id"])
    assert "no such record" in shell("keys", "show", made["id"], status=1)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("create", "x", "--tenant", "nobody"), 1, "tenant: there is no such tenant"),
        (("create", "x", "--limit", "requests=5"), 1, "limits.requests: unknown option"),
        (("create", "x", "--limit", "many"), 2, "is no limit"),
        (("create", "x", "--budget", "10"), 2, "is no budget"),
        (("create", "x", "--budget", "lots/day"), 1, "budgets[0].usd"),
        (("revoke", "cfg"), 1, "config.yaml defines it"),
    ],
)
def test_what_is_wrong_is_said_by_its_name(shell, words: tuple[str, ...], status: int, told: str) -> None:
    assert told in shell("keys", *words, status=status)


def test_a_change_without_a_gateway_is_in_the_audit_log(shell) -> None:
    made = shell.read("keys", "create", "ci")
    (log,) = (shell.file.parent / "data" / "audit").glob("*.jsonl")
    text = log.read_text()
    assert '"POST /admin/v1/keys"' in text
    assert made["id"] in text
    assert made["key"] not in text


def test_the_database_holds_no_secret(shell) -> None:
    made = shell.read("keys", "create", "ci")
    kept = "\n".join(sqlite3.connect(shell.file.parent / "data" / "gateway.db").iterdump())
    assert made["id"] in kept
    assert made["key"] not in kept


def test_a_request_of_a_key_is_explained_where_no_gateway_runs(shell):
    made = shell.read("keys", "create", "mine", "--model", "echo/a")
    for called in ("mine", made["id"]):
        assert "1. echo/a" in shell("explain", "echo/a", "--key", called)
        assert shell.read_refusal("echo/b", called)["code"] == "model_not_found"
    assert shell.read_refusal("echo/a", "nobody")["message"] == "There is no client key named 'nobody'."
    assert "1. echo/a" in shell("explain", "echo/a", "--key", "cfg")
    shell("keys", "create", "boto", "--aws")  # whose requests are signed; who only asks has nothing to sign
    assert "1. echo/a" in shell("explain", "echo/a", "--key", "boto")
    shell("keys", "create", "mine")
    assert "several are called 'mine'" in shell("explain", "echo/a", "--key", "mine", status=1)
    assert shell.read_refusal("echo/a", made["id"], "--offline")["param"] == "key", "by the configuration alone nobody knows it"


def test_what_tenants_call_things_moves_no_cursor_in_a_table() -> None:
    nasty = "m\x1b[2J\n\x9b1;1H"
    group = {"model": nasty, **dict.fromkeys(usage.FIGURES, 0), "cost_nano_usd": 0}
    shown = [grants.table([{"name": nasty, "scopes": [nasty]}], ("name", "scopes")), grants.lines({"name": nasty}), *usage.lines([group], None)]
    assert all(line.isprintable() for text in shown for line in text.split("\n"))
    assert [len(text.split("\n")) for text in shown] == [2, 1, 1, 1]
