"""Providers' Python SDKs, LiteLLM, LangChain and pydantic-ai as clients, each in the shapes it speaks, OpenAI's and Anthropic's recordings behind."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from clients import sdks
from clients.adapters import NAMES, PNG, Gateway, clients
from clients.picked import PROVIDERS, named, structured, usual
from e2e.conftest import AWS_KEY, KEY
from e2e.conftest import Gateway as Running
from e2e.recorded import openai_content
from replay.recordings import Recordings
from replay.server import ReplayUpstream

OVERLOADED = {503, 529, 500}  # OpenAI's word, Anthropic's, and what LiteLLM makes of Anthropic's


SDKS: dict[str, Callable[[Gateway], Any]] = {
    "openai": sdks.OpenAI, "openai-responses": sdks.Responses, "anthropic": sdks.Anthropic, "google-genai": sdks.Google, "ollama": sdks.Ollama,
}  # fmt: skip


@pytest.fixture(scope="module", params=(*SDKS, "boto3", *NAMES))
def client(request: pytest.FixtureRequest, gateway: Running) -> Any:
    where = Gateway(gateway.url, KEY)
    if request.param == "boto3":
        secret = (gateway.data / "secret").read_text().strip().encode()
        signing = b64encode(hmac.digest(secret, b"aws\0" + AWS_KEY.encode(), "sha256")).decode()[:40]  # as `keys new --aws` makes it
        return sdks.Boto(where, AWS_KEY, signing)
    return SDKS[request.param](where) if request.param in SDKS else clients(where)[request.param]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_text(client: Any, recordings: Recordings, provider: str) -> None:
    each = usual(recordings, provider, streaming=False, tools=False)
    assert client.say(named(provider, each)) == PROVIDERS[provider][1](each)[0]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_stream(client: Any, recordings: Recordings, provider: str) -> None:
    each = usual(recordings, provider, streaming=True, tools=False)
    assert client.stream(named(provider, each)) == PROVIDERS[provider][1](each)[0]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_tools(client: Any, recordings: Recordings, provider: str) -> None:
    each = usual(recordings, provider, streaming=False, tools=True)
    wanted = [(name, json.loads(arguments) if isinstance(arguments, str) else arguments) for name, arguments in PROVIDERS[provider][1](each)[1]]
    assert client.call(named(provider, each)) == wanted


def test_structured_output(client: Any, recordings: Recordings, replay: ReplayUpstream) -> None:
    each = structured(recordings)
    assert client.shape(named("openai", each)) == json.loads(openai_content(each)[0])
    sent = replay.received[-1].json()
    assert "city" in json.dumps(sent.get("response_format") or sent["tools"])  # LiteLLM asks Anthropic by a tool


def test_a_schema_reaches_anthropic(client: Any, recordings: Recordings, replay: ReplayUpstream) -> None:
    """No plain recording of Anthropic's holds JSON, so the answer does not parse; what was asked for is seen upstream."""
    each = usual(recordings, "anthropic", streaming=False, tools=False)
    with pytest.raises(Exception, match=r"(?i)json|pars|expecting|valid"):
        client.shape(named("anthropic", each))
    sent = replay.received[-1].json()
    assert "city" in json.dumps(sent.get("output_config") or sent["tools"])


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_picture_arrives(client: Any, recordings: Recordings, replay: ReplayUpstream, provider: str) -> None:
    each = usual(recordings, provider, streaming=False, tools=False)
    assert client.see(named(provider, each))
    content = json.dumps(replay.received[-1].json()["messages"])
    assert base64_of(PNG) in content


def test_an_error_has_its_status(client: Any) -> None:
    with pytest.raises(Exception) as caught:
        client.say("broken/fault-status:503")
    assert client.status(caught.value) in OVERLOADED
    with pytest.raises(Exception) as caught:
        client.say("nobody/knows-this-model")
    assert client.status(caught.value) == 404


def base64_of(data: bytes) -> str:
    return b64encode(data).decode()
