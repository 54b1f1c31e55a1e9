from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Scripted, Upstreams, alias, provider, refused, running, server, snapshot
from llm_gateway.config.snapshot import Cors


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Upstreams]:
    started = Upstreams()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def scripted() -> Scripted:
    """Set its `play` in the test."""
    return Scripted()


@pytest.fixture(scope="session")
def gateway(upstreams: Upstreams, scripted: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Providers: faulty and scripted (OpenAI shape), down. Alias `good` answers, `patient` retries."""
    url = upstreams.faulty.url
    told = snapshot(
        tmp_path_factory.mktemp("gateway"),
        (provider("faulty", url, first_chunk=5.0), provider("scripted", scripted.url, silence=30.0, timeout=30.0, max_retries=1), provider("down", refused())),
        aliases=(alias("good", "faulty/m"),),
        server=server(cors=Cors(origins=("https://app.example",))),
    )
    with running(told) as started:
        yield started
