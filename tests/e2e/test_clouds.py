"""The real gateway with providers of three clouds: credentials fetched by its operator, sent by its workers, renewed in time.

The clouds' token services are on loopback (tests/clouds.py), their models are the replay upstream.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clouds import Clouds, running
from e2e.conftest import KEY, Loop, free_port, wait_for
from processes import eventually
from replay.recordings import Recordings
from replay.server import ReplayUpstream
from replay.wire import Received

pytestmark = pytest.mark.slow

ASK = [{"role": "user", "content": "hi"}]
CONVERSE, CLAUDE, GEMINI, AZURE = "converse", "claude", "gemini", "azure"


class Running:
    """One gateway, its upstream, and the clouds that know it."""

    def __init__(self, place: Path, clouds: Clouds, upstream: ReplayUpstream, port: int, metrics_port: int) -> None:
        self.place, self.clouds, self.upstream = place, clouds, upstream
        self.port, self.metrics_port = port, metrics_port
        self.ids: dict[str, str] = {}

    def ask(self, model: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        status, body, headers = self.post("/v1/chat/completions", {"model": model, "messages": ASK, "max_tokens": 20})
        return status, json.loads(body), headers

    def post(self, path: str, value: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(value).encode())
        request.add_header("authorization", f"Bearer {KEY}")
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read(), dict(reply.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def seen(self, kind: str, provider: str) -> Received:
        """What the upstream got of a request that succeeded."""
        self.upstream.queue(self.ids[kind])
        status, body, _ = self.ask(f"{provider}/{self.ids[kind]}" if kind != CLAUDE else f"{provider}/claude-{self.ids[kind]}")
        if status != 200:
            self.upstream._queue.clear()
            raise AssertionError((status, body))
        return self.upstream.received[-1]

    def operator(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as reply:
            return reply.read().decode()

    def health(self) -> dict[str, Any]:
        return json.loads(self.operator("/health"))

    def metric(self, name: str) -> dict[str, float]:
        lines = [line for line in self.operator("/metrics").splitlines() if line.startswith(name + "{")]
        return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}

    def log(self) -> str:
        return (self.place / "gateway.log").read_text()

    def pids(self, child: str) -> list[int]:
        entries = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [int(each["child_pid"]) for each in entries if each.get("event") == "started" and each["child"] == child]


@pytest.fixture(scope="module")
def upstream(recordings: Recordings, loop_thread: Loop) -> Iterator[ReplayUpstream]:
    """One of our own: others' requests must not be among what it received."""
    made = ReplayUpstream(recordings)
    loop_thread.run(made.start())
    yield made
    loop_thread.run(made.stop())


@pytest.fixture
def gateway(upstream: ReplayUpstream, recordings: Recordings, tmp_path: Path) -> Iterator[Running]:
    with running() as clouds:
        clouds.broken = True
        found = Running(tmp_path, clouds, upstream, free_port(), free_port())
        for kind, provider, api in (
            (CONVERSE, "bedrock", "converse"), (CLAUDE, "vertex", "messages"), (GEMINI, "vertex", "generateContent"),
            (AZURE, "azure", "chat_completions"),
        ):  # fmt: skip
            found.ids[kind] = next(each.id for each in recordings.select(provider=provider, api=api, streaming=False) if each.status == 200)
        config = {
            "server": {"host": "127.0.0.1", "port": found.port, "metrics_port": found.metrics_port},
            "workers": 1,
            "data_dir": str(tmp_path / "data"),
            "providers": {
                "bedrock": {"base_url": upstream.url, "region": "eu-central-1"},
                "vertex": {"base_url": upstream.url, "region": "europe-west4", "credentials": clouds.service_account()},
                "azure": {"base_url": upstream.url, "entra": True},
                "echo": {},
            },
            "models": {"safe": {"targets": ["vertex/gemini-2.5-flash"], "fallbacks": ["echo/any"]}},
            "keys": [{"name": "e2e", "key": KEY}],
            "resilience": {"health": {"enabled": False}},  # what an upstream receives is what a test sent
        }  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AZURE_", "GOOGLE_", "IDENTITY_"))}
        with (tmp_path / "gateway.log").open("wb") as out:
            command = [str(Path(sys.executable).parent / "llm-gateway"), "serve", "--config", str(tmp_path / "config.json")]
            process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, env=kept | clouds.environ())
        try:
            wait_for(found.port, process, tmp_path / "gateway.log")
            yield found
        finally:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def authorization(request: Received) -> str:
    return request.header("authorization") or ""


