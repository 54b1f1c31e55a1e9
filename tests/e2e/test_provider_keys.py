"""A tenant of config.yaml brings its own key at a provider, while the gateway runs: in every worker, in other replicas, over reloads and restarts."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Loop, free_port, running
from e2e.test_keys import ASK, TOKEN, Keyed
from llm_gateway.worker import PATIENCE_AT_FIRST
from postgres import Postgres
from processes import eventually
from replay.faulty import FaultyUpstream, refused_port

pytestmark = pytest.mark.slow
CLIENT, OURS, OWN = "sk-client-0123456", "sk-gateways", "sk-writtens-own"
PATH = "tenants/written/secrets/up"


class Trusted(Keyed):
    """upstream: that hears whose key is used."""

    upstream: FaultyUpstream

    def used(self) -> set[str | None]:
        """The keys that requests of the tenant went out with, of connections enough to have met every worker."""
        before = len(self.upstream.received)
        for _ in range(12):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            connection.request("POST", "/v1/chat/completions", json.dumps({"model": "up/m", "messages": ASK}), {"authorization": f"Bearer {CLIENT}"})
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            connection.close()
        return {each.header("authorization") for each in self.upstream.received[before:]}

    def within(self, key: str, seconds: float = 2.0) -> None:
        begun = time.monotonic()
        eventually(lambda: self.used() == {f"Bearer {key}"}, seconds)
        assert time.monotonic() - begun < seconds + 1  # and what twelve requests take


def configured(place: Path, upstream: FaultyUpstream, **more: Any) -> dict[str, Any]:
    up = {"type": "openai_compatible", "base_url": upstream.url, "api_key": OURS, "health": {"enabled": False}}
    return {
        "server": {"host": "127.0.0.1", "port": free_port(), "metrics_port": free_port()}, "workers": 2, "state": "per_worker",
        "data_dir": str(place / "data"), "providers": {"up": up}, "tenants": {"written": {"limits": {"concurrent": 50}}},
        "keys": [{"name": "cfg", "key": CLIENT, "tenant": "written"}], "admin": {"token": TOKEN}, "logging": {"access": False}, **more,
    }  # fmt: skip


def started(stack: ExitStack, place: Path, config: dict[str, Any], upstream: FaultyUpstream) -> Trusted:
    place.mkdir(exist_ok=True)
    made = Trusted(stack.enter_context(running(place, config)), config["server"]["metrics_port"])
    made.upstream = upstream
    eventually(lambda: made.admin("GET", "keys")[0] == 200, 20)
    return made


@pytest.fixture
def upstream(loop_thread: Loop) -> Iterator[FaultyUpstream]:
    made = FaultyUpstream()
    loop_thread.run(made.start())
    yield made
    loop_thread.run(made.stop())


def test_it_is_used_by_every_worker_until_it_is_taken_back(upstream: FaultyUpstream, tmp_path: Path) -> None:
    config = configured(tmp_path, upstream)
    with ExitStack() as stack:
        gateway = started(stack, tmp_path, config, upstream)
        assert gateway.used() == {f"Bearer {OURS}"}
        assert gateway.admin("PUT", PATH, {"key": OWN}) == (200, {"provider": "up"})
        gateway.within(OWN)
        (tmp_path / "config.json").write_text(json.dumps(config | {"tenants": {}}))  # its key names it still
        assert gateway.admin("POST", "reload")[0] == 200
        gateway.within(OURS)
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert gateway.admin("POST", "reload")[0] == 200
        gateway.within(OWN)
        assert gateway.admin("DELETE", PATH)[0] == 204
        gateway.within(OURS)
        gateway.admin("PUT", PATH, {"key": OWN})
        lines = [json.loads(line) for file in (tmp_path / "data" / "audit").glob("*.jsonl") for line in file.read_text().splitlines()]
        told = [(line["action"], line["tenant"], line["status"]) for line in lines if PATH in line["action"]]
        assert told == [(f"{method} /admin/v1/{PATH}", "written", status) for method, status in (("PUT", 200), ("DELETE", 204), ("PUT", 200))]
    with ExitStack() as stack:
        assert started(stack, tmp_path, config, upstream).used() == {f"Bearer {OWN}"}
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert OWN.encode() not in written


def test_another_replica_on_the_same_database_uses_it_within_two_seconds(upstream: FaultyUpstream, tmp_path: Path, postgres: Postgres) -> None:
    shared = {"database": {"url": postgres.database()}, "secret": "a secret of both gateways", "tenants": {"written": {}}}
    with ExitStack() as stack:
        places = [tmp_path / name for name in ("one", "two")]
        one, two = (started(stack, place, configured(place, upstream, **shared), upstream) for place in places)
        one.admin("PUT", PATH, {"key": OWN})
        two.within(OWN)
        assert two.admin("DELETE", PATH)[0] == 204
        one.within(OURS)


def test_a_replica_with_an_empty_disk_uses_it_from_its_first_request_on(upstream: FaultyUpstream, tmp_path: Path, postgres: Postgres) -> None:
    """Its workers know nothing but the file, and nobody's first request goes out with the gateway's key."""
    shared = {"database": {"url": postgres.database()}, "secret": "a secret of both gateways"}
    with ExitStack() as stack:
        one = started(stack, tmp_path / "one", configured(tmp_path / "one", upstream, **shared), upstream)
        one.admin("PUT", PATH, {"key": OWN})
        place = tmp_path / "two"
        place.mkdir()
        config = configured(place, upstream, **shared)
        two = Trusted(stack.enter_context(running(place, config)), config["server"]["metrics_port"])
        two.upstream = upstream
        assert two.used() == {f"Bearer {OWN}"}


def test_while_nobody_can_say_whether_there_are_any_the_gateways_own_serve(upstream: FaultyUpstream, tmp_path: Path) -> None:
    """The database is away and the disk is empty: tenants are served, and not after the time that a worker would wait for word."""
    url = f"postgresql://nobody:none@127.0.0.1:{refused_port()}/none"
    config = configured(tmp_path, upstream, database={"url": url}, secret="a secret of the gateway")
    with ExitStack() as stack:
        begun = time.monotonic()
        gateway = Trusted(stack.enter_context(running(tmp_path, config)), config["server"]["metrics_port"])
        gateway.upstream = upstream
        assert gateway.used() == {f"Bearer {OURS}"}
        assert time.monotonic() - begun < PATIENCE_AT_FIRST
