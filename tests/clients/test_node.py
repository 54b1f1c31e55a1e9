"""The official Node SDKs and Vercel's AI SDK against the gateway, with OpenAI's and Anthropic's recordings behind it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clients.picked import PROVIDERS, named, structured, usual
from e2e.conftest import KEY, Gateway
from replay.recordings import Recordings
from replay.server import ReplayUpstream

NODE = Path(__file__).parent / "node"
CLIENTS = ("openai", "openai-responses", "anthropic", "vercel-openai", "vercel-responses", "vercel-anthropic")

pytestmark = [
    pytest.mark.skipif(not (NODE / "node_modules").is_dir(), reason="no node_modules: `make clients` installs them"),
    pytest.mark.parametrize("client", CLIENTS),
]


def ask(gateway: Gateway, client: str, op: str, model: str) -> dict[str, Any]:
    asked = json.dumps({"client": client, "op": op, "model": model, "url": gateway.url, "key": KEY})
    done = subprocess.run(["node", str(NODE / "ask.mjs"), asked], capture_output=True, text=True, timeout=30, check=True, cwd=NODE)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("provider", PROVIDERS)
def test_text_stream_and_tools(gateway: Gateway, recordings: Recordings, client: str, provider: str) -> None:
    content = PROVIDERS[provider][1]
    for op, streaming in (("say", False), ("stream", True)):
        each = usual(recordings, provider, streaming=streaming, tools=False)
        assert ask(gateway, client, op, named(provider, each)) == {"value": content(each)[0]}, op
    each = usual(recordings, provider, streaming=False, tools=True)
    assert ask(gateway, client, "call", named(provider, each)) == {"value": [list(call) for call in content(each)[1]]}


def test_structured_output_and_a_picture(gateway: Gateway, recordings: Recordings, replay: ReplayUpstream, client: str) -> None:
    each = structured(recordings)
    assert ask(gateway, client, "shape", named("openai", each)) == {"value": json.loads(PROVIDERS["openai"][1](each)[0])}
    assert "city" in json.dumps(replay.received[-1].json())
    each = usual(recordings, "anthropic", streaming=False, tools=False)
    assert "value" in ask(gateway, client, "see", named("anthropic", each))
    assert "iVBORw0KGgo" in json.dumps(replay.received[-1].json()["messages"])


def test_errors_have_their_status(gateway: Gateway, client: str) -> None:
    assert ask(gateway, client, "say", "broken/fault-status:503")["status"] in {503, 529}
    assert ask(gateway, client, "say", "nobody/knows-this-model")["status"] == 404
