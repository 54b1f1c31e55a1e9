"""`llm-gateway serve` as a person starts it: the real worker, the real operator.

Starting one takes two seconds of CPU, so tests that leave it as it is share `calm`. What tests/supervisor/test_parent.py and tests/admin
prove with lighter children is `make slow`'s here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import alive, eventually

COMMAND = str(Path(sys.executable).with_name("llm-gateway"))
ENVIRON = {
    name: value
    for name, value in os.environ.items()
    if not re.search(r"_API_KEY$|^LLM_GATEWAY|_PORT$|_HOST$|_URL$", name)
}
HELLO = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hello"}]}


class Gateway:
    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self.folder = folder
        self.port, self.metrics_port = _free_port(), _free_port()
        own = {
            "SERVER_PORT": str(self.port),
            "METRICS_PORT": str(self.metrics_port),
            "LLM_GATEWAY__DRAIN__LAME_DUCK": "0.2",
        }
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [COMMAND, "serve", *arguments], cwd=folder, stdout=out, stderr=err, env=ENVIRON | own | environ
            )

    def wait_ready(self) -> Gateway:
        eventually(lambda: "/v1/chat/completions" in self.banner(), 30)
        return self

    def banner(self) -> str:
        return "\n".join(line for line in (self.folder / "out").read_text().splitlines() if not line.startswith("{"))

    def children(self, name: str) -> list[int]:
        lines = [json.loads(line) for line in (self.folder / "err").read_text().splitlines() if line.startswith("{")]
        return [line["child_pid"] for line in lines if line["event"] == "started" and line["child"] == name]

    def key(self) -> str:
        return (self.folder / "data" / "dev.key").read_text().strip()

    def ask(self, path: str, body: object = None, key: str | None = None, port: int | None = None) -> tuple[int, dict]:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.port}{path}", data=data)
        request.add_header("content-type", "application/json")
        request.add_header("authorization", f"Bearer {key or self.key()}")
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def chat(self, **options: str) -> tuple[int, dict]:
        return self.ask("/v1/chat/completions", HELLO, **options)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(*arguments: str, **environ: str) -> Gateway:
        folder = tmp_path / f"run{len(started)}"
        folder.mkdir()
        started.append(Gateway(folder, *arguments, **environ))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One as it starts where nothing is configured."""
    running = Gateway(tmp_path_factory.mktemp("plain"))
    yield running.wait_ready()
    running.stop()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One without a configuration, and with secrets of its own, for tests that leave it as it is."""
    running = Gateway(tmp_path_factory.mktemp("calm"), TOGETHER_API_KEY="sk-very-secret", LLM_GATEWAY_SECRET="pepper-0123456789abcdef")
    yield running.wait_ready()
    running.stop()


def test_the_printed_curl_line_works_when_pasted(plain):
    banner = plain.banner()
    assert plain.key() in banner
    assert f"http://localhost:{plain.metrics_port}/metrics" in banner
    (line,) = [line for line in banner.splitlines() if line.strip().startswith("curl ")]
    done = subprocess.run(
        ["sh", "-c", line.replace("curl ", "curl -s --noproxy '*' ", 1)], capture_output=True, check=False
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other malloc is asked for anything")
def test_a_large_body_is_not_faulted_in_anew_each_time(plain):
    """Half of what a request of 1 MB took was the kernel's, page by page (750 of them)."""
    worker = Path(f"/proc/{plain.children('worker 0')[-1]}/stat")
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "x" * 1_000_000}]}

    def faults() -> int:
        return int(worker.read_text().rpartition(")")[2].split()[7])

    for _ in range(3):
        assert plain.ask("/v1/chat/completions", body)[0] == 200
    before = faults()
    for _ in range(10):
        plain.ask("/v1/chat/completions", body)
    each = (faults() - before) / 10
    assert each < 300


def test_a_killed_worker_is_back_and_the_operator_counts_it(plain):
    assert plain.chat()[0] == 200
    eventually(lambda: plain.ask("/health", port=plain.metrics_port)[1]["status"] == "healthy")
    os.kill(plain.children("worker 0")[0], signal.SIGKILL)
    assert eventually(lambda: plain.chat()[0]) == 200
    page = f"http://127.0.0.1:{plain.metrics_port}/metrics"
    eventually(lambda: "llm_gateway_worker_restarts_total 1" in urllib.request.urlopen(page).read().decode())


def test_the_development_key_is_kept(plain, gateway):
    """The last of those that share `plain`, which it ends."""
    key = plain.key()
    plain.process.send_signal(signal.SIGINT)
    assert plain.process.wait(8) == 0
    second = gateway(LLM_GATEWAY__DATA_DIR=str(plain.folder / "data")).wait_ready()
    assert key in second.banner()
    assert second.chat(key=key)[0] == 200


def test_without_the_key_nothing_is_answered(calm):
    assert calm.chat(key="sk-wrong-key")[0] == 401


def test_no_secret_is_in_a_path_an_argument_or_the_log(calm):
    shown = (calm.folder / "err").read_text()
    for pid in (calm.process.pid, *calm.children("worker 0"), *calm.children("operator")):
        cmdline = Path(f"/proc/{pid}/cmdline")
        shown += cmdline.read_text() if cmdline.exists() else ""
    assert "sk-very-secret" not in shown
    assert "pepper-" not in shown
    assert calm.key() not in shown


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are looked up in /proc")
def test_a_worker_holds_no_descriptor_of_the_operators(calm):
    for child, files in (("worker 0", 1), ("operator", 2)):  # the snapshot; the operator also its own state
        held = [str(entry.readlink()) for entry in Path(f"/proc/{calm.children(child)[0]}/fd").iterdir()]
        assert len([name for name in held if "llm-gateway-boot" in name]) == files, held


