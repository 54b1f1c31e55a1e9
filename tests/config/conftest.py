from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_gateway.config.compile import Compiled, compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.config.problems import ConfigError
from llm_gateway.models.catalogue import Catalogue, load_catalogue

Compile = Callable[..., Compiled]


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture
def compile_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue) -> Compile:
    """Compiles YAML text under an environment of exactly these variables."""
    monkeypatch.chdir(tmp_path)

    def compile_(text: str | None = None, **environ: str) -> Compiled:
        path = None
        if text is not None:
            path = "config.yaml"
            Path(path).write_text(text)
        loaded = load(path, environ)
        return compile_snapshot(loaded, environ, imagined(loaded.root), catalogue.resolve, 1)

    return compile_


@pytest.fixture
def problems_of(compile_text: Compile) -> Callable[..., list[str]]:
    """What is said about a broken configuration, one line each."""

    def problems(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            compile_text(text, **environ)
        return [str(problem) for problem in raised.value.problems]

    return problems
