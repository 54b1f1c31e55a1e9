"""What is said of a configuration and of who runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_gateway.config.present import plainly_built


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
