"""A table wired as the worker wires it, from a configuration file's text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_gateway import wiring
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.models.catalogue import Catalogue, load_catalogue
from llm_gateway.routing.table import Table
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream.pool import Pool

BOTH = """
providers:
  openai: {base_url: "https://api.openai.com", api_key: sk-o}
  anthropic: {base_url: "https://api.anthropic.com", api_key: sk-a}
"""


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture
def snapshot(tmp_path: Path, catalogue: Catalogue) -> Callable[[str], Snapshot]:
    def made(text: str = BOTH) -> Snapshot:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        loaded = load(str(path), {})
        return compile_snapshot(loaded, {}, imagined(loaded.root), catalogue.resolve, 1).snapshot

    return made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def table(snapshot: Callable[[str], Snapshot], catalogue: Catalogue, metrics: Metrics) -> Callable[..., Table]:
    def made(text: str = BOTH) -> Table:
        return wiring.table(snapshot(text), catalogue, metrics, Pool(memoryview(bytearray(1024))))

    return made
