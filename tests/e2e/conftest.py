"""The real `llm-gateway serve`, in front of recorded traffic and of an upstream that breaks, for the official SDKs to talk to.

Law: no part of the gateway is imported here. Recordings are chosen by model name: `openai/<interaction id>` reaches the
replay upstream as model `<interaction id>`, which answers with that interaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as genai_types

from replay.faulty import FaultyUpstream
from replay.recordings import Recordings, folder, load
from replay.server import ReplayUpstream
from replay.studio import Studio

KEY = "sk-e2e-0123456789"
AWS_KEY = "AKGWE2ETESTS22222222"
OTHER_KEY = "sk-e2e-another-tenant"
FEW_KEY = "sk-e2e-few-tokens-a-minute"
HARD_KEY = "sk-e2e-hard-budget-0123"


class Loop:
    """A loop in a thread of its own, so that synchronous SDKs can block while upstreams answer."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


@dataclass
class Gateway:
    url: str
    log: Path
    data: Path


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    if not (folder() / "manifest.jsonl").exists():
        pytest.skip("no recorded traffic beside the checkout")
    return load()


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture(scope="session")
def replay(recordings: Recordings, loop_thread: Loop) -> Iterator[ReplayUpstream]:
    upstream = ReplayUpstream(recordings, cut="random:7")
    loop_thread.run(upstream.start())
    yield upstream
    loop_thread.run(upstream.stop())


@pytest.fixture(scope="session")
def broken(loop_thread: Loop) -> Iterator[FaultyUpstream]:
    upstream = FaultyUpstream()
    loop_thread.run(upstream.start())
    yield upstream
    loop_thread.run(upstream.stop())


@pytest.fixture(scope="session")
def studio(loop_thread: Loop) -> Iterator[Studio]:
    upstream = Studio()
    loop_thread.run(upstream.start())
    yield upstream
    loop_thread.run(upstream.stop())


@pytest.fixture(scope="session")
def gateway(
    replay: ReplayUpstream, broken: FaultyUpstream, studio: Studio, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    place = tmp_path_factory.mktemp("gateway")
    port, metrics_port = free_port(), free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "metrics_port": metrics_port},
        "workers": 1,
        "data_dir": str(place / "data"),
        "resilience": {"health": {"enabled": False}},  # what an upstream receives is what a test sent
        "providers": {
            "openai": {"base_url": replay.url, "api_key": "sk-upstream-openai"},
            "anthropic": {"base_url": replay.url, "api_key": "sk-upstream-anthropic"},
            "gemini": {"base_url": replay.url, "api_key": "sk-upstream-gemini"},
            "native": {"type": "gemini", "base_url": replay.url, "api_key": "sk-upstream-gemini"},
            "ollama": {"base_url": replay.url},
            "bedrock": {"base_url": replay.url, "api_key": "bedrock-upstream-key"},
            "compat": {"type": "openai_compatible", "base_url": replay.url},
            "echo": {},
            "ranker": {"type": "openai_compatible", "base_url": studio.url},
            "studio": {"type": "openai", "base_url": studio.url, "api_key": "sk-upstream-studio"},
            "broken": {"type": "openai_compatible", "base_url": broken.url, "api_key": "sk-upstream-broken", "max_retries": 0},
        },
        "models": {
            "second-best": {"targets": ["broken/fault-status:503"], "fallbacks": ["broken/fine"]},
            "error-first": {"targets": ["broken/fault-error_in_200"], "fallbacks": ["broken/fine"]},
        },
        "keys": [
            {"name": "e2e", "key": KEY, "tenant": "default"}, {"name": "other", "key": OTHER_KEY, "tenant": "other"},
            {"name": "boto", "aws": AWS_KEY}, {"name": "few", "key": FEW_KEY, "limits": {"tokens_per_minute": 20_000}},
            {"name": "hard", "key": HARD_KEY, "limits": {"tokens_per_minute": 200}, "budgets": [{"usd": 1, "period": "total"}]},
        ],
    }
    with running(place, config) as started:
        yield started


@pytest.fixture
def openai_client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def async_openai(gateway: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def anthropic_client(gateway: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def async_anthropic(gateway: Gateway) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20)


@pytest.fixture
def gemini_client(gateway: Gateway) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=genai_types.HttpOptions(base_url=gateway.url, timeout=20_000))


@contextlib.contextmanager
def running(place: Path, config: dict[str, Any]) -> Iterator[Gateway]:
    """`llm-gateway serve` with that configuration, until the block is left."""
    port = config["server"]["port"]
    (place / "config.json").write_text(json.dumps(config))  # JSON is YAML
    log = place / "gateway.log"
    command = [os.environ.get("LLM_GATEWAY", str(Path(sys.executable).parent / "llm-gateway")), "serve", "--config", str(place / "config.json")]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=place, stdout=out, stderr=out)
    try:
        wait_for(port, process, log)
        yield Gateway(f"http://127.0.0.1:{port}", log, place / "data")
    finally:
        process.terminate()
        process.send_signal(2)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"the gateway does not listen: {log.read_text()}")