def test_metrics_of_all_workers_are_one_page(gateway):
    running = gateway(LLM_GATEWAY__WORKERS="2").wait_ready()
    for _ in range(6):
        assert running.chat()[0] == 200
    page = f"http://127.0.0.1:{running.metrics_port}/metrics"

    def total() -> float:
        text = urllib.request.urlopen(page).read().decode()
        lines = [line for line in text.splitlines() if line.startswith("llm_provider_requests_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    eventually(lambda: total() == 6)


@pytest.mark.slow
def test_a_reload_changes_what_clients_may_call(gateway, tmp_path):
    config = tmp_path / "c.yaml"
    text = "providers: {echo: {}}\nkeys: [{name: a, key: sk-first-key}]\n"
    config.write_text(text)
    running = gateway("--config", str(config)).wait_ready()
    assert running.ask("/v1/models", key="sk-second-key")[0] == 401
    config.write_text(text.replace("sk-first-key", "sk-second-key"))
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: running.ask("/v1/models", key="sk-second-key")[0] == 200)
    assert running.ask("/v1/models", key="sk-first-key")[0] == 401


def test_a_broken_configuration_is_refused_with_every_problem(gateway, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("serverr: {}\nworkers: x\nkeys: [{name: a}]\n")
    running = gateway("--config", str(config))
    assert running.process.wait(10) == 2
    shown = (running.folder / "err").read_text()
    assert "serverr: unknown option (did you mean `server`?)" in shown
    assert "3 problems in the configuration" in shown
    assert not (running.folder / "data").exists()


@pytest.mark.slow
def test_health_of_the_api_says_that_redis_is_away_also_after_a_restart(gateway):
    running = gateway(REDIS_URL="redis://127.0.0.1:1").wait_ready()

    def degraded() -> bool:
        status, body = running.ask("/health")
        return (status, body["status"], body["dependencies"]["redis"]) == (200, "degraded", False)

    eventually(degraded)
    os.kill(running.children("worker 0")[0], signal.SIGKILL)
    eventually(lambda: len(running.children("worker 0")) == 2)
    eventually(degraded)


@pytest.mark.slow
def test_health_of_every_worker_says_what_probes_found(gateway, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as upstream:  # takes connections and says nothing
        config = tmp_path / "c.yaml"
        where = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        config.write_text(
            f"workers: 2\nproviders: {{lab: {{type: vllm, base_url: '{where}'}}, echo: {{}}}}\nkeys: [{{name: a, key: sk-first-key}}]\n"
            "resilience: {health: {interval: 0.1, timeout: 0.1, fall: 2}}\n"
        )
        running = gateway("--config", str(config)).wait_ready()

        def found() -> dict[str, bool]:
            return {each["name"]: each["healthy"] for each in running.ask("/health", key="x")[1]["providers"]}

        for _ in range(8):  # a new connection each time, so that both workers are asked
            eventually(lambda: found() == {"lab": False, "echo": True})
        config.write_text(config.read_text() + "heartbeat: {interval: 20}\n")
        running.process.send_signal(signal.SIGHUP)
        page = f"http://127.0.0.1:{running.metrics_port}/metrics"
        eventually(lambda: "llm_gateway_config_generation 2" in urllib.request.urlopen(page).read().decode())
        for _ in range(8):
            assert found() == {"lab": False, "echo": True}, "a reload forgets nothing"


def test_a_second_gateway_on_the_same_port_is_refused(calm, gateway):
    second = gateway(SERVER_PORT=str(calm.port))
    assert second.process.wait(10) == 1
    assert (
        "another process listens there; change it with server.port (SERVER_PORT)" in (second.folder / "err").read_text()
    )


@pytest.mark.slow
def test_sigterm_drains_and_nothing_is_left(gateway):
    running = gateway().wait_ready()
    children = [*running.children("worker 0"), *running.children("operator")]
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(8) == 0
    assert not [pid for pid in children if alive(pid)]


@pytest.mark.slow
def test_sigterm_to_all_processes_at_once_is_a_drain_too(gateway):
    """As systemd stops a service: whoever is of it gets the signal, not the first process alone."""
    running = gateway(LLM_GATEWAY__DRAIN__LAME_DUCK="2").wait_ready()
    eventually(lambda: running.ask("/health", key="x", port=running.metrics_port)[0] == 200)
    for pid in (running.process.pid, *(running.children(name)[-1] for name in ("worker 0", "operator", "helper"))):
        os.kill(pid, signal.SIGTERM)
    time.sleep(1)
    assert running.ask("/health", key="x", port=running.metrics_port)[1]["providers"], "the operator is there while workers drain"
    assert running.process.wait(8) == 0


@pytest.mark.slow
def test_sighup_to_all_processes_at_once_is_a_reload(gateway):
    """`systemctl kill -s HUP` and `pkill -HUP -f` reach the children too."""
    running = gateway().wait_ready()
    eventually(lambda: running.ask("/health", key="x", port=running.metrics_port)[0] == 200)
    children = [running.children(name)[-1] for name in ("worker 0", "operator", "helper")]
    for pid in (running.process.pid, *children):
        os.kill(pid, signal.SIGHUP)
    time.sleep(1)
    assert [pid for pid in children if not alive(pid)] == []
    assert running.chat()[0] == 200


@pytest.mark.slow
def test_children_leave_when_the_supervisor_is_killed(gateway):
    running = gateway().wait_ready()
    children = [*running.children("worker 0"), *running.children("operator")]
    running.process.kill()
    running.process.wait(5)
    eventually(lambda: not [pid for pid in children if alive(pid)])


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
