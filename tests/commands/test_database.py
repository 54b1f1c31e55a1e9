"""`llm-gateway db`."""

from __future__ import annotations

import sqlite3

from llm_gateway.stores.sql.tables import REVISION


def test_an_empty_database_is_brought_up_to_date_once(shell):
    shell("db", "status", status=1)
    assert shell("db", "upgrade") == f"done: {', '.join(f'{number:03}' for number in range(1, int(REVISION) + 1))}\n"
    assert shell("db", "upgrade") == "nothing to do\n"
    assert shell("db", "status") == f"at {REVISION}; this gateway knows {REVISION}; pending: nothing\n"


def test_one_that_a_newer_gateway_has_been_at_is_left_alone(shell, tmp_path):
    shell("db", "upgrade")
    connection = sqlite3.connect(tmp_path / "data" / "gateway.db")
    connection.execute("UPDATE schema_version SET version_num = 'later'")
    connection.commit()
    assert "newer than this gateway" in shell("db", "status")
    assert shell("db", "upgrade") == "nothing to do\n"


def test_a_database_that_is_not_there_is_said(shell, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hidden@127.0.0.1:9/x")
    monkeypatch.setenv("LLM_GATEWAY_SECRET", "s" * 32)
    said = shell("db", "status", status=1)
    assert "does not answer" in said
    assert "hidden" not in said