def failing(gateway: Running) -> bool:
    counted = gateway.metric("llm_gateway_credentials_failures_total")
    return len(counted) == 3 and min(counted.values()) > 0


def check_signature_of_a_long_one(gateway: Running) -> None:
    """A body over 256 KiB, which is hashed in a thread: its signature, made again from what arrived."""
    gateway.upstream.queue(gateway.ids[CONVERSE])
    long = [{"role": "user", "content": "no play " * 50_000}]
    status, body, _ = gateway.post("/v1/chat/completions", {"model": f"bedrock/{gateway.ids[CONVERSE]}", "messages": long, "max_tokens": 20})
    assert status == 200, body
    got = gateway.upstream.received[-1]
    given = dict(part.partition("=")[::2] for part in authorization(got).partition(" ")[2].split(", "))
    key, date, region, service, end = given["Credential"].split("/")
    names = given["SignedHeaders"].split(";")
    lines = "".join(f"{name}:{got.header(name)}\n" for name in names)
    path = urllib.parse.quote(got.path, safe="/~-._")
    canonical = f"POST\n{path}\n\n{lines}\n{given['SignedHeaders']}\n{hashlib.sha256(got.body).hexdigest()}"
    scope = f"{date}/{region}/{service}/{end}"
    text = f"AWS4-HMAC-SHA256\n{got.header('x-amz-date')}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    step = f"AWS4secret-{int(key.removeprefix('ASIAFAKE'))}".encode()
    for part in (date, region, service, end):
        step = hmac.digest(step, part.encode(), "sha256")
    assert hmac.digest(step, text.encode(), "sha256").hex() == given["Signature"]


def test_from_nothing_to_credentials_and_on_to_the_next(gateway: Running) -> None:
    """One story, since each step needs the one before."""
    before = len(gateway.upstream.received)
    status, body, _ = gateway.ask("vertex/gemini-2.5-flash")
    assert (status, body["error"]["code"]) == (503, "no_credentials")
    assert gateway.ask("bedrock/amazon.nova-lite-v1:0")[0] == 503
    assert len(gateway.upstream.received) == before, "nothing left the gateway unauthenticated"
    status, _, headers = gateway.ask("safe")
    assert (status, headers["x-gateway-provider"]) == (200, "echo")

    eventually(lambda: failing(gateway), 20)
    health = gateway.health()
    assert health["status"] == "degraded"
    said = {each["name"]: each.get("credentials") for each in health["providers"]}
    assert said["echo"] is None
    assert all("no credentials" in said[name] for name in ("bedrock", "vertex", "azure"))
    assert "cloud credentials not fetched" in gateway.log()

    gateway.clouds.validity = 8.0
    gateway.clouds.broken = False
    signed = eventually(lambda: gateway.seen(CONVERSE, "bedrock"), 20)
    assert "/eu-central-1/bedrock/aws4_request" in authorization(signed)
    assert authorization(signed).startswith("AWS4-HMAC-SHA256 Credential=ASIAFAKE")
    assert signed.header("x-amz-security-token").startswith("session-")
    check_signature_of_a_long_one(gateway)
    google = eventually(lambda: gateway.seen(GEMINI, "vertex"), 20)
    assert authorization(google).startswith("Bearer google-")
    assert google.path == f"/v1/projects/a-project/locations/europe-west4/publishers/google/models/{gateway.ids[GEMINI]}:generateContent"
    claude = gateway.seen(CLAUDE, "vertex")
    assert claude.path.endswith(f"/publishers/anthropic/models/claude-{gateway.ids[CLAUDE]}:rawPredict")
    assert json.loads(claude.body)["anthropic_version"] == "vertex-2023-10-16"
    entra = eventually(lambda: gateway.seen(AZURE, "azure"), 20)
    assert authorization(entra).startswith("Bearer entra-")
    assert entra.header("api-key") is None

    eventually(lambda: gateway.health()["status"] == "healthy")
    assert set(gateway.metric("llm_gateway_credentials_expiry_seconds")) == {"bedrock", "vertex", "azure"}
    for kind, provider, before in ((CONVERSE, "bedrock", signed), (GEMINI, "vertex", google)):
        first = authorization(before).partition(",")[0]
        eventually(lambda k=kind, p=provider, f=first: not authorization(gateway.seen(k, p)).startswith(f), 15)
    for secret in ("google-1", "session-", "secret-", "entra-", "PRIVATE", "a-header-secret"):
        assert secret not in gateway.log()


