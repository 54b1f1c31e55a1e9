"""What is said of a configuration and of who runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_gateway.config.load import load
from llm_gateway.config.present import plainly_built, report


@pytest.mark.parametrize(
    ("configure", "prefix", "plain"),
    [
        ("'--prefix=/opt/pyenv/versions/3.11.7' '--enable-shared'", "/opt/pyenv/versions/3.11.7", True),
        ("'--prefix=/opt/pyenv/versions/3.13.1' '--enable-optimizations' '--with-lto'", "/opt/pyenv/versions/3.13.1", False),
        ("'--prefix=/usr' '--enable-shared' 'LDFLAGS=-g -fwrapv -O2'", "/usr", False),
        (None, "C:\\\\Python311", False),
        ("", "/opt/python", False),
    ],
)
def test_a_python_that_was_compiled_plainly_is_known(configure: str | None, prefix: str, plain: bool) -> None:
    assert plainly_built(configure, prefix) is plain


def test_condas_is_not(tmp_path: Path) -> None:
    assert plainly_built("'--prefix=x'", str(tmp_path))
    (tmp_path / "conda-meta").mkdir()
    assert not plainly_built("'--prefix=x'", str(tmp_path))


def test_a_report_of_what_is_valid_holds_no_secret(compile_text) -> None:
    """It stands in the logs of whoever checks before he deploys."""
    text = """
    providers:
      lab: {type: vllm, base_url: "http://user:pass-word-1@lab:81/v1", api_key: pass-word-2, headers: {x: pass-word-3}, proxy: "http://u:pass-word-4@p"}
      azure: {base_url: "https://x", entra: {tenant_id: t, client_id: c, client_secret: pass-word-5}}
    """
    made = compile_text(text)
    said = report("config.yaml", load("config.yaml", {}), made.snapshot, made.warnings)
    assert "lab:81/v1" in said
    assert "pass-word" not in said
