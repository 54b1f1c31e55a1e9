"""Reading the configuration again: what takes effect, what stays until a restart, and what ends nothing."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_gateway import operator
from llm_gateway.admin.notices import Notices
from llm_gateway.admin.reload import Outcome, Reloader, Watch, watched_at
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import prepare
from llm_gateway.config.snapshot import Operator, Snapshot
from llm_gateway.config.tenancy import key_digest
from llm_gateway.models.catalogue import load_catalogue

KEY = "sk-of-the-file-0123"


class Running:
    """A gateway that was started with that file, as far as this is concerned."""

    def __init__(self, folder: Path, text: str) -> None:
        self.config = folder / "config.yaml"
        self.text = f"data_dir: {folder / 'data'}\nkeys: [{{name: a, key: {KEY}}}]\n"
        self.write(text)
        loaded = load(str(self.config), {})
        material = prepare(loaded.root, loaded.root.data_dir)
        compiled = compile_snapshot(loaded, {}, material, load_catalogue().resolve, 1)
        state = Operator(str(self.config), material.admin_token, 0.0, compiled.webhooks, compiled.database, loaded.files, watched_at(loaded.root))
        self.told: list[Outcome] = []
        self.published: list[Snapshot] = []
        self.publish: Callable[[Snapshot], object] = self.published.append
        self.reloader = Reloader(
            compiled.snapshot, state, environ={}, lookup=load_catalogue().resolve, publish=lambda snapshot, _: self.publish(snapshot) and None,
            notices=Notices(io.StringIO(), "json", "info"), told=lambda _, outcome: self.told.append(outcome),
        )  # fmt: skip

    def write(self, text: str) -> None:
        self.config.write_text(self.text + text)

    def reload(self, text: str) -> Outcome:
        self.write(text)
        return self.reloader.reload("test")

    @property
    def snapshot(self) -> Snapshot:
        return self.reloader.snapshot


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], Running]:
    return lambda text="": Running(tmp_path, text)


def test_keys_of_the_file_work_on_when_the_secret_changes(run) -> None:
    """It is in force after a restart; until then workers look keys up by the one before."""
    running = run()
    before = running.snapshot.secret
    outcome = running.reload("secret: another-secret-of-the-file\nheartbeat: {interval: 7}\n")
    assert (outcome.changed, outcome.warnings[0]) == (True, "secret: changed, in force after a restart")
    assert running.snapshot.secret == before
    assert [each.digest for each in running.snapshot.keys] == [key_digest(before, KEY)]


def test_an_open_gateway_is_none_before_it_listens_on_loopback_alone(run) -> None:
    running = run("server: {host: 0.0.0.0}\n")
    for _ in range(2):
        outcome = running.reload("server: {host: 127.0.0.1}\nauth: {required: false}\n")
        assert running.snapshot.auth_required
        assert any(each.startswith("auth.required") for each in outcome.warnings), outcome
    there = run("server: {host: 127.0.0.1}\n")
    there.reload("server: {host: 127.0.0.1}\nauth: {required: false}\n")
    assert not there.snapshot.auth_required


def test_the_operators_own_address_is_named_too(run) -> None:
    running = run("server: {metrics_port: 9191}\n")
    for said in ("metrics_port: 9292", "metrics_port: 9191, metrics_host: 127.0.0.1"):
        outcome = running.reload(f"server: {{{said}}}\nheartbeat: {{interval: {len(said)}}}\n")
        assert outcome.warnings[0] == "server.metrics_host, server.metrics_port: changed, in force after a restart"
    assert not any("metrics" in each for each in running.reload("server: {metrics_port: 9191}\n").warnings)


def test_what_providers_allow_is_divided_by_the_workers_that_run(run) -> None:
    text = "state: per_worker\nproviders: {o: {type: openai, api_key: k, rate_limit: {requests_per_minute: 1200}}}\n"
    running = run(text + "workers: 4\n")
    assert running.snapshot.providers[0].rate_limit.requests == 300
    running.reload(text + "workers: 2\n")
    assert (running.snapshot.workers, running.snapshot.providers[0].rate_limit.requests) == (4, 300)


def test_a_file_that_is_saved_again_while_it_is_read_is_read_again(run) -> None:
    """Reading takes tenths of a second."""
    running = run()
    watch = Watch(running.reloader)
    saved = ["heartbeat: {interval: 8}\n"]
    running.publish = lambda _: running.write(saved.pop()) if saved else None
    running.write("heartbeat: {interval: 7}\n")
    for _ in range(5):
        watch.look()
    assert running.snapshot.heartbeat == 8


def test_a_file_that_the_file_names_is_watched_from_the_start(run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-before")
    running = run(f"providers: {{o: {{type: openai, api_key: 'file:{tmp_path}/key'}}}}\n")
    watch = Watch(running.reloader)
    (tmp_path / "key").write_text("sk-after")
    for _ in range(3):
        watch.look()
    assert running.snapshot.providers[0].keys[0].value == "sk-after"


def test_what_changed_while_nobody_looked_is_noticed(run) -> None:
    """Between the start's own reading and the operator's first look, or while the operator was dead."""
    running = run()
    running.write("heartbeat: {interval: 7}\n")
    watch = Watch(running.reloader)
    for _ in range(3):
        watch.look()
    assert (running.snapshot.heartbeat, len(running.told)) == (7, 1)


def test_a_broken_file_is_told_once(run) -> None:
    running = run()
    watch = Watch(running.reloader)
    running.write("heartbeat: [\n")
    for _ in range(5):
        watch.look()
    assert [bool(outcome.errors) for outcome in running.told] == [True]
    running.write("")
    for _ in range(3):
        watch.look()
    assert len(running.told) == 1


def test_whatever_is_wrong_with_a_file_it_changes_nothing_and_counts(run) -> None:
    running = run()
    assert "larger than any" in running.reload("server: {max_connections: 100000000000000000000000}\n").errors[0]
    running = run()

    def broken(_: str) -> None:
        raise RuntimeError("sk-secret")

    running.reloader._lookup = broken
    outcome = running.reload("models: {m: {targets: [echo/x], fallbacks: [gpt-4o]}}\n")
    assert "RuntimeError" in outcome.errors[0]
    assert "sk-secret" not in outcome.errors[0]
    assert (outcome.changed, len(outcome.errors), running.reloader.failures) == (False, 1, 1)
    assert (running.told, running.snapshot.generation) == ([outcome], 1)
    assert running.reload("heartbeat: {interval: 7}\n").changed


async def test_a_beat_that_fails_is_not_the_operators_last() -> None:
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        raise RuntimeError

    clock = asyncio.create_task(operator._each(0.001, beat))
    async with asyncio.timeout(2):
        while len(beats) < 3 and not clock.done():
            await asyncio.sleep(0.001)
    clock.cancel()
    assert len(beats) >= 3