def test_workers_keep_what_they_have_when_the_operator_dies(gateway: Running) -> None:
    gateway.clouds.broken = False
    google = eventually(lambda: gateway.seen(GEMINI, "vertex"), 20)
    eventually(lambda: gateway.seen(CONVERSE, "bedrock"), 20)
    (first,) = gateway.pids("operator")
    gateway.clouds.broken = True  # so that the next operator has nothing to say
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(gateway.pids("operator")) == 2)
    eventually(lambda: failing(gateway), 20)
    assert authorization(gateway.seen(GEMINI, "vertex")) == authorization(google)
    assert "Credential=ASIAFAKE" in authorization(gateway.seen(CONVERSE, "bedrock"))
    gateway.clouds.broken = False
    eventually(lambda: authorization(gateway.seen(GEMINI, "vertex")) != authorization(google), 20)


def test_another_identity_after_a_reload_does_not_send_the_old_credentials(gateway: Running) -> None:
    gateway.clouds.broken = False
    google = eventually(lambda: gateway.seen(GEMINI, "vertex"), 20)
    gateway.clouds.broken = True
    config = json.loads((gateway.place / "config.json").read_text())
    config["providers"]["vertex"]["credentials"] = gateway.clouds.service_account()
    config["providers"]["vertex"]["region"] = "europe-west1"
    (gateway.place / "config.json").write_text(json.dumps(config))
    eventually(lambda: gateway.ask("vertex/gemini-2.5-flash")[0] == 503, 10)
    gateway.clouds.broken = False
    after = eventually(lambda: gateway.seen(GEMINI, "vertex"), 30)
    assert "/locations/europe-west1/" in after.path
    assert authorization(after) != authorization(google)


def test_the_token_service_saw_our_own_assertion(gateway: Running) -> None:
    gateway.clouds.broken = False
    eventually(lambda: gateway.seen(GEMINI, "vertex"), 20)
    asked = next(asked for path, asked in gateway.clouds.asked if path == "/google")
    claims = asked["assertion"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"].startswith("gateway@a-project")


def test_vertex_streams_counts_and_embeds(gateway: Running, recordings: Recordings) -> None:
    gateway.clouds.broken = False
    eventually(lambda: gateway.seen(GEMINI, "vertex"), 20)

    def queued(api: str, verb: str) -> None:
        rows = recordings.select(provider="vertex", api=api)
        gateway.upstream.queue(next(each.id for each in rows if each.status == 200 and each.url_path.endswith(verb) and each.row["body_kind"] != "json-array"))

    queued("messages", ":streamRawPredict")
    status, body, _ = gateway.post("/v1/chat/completions", {"model": "vertex/claude-haiku-4-5@20251001", "messages": ASK, "stream": True, "max_tokens": 9})
    assert (status, body.rstrip().endswith(b"data: [DONE]")) == (200, True)
    assert gateway.upstream.received[-1].path.endswith("/publishers/anthropic/models/claude-haiku-4-5@20251001:streamRawPredict")

    queued("streamGenerateContent", ":streamGenerateContent")
    status, body, _ = gateway.post("/v1/messages", {"model": "vertex/gemini-2.5-flash", "messages": ASK, "stream": True, "max_tokens": 9})
    assert (status, b"event: message_stop" in body) == (200, True)
    assert gateway.upstream.received[-1].path.endswith("/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse")

    queued("count_tokens", ":countTokens")
    status, body, _ = gateway.post("/v1/messages/count_tokens", {"model": "vertex/gemini-2.5-flash", "messages": ASK})
    assert (status, json.loads(body)["input_tokens"] > 0) == (200, True)
    sent = gateway.upstream.received[-1]
    assert sent.path.endswith("/models/gemini-2.5-flash:countTokens")
    assert "contents" in json.loads(sent.body), "Vertex wants at the top what AI Studio wants wrapped"

    queued("embeddings", ":embedContent")
    status, body, _ = gateway.post("/v1/embeddings", {"model": "vertex/gemini-embedding-2", "input": "hi"})
    assert status == 200, body
    assert len(json.loads(body)["data"][0]["embedding"]) > 100
    assert gateway.upstream.received[-1].path.endswith("/models/gemini-embedding-2:embedContent")
