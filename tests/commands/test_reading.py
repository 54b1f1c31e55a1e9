"""A configuration that is wrong ends a command that goes by it, and is no reason not to ask the gateway that runs."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("words", [("audit", "verify"), ("journal",), ("db", "status"), ("keys", "hash"), ("keys", "list"), ("explain", "gpt-4")])
def test_all_that_is_wrong_with_it_is_said(shell, words: tuple[str, ...]) -> None:
    shell.file.write_text('{"sevrer": {}, "data_dir": "elsewhere", "keys": 7}')
    said = shell(*words, status=2)
    assert "did you mean `server`?" in said
    assert "keys: expected a list" in said
    assert said.endswith("2 problems in the configuration\n")
    assert not (shell.file.parent / "elsewhere").exists()
