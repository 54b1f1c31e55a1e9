"""Rows added up, and the command that prints them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_gateway.accounting.summary import Summary
from llm_gateway.commands.journal import _moment
from typed import typed

COMMAND = Path(sys.executable).with_name("llm-gateway")


def row(model: str = "gpt-4o", ago: timedelta = timedelta(), **fields: object) -> dict[str, object]:
    stamp = f"{datetime.now(UTC) - ago:%Y-%m-%dT%H:%M:%S}.000Z"
    return {"ts": stamp, "provider": "openai", "upstream_model": model, "input": 10, "output": 5} | fields


def test_money_and_tokens_by_model_the_dearest_first() -> None:
    summary = Summary()
    for each in (row(cost=1_000_000), row("gpt-5", cost=2_500_000_000), row(cost=1), row("other"), row(outcome="timeout", cost=0)):
        summary.add(each)
    summary.add({"ts": "x", "model": "nonsense", "outcome": "model_not_found"})
    lines = [line.split() for line in summary.lines()]
    assert lines == [
        ["model", "requests", "failed", "input", "output", "USD", "unpriced"],
        ["openai/gpt-5", "1", "0", "10", "5", "2.500000", "0"],
        ["openai/gpt-4o", "3", "1", "30", "15", "0.001000", "0"],
        ["-/nonsense", "1", "1", "0", "0", "0.000000", "0"],
        ["openai/other", "1", "0", "10", "5", "0.000000", "1"],
        ["total", "6", "2", "50", "25", "2.501000", "1"],
    ]


def test_nothing_adds_up_to_nothing() -> None:
    assert list(Summary().lines())[-1].split() == ["total", "0", "0", "0", "0", "0.000000", "0"]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000Z"),
        ("2026-01-31T12:00Z", "2026-01-31T12:00:00.000Z"),
        ("2026-01-31T12:00:00.25+02:00", "2026-01-31T10:00:00.250Z"),
    ],
)
def test_times_are_written_as_rows_write_them(text: str, moment: str) -> None:
    assert _moment(text) == moment


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return typed("journal", "--data-dir", str(folder), *arguments, folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    rows = [row(ago=timedelta(days=2)), row(ago=timedelta(minutes=5), cost=7_000_000), row("gpt-5", cost=1)]
    text = "".join(json.dumps(each) + "\n" for each in rows) + '{"torn'
    (tmp_path / "journal" / "1-0-1-0.jsonl").write_text(text)
    return tmp_path


def test_rows_go_to_stdout_the_sum_to_stderr(folder: Path) -> None:
    done = run(folder)
    assert [json.loads(line)["upstream_model"] for line in done.stdout.splitlines()] == ["gpt-4o", "gpt-4o", "gpt-5"]
    assert done.stderr.splitlines()[-1].split() == ["total", "3", "0", "30", "15", "0.007000", "1"]


@pytest.mark.parametrize(("since", "count"), [("1h", 1 + 1), ("60s", 1), ("30d", 3), ("2020-01-01", 3), ("2999-01-01", 0)])
def test_since(folder: Path, since: str, count: int) -> None:
    assert len(run(folder, "--since", since).stdout.splitlines()) == count


def test_it_is_a_program(folder: Path) -> None:
    command = [COMMAND, "journal", "--data-dir", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20, cwd=folder)
    said = run(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, said.stdout, said.stderr)


def test_the_sum_alone(folder: Path) -> None:
    done = run(folder, "--summary")
    assert done.stdout.splitlines()[0].startswith("model")
    assert done.stderr == ""


def test_no_time_is_explained(folder: Path) -> None:
    done = run(folder, "--since", "yesterday")
    assert done.returncode == 2
    assert "24h" in done.stderr


def test_a_damaged_journal_is_said_with_its_place(folder: Path) -> None:
    (folder / "journal" / "0.jsonl").write_text("{}x\n")
    done = run(folder)
    assert done.returncode == 1
    assert "0.jsonl:1" in done.stderr


def test_a_new_key_is_an_entry_that_loads(folder: Path) -> None:
    made = typed("keys", "new", "team a", folder=folder)
    (folder / "config.yaml").write_text(made.stdout)
    done = typed("check", "config.yaml", folder=folder)
    assert done.returncode == 0, done.stderr
    again = typed("keys", "new", "team a", folder=folder)
    assert (made.returncode, again.returncode) == (0, 0)
    assert made.stdout != again.stdout
