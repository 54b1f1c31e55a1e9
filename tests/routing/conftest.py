"""A table wired as the worker wires it, from a configuration file's text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_gateway import wiring
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.config.snapshot import Snapshot
from llm_gateway.core.exchange import Exchange, Pin, Route
from llm_gateway.formats.contract import Peek
from llm_gateway.models.catalogue import Catalogue, load_catalogue
from llm_gateway.routing.table import Table
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.upstream import pool
from llm_gateway.upstream.pool import Pool

CONTEXT = cache(pool.tls_context)  # reading the system's certificates takes 20 ms for each provider of each table, and nobody is connected to here
BOTH = """
providers:
  openai: {base_url: "https://api.openai.com", api_key: sk-o}
  anthropic: {base_url: "https://api.anthropic.com", api_key: sk-a}
"""


class Nobody:
    """A client that a reply could go to; nothing is ever sent here."""

    alive, paused, sink = True, False, None


def asked(model: str, operation: str = "chat", *, pin: Pin | None = None, body: dict[str, Any] | None = None, **more: Any) -> Exchange:
    """A request as admission hands it to routing. body: fields of an OpenAI chat request beside the model."""
    raw = msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "Hello"}], **(body or {})})
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    peek = Peek(members, model, max_tokens=(body or {}).get("max_tokens"))
    route = Route(operation, "openai_chat", "/v1/chat/completions", body=True)
    return Exchange(id="x", client=Nobody(), route=route, model=model, pin=pin, peek=peek, body=raw, wall=1_764_000_000.0, **more)


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
def table(
    snapshot: Callable[[str], Snapshot], catalogue: Catalogue, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Table]:
    monkeypatch.setattr(pool, "tls_context", CONTEXT)

    def made(text: str = BOTH, fetched: dict[str, str] | None = None) -> Table:
        return wiring.table(snapshot(text), catalogue, metrics, Pool(memoryview(bytearray(1024))), fetched)

    return made
