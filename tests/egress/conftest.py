from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Scripted, Upstreams, alias, provider, refused, running, server, snapshot


@pytest.fixture(scope="session")
def upstreams() -> Iterator[Upstreams]:
    started = Upstreams()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture(scope="session")
def gateway(upstreams: Upstreams, scripted: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`then-good/<fault>`: as the alias says, the fault first, a good provider after it. Retries happen only at `again`."""
    url = upstreams.faulty.url
    told = snapshot(
        tmp_path_factory.mktemp("egress"),
        (
            provider("faulty", url, timeout=1.0),
            provider("again", url, max_retries=2),
            provider("scripted", scripted.url),
            provider("claude", scripted.url, type="anthropic"),
            provider("down", refused()),
        ),
        aliases=(
            *(alias(f"then-good/{fault}", f"faulty/fault-{fault}", "again/good") for fault in FAILING),
            alias("all-down", "down/a", "down/b", "down/c"),
            alias("connect", "down/a", "again/good"),
            alias("short", "faulty/fault-stall_after_head", "again/good", first_chunk=0.3),
            alias("brief", "faulty/fault-stall", timeout=0.6),
        ),
        server=server(timeout=4.0, send_timeout=5.0),
        heartbeat=0.4,
    )
    with running(told) as started:
        yield started


FAILING = (
    "reset_at_once", "close_at_once", "stall", "stall_after_head", "status:500", "status:502", "status:503", "status:529", "status:401",
    "status:403", "status:402", "status:429,retry-after=30", "status:429,retry-after=-5", "status:429,retry-after=nan", "status:408", "status:404",
    "status:503,retry-after=1e400", "status:503,retry-after=Wed, 21 Oct 2099 07:28:00 GMT", "html", "truncated_json", "short_body",
    "gzip_bomb", "bad_framing", "error_in_200", "role_only_then_cut",
)  # fmt: skip
