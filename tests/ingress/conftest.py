from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Upstreams, alias, provider, refused, running, server, snapshot
from llm_gateway.config.snapshot import Cors


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Upstreams]:
    started = Upstreams()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def gateway(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Providers: faulty (OpenAI shape), down. Alias `good` answers."""
    url = upstreams.faulty.url
    told = snapshot(
        tmp_path_factory.mktemp("gateway"),
        (provider("faulty", url, first_chunk=5.0), provider("down", refused())),
        aliases=(alias("good", "faulty/m"), alias("patient", "faulty/fault-status:503")),
        server=server(cors=Cors(origins=("https://app.example",))),
    )
    with running(told) as started:
        yield started
