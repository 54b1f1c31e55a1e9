"""`llm-gateway audit`: by the files alone, whether or not a gateway runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_gateway.telemetry.audit import Chain, Entry

SECRET = "a secret of the gateway"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three lines, written with a secret that the gateway made for itself."""
    made = tmp_path / "data"
    (made / "audit").mkdir(parents=True)
    (made / "secret").write_text(SECRET + "\n")
    chain = Chain(made / "audit", SECRET.encode())
    for number, tenant in enumerate(("acme", "blue", "acme")):
        chain.append([Entry(kind="change", ts=f"2026-11-0{number + 1}T00:00:00.000Z", gateway="g", actor="a", action=f"POST /{number}", tenant=tenant)])
    chain.close()
    return made


def test_it_holds_until_somebody_changes_it(shell, data: Path) -> None:
    assert shell("audit", "verify") == "3 lines hold; the last is number 3\n"
    (file,) = (data / "audit").glob("*.jsonl")
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join(rest))
    assert shell("audit", "verify") == "2 lines hold, from number 2 on: what was before is not here; the last is number 3\n"
    file.write_text(first.replace("acme", "blue") + "".join(rest))
    done = shell.run("audit", "verify")
    assert (done.exit_code, done.stdout.startswith("BROKEN at 2026-11.jsonl")) == (1, True)


def test_what_is_shown_can_be_narrowed(shell, data: Path) -> None:
    def shown(*words: str) -> list[str]:
        return [json.loads(line)["action"] for line in shell("audit", "show", *words).splitlines()]

    assert shown() == ["POST /0", "POST /1", "POST /2"]
    assert shown("--tenant", "acme") == ["POST /0", "POST /2"]
    assert shown("--since", "2026-11-02", "--until", "2026-11-03") == ["POST /1"]


def test_what_is_missing_is_said(shell, data: Path, tmp_path: Path) -> None:
    (data / "secret").unlink()
    assert "with a secret that is not here" in shell("audit", "verify", status=2)
    assert "there is no audit log in" in shell("audit", "show", "--data-dir", str(tmp_path), status=2)
