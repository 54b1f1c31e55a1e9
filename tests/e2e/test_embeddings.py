"""Embeddings with the official clients through the real gateway: recorded replies in their own shape and in others'."""

from __future__ import annotations

import json
from collections.abc import Callable

import ollama
import openai
import pytest
from google import genai

from e2e.conftest import KEY, Gateway
from replay.recordings import Interaction, Recordings


def recorded(recordings: Recordings, provider: str, holding: bytes) -> Interaction:
    found = [each for api in ("embeddings", "ollama_embed") for each in recordings.select(provider=provider, api=api) if each.status == 200]
    return next(each for each in found if holding in each.body)


def alike(got: list[list[float]], wanted: list[list[float]]) -> bool:
    """Float32 on the way is what OpenAI's client asks for."""
    return [len(each) for each in got] == [len(each) for each in wanted] and all(
        abs(one - other) < 1e-6 for ours, theirs in zip(got, wanted, strict=True) for one, other in zip(ours, theirs, strict=True)
    )


@pytest.fixture
def vectors(openai_client: openai.OpenAI) -> Callable[..., list[list[float]]]:
    def embed(model: str, given: object = ("one",), **more: object) -> list[list[float]]:
        return [each.embedding for each in openai_client.embeddings.create(model=model, input=list(given), **more).data]

    return embed


def test_recorded_replies_arrive(openai_client: openai.OpenAI, recordings: Recordings) -> None:
    asked = 0
    for each in recordings.select(provider="openai", api="embeddings"):
        if each.status != 200 or not each.request:
            continue
        form = each.request.get("encoding_format")
        got = openai_client.embeddings.create(model=f"openai/{each.id}", input="hi", encoding_format=form or "float")
        wanted = json.loads(each.body)
        assert len(got.data) == len(wanted["data"])
        assert got.usage.prompt_tokens == wanted["usage"]["prompt_tokens"]
        asked += 1
    assert asked >= 4


@pytest.mark.parametrize("form", ["float", "base64"])
def test_gemini_answers_an_openai_client(vectors: Callable[..., list[list[float]]], recordings: Recordings, form: str) -> None:
    each = recorded(recordings, "gemini", b'"embeddings"')
    wanted = [entry["values"] for entry in json.loads(each.body)["embeddings"]]
    got = vectors(f"native/{each.id}", ["x"] * len(wanted), encoding_format=form)
    if form == "base64":
        return  # the SDK hands out the text
    assert alike(got, wanted)


def test_ollama_answers_googles_client_and_gemini_an_ollama_client(gemini_client: genai.Client, recordings: Recordings, gateway: Gateway) -> None:
    each = recorded(recordings, "ollama", b'"embeddings"')
    wanted = json.loads(each.body)["embeddings"]
    got = gemini_client.models.embed_content(model=f"ollama/{each.id}", contents=["x"] * len(wanted))
    assert alike([list(one.values or ()) for one in got.embeddings or ()], wanted)
    client = ollama.Client(host=gateway.url, headers={"Authorization": f"Bearer {KEY}"})
    assert alike(client.embed(model=f"ollama/{each.id}", input="x").embeddings, wanted)
    gemini = recorded(recordings, "gemini", b'"embeddings"')
    values = [entry["values"] for entry in json.loads(gemini.body)["embeddings"]]
    assert alike(client.embed(model=f"gemini/{gemini.id}", input=["x"] * len(values)).embeddings, values)


def test_googles_client_is_answered_by_openai(gemini_client: genai.Client, recordings: Recordings) -> None:
    each = next(each for each in recordings.select(provider="openai", api="embeddings", status=200) if len(json.loads(each.body)["data"]) == 1)
    got = gemini_client.models.embed_content(model=f"openai/{each.id}", contents="hi")
    assert got.embeddings is not None
    assert len(got.embeddings[0].values or ()) > 100


def test_bad_input_is_named(openai_client: openai.OpenAI) -> None:
    for model, wrong in (("native/x", {"input": []}), ("native/x", {"input": {"a": 1}}), ("openai/x", {})):
        with pytest.raises(openai.BadRequestError) as caught:
            openai_client.post("/embeddings", body={"model": model, **wrong}, cast_to=object)
        assert caught.value.param == "input"
    with pytest.raises(openai.BadRequestError, match="does not do this"):
        openai_client.embeddings.create(model="anthropic/claude-sonnet-4-5", input="x")


def test_titan_on_bedrock_answers_an_openai_client(vectors: Callable[..., list[list[float]]], recordings: Recordings) -> None:
    invoked = recordings.select(provider="bedrock", api="invoke", status=200)
    each = next(each for each in invoked if b'"inputTextTokenCount"' in each.body and b'"embedding"' in each.body)
    got = vectors(f"bedrock/titan-embed-text-{each.id}", ["one"])
    assert alike(got, [json.loads(each.body)["embedding"]])
    with pytest.raises(openai.BadRequestError, match="one"):
        vectors(f"bedrock/titan-embed-text-{each.id}", ["one", "two"])
