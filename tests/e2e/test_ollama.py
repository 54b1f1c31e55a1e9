"""Ollama's own client against the gateway: its recorded replies, everyone else's, lists, refusals."""

from __future__ import annotations

import json

import ollama
import openai
import pytest

from e2e.conftest import KEY, Gateway
from e2e.recorded import anthropic_content, chosen
from replay.recordings import Interaction, Recordings

ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> ollama.Client:
    return ollama.Client(host=gateway.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=20)


def recorded(recordings: Recordings, api: str, *, streaming: bool) -> list[Interaction]:
    found = [each for provider in ("ollama", "ollama-cloud") for each in recordings.select(provider=provider, api=api, streaming=streaming)]
    return [each for each in found if each.status == 200]


def test_recorded_chats_arrive(client: ollama.Client, recordings: Recordings) -> None:
    for each in recorded(recordings, "ollama_chat", streaming=False):
        got = client.chat(model=f"ollama/{each.id}", messages=ASK)
        wanted = json.loads(each.body)
        assert got.message.content == wanted["message"]["content"], each.id
        assert got.eval_count == wanted.get("eval_count")
        assert len(got.message.tool_calls or ()) == len(wanted["message"].get("tool_calls") or ())


def test_recorded_chat_streams_arrive(client: ollama.Client, recordings: Recordings) -> None:
    for each in recorded(recordings, "ollama_chat", streaming=True):
        wanted = [json.loads(line) for line in each.body.splitlines() if line.strip()]
        got = list(client.chat(model=f"ollama/{each.id}", messages=ASK, stream=True))
        assert "".join(part.message.content or "" for part in got) == "".join(line["message"].get("content") or "" for line in wanted), each.id
        assert got[-1].done
        assert got[-1].done_reason == wanted[-1].get("done_reason")


def test_recorded_generations_arrive(client: ollama.Client, recordings: Recordings) -> None:
    for each in recorded(recordings, "ollama_generate", streaming=True):
        wanted = [json.loads(line) for line in each.body.splitlines() if line.strip()]
        got = list(client.generate(model=f"ollama/{each.id}", prompt="hi", stream=True))
        assert "".join(part.response for part in got) == "".join(line["response"] for line in wanted)


def test_others_answer_in_ollamas_shape(client: ollama.Client, recordings: Recordings) -> None:
    each = next(each for each in chosen(recordings, "anthropic", "messages", streaming=True) if b"text_delta" in each.body)
    got = list(client.chat(model=f"anthropic/{each.id}", messages=ASK, stream=True))
    assert "".join(part.message.content or "" for part in got) == anthropic_content(each)[0]
    assert (got[-1].done, got[-1].done_reason) == (True, "stop")
    assert client.generate(model="broken/fine", prompt="hi").response == "hello"


def test_ollama_answers_in_others_shapes(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    each = next(each for each in recorded(recordings, "ollama_chat", streaming=False) if json.loads(each.body)["message"]["content"])
    reply = openai_client.responses.create(model=f"ollama/{each.id}", input="hi")
    assert reply.output_text == json.loads(each.body)["message"]["content"]


def test_models_are_listed_and_shown(client: ollama.Client, gateway: Gateway) -> None:
    names = {model.model for model in client.list().models}
    assert {"second-best", "anthropic/claude-sonnet-4-5"} <= names
    shown = client.show("openai/gpt-4o")
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert client.ps().models == []
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("nobody/knows")
    assert caught.value.status_code == 404


def test_refusals_are_ollamas_own(client: ollama.Client, gateway: Gateway) -> None:
    with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
        client.chat(model="nobody/knows", messages=ASK)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as caught:
        ollama.Client(host=gateway.url, headers={"Authorization": "Bearer wrong"}).chat(model="broken/fine", messages=ASK)
    assert caught.value.status_code == 401
    with pytest.raises(ollama.ResponseError):
        list(client.chat(model="broken/fault-cut_midstream", messages=ASK, stream=True))
