from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from llm_gateway.commands import audit, database, keys, orders, tenants, usage, written
from llm_gateway.commands.explain import explain
from llm_gateway.commands.journal import journal

CONFIG = {"server": {"host": "127.0.0.1", "metrics_port": 1}, "tenants": {"written": {}}, "keys": [{"name": "cfg", "key": "sk-config-0123456"}]}


class Shell:
    """`llm-gateway`, in this process, where no gateway runs: nobody listens on port 1."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.json"
        self.file.write_text(json.dumps({**CONFIG, "data_dir": str(folder / "data")}))
        self.app = typer.Typer()
        group = typer.Typer()
        keys.add_to(group)
        group.command("hash")(written.hash_key)
        self.app.add_typer(group, name="keys")
        self.app.add_typer(tenants.app(), name="tenants")
        self.app.add_typer(audit.app(), name="audit")
        self.app.add_typer(usage.app(), name="usage")
        self.app.add_typer(database.app(), name="db")
        self.app.command()(explain)
        self.app.command()(journal)
        self.app.command()(orders.reload)

    def __call__(self, *words: str, status: int = 0, typed: str | None = None) -> str:
        """What it prints; where it fails, what it says of that."""
        done = self.run(*words, typed=typed)
        assert done.exit_code == status, done.output
        return done.stdout if status == 0 else done.stderr

    def run(self, *words: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(self.app, [*words, "--config", str(self.file)], input=typed)

    def read(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))

    def read_refusal(self, model: str, key: str, *words: str) -> Any:
        """Why that key's request would go nowhere."""
        done = CliRunner().invoke(self.app, ["explain", model, "--key", key, "--json", *words, "--config", str(self.file)])
        assert done.exit_code == 1, done.output
        return json.loads(done.stdout)["refusal"]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path)
