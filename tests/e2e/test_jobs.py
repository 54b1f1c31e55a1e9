"""Images, sounds, moderation, ranking: the official SDKs against the real gateway, Azure's client among them."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

from e2e.conftest import FEW_KEY, KEY, Gateway
from replay.studio import SOUND, Studio

WAV = ("speech.wav", b"RIFF" + b"\r\n--odd\r\n" * 50, "audio/wav")


def row(gateway: Gateway, request_id: str) -> dict:
    lines = [json.loads(line) for file in (gateway.data / "journal").iterdir() for line in file.read_bytes().splitlines()]
    return next(line for line in lines if line["request_id"] == request_id)


def test_a_picture_is_made_and_its_tokens_are_booked(openai_client: openai.OpenAI, gateway: Gateway) -> None:
    raw = openai_client.images.with_raw_response.generate(model="studio/gpt-image-1", prompt="a cat")
    reply = raw.parse()
    assert reply.data[0].revised_prompt == "a cat"
    assert reply.usage.output_tokens == 300
    booked = row(gateway, raw.headers["x-request-id"])
    assert (booked["input"], booked["output"], booked["upstream_model"]) == (12, 300, "gpt-image-1")


def test_a_picture_comes_in_pieces(openai_client: openai.OpenAI) -> None:
    events = list(openai_client.images.generate(model="studio/gpt-image-1", prompt="a cat", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]


def test_a_form_arrives_whole_with_the_models_own_name(openai_client: openai.OpenAI) -> None:
    said = openai_client.audio.transcriptions.create(model="studio/whisper-1", file=WAV, prompt="häns", temperature=0.2)
    assert json.loads(said.text) == {
        "file": ["speech.wav", len(WAV[1])], "model": [None, "whisper-1"], "prompt": [None, "häns"], "temperature": [None, "0.2"],
    }  # fmt: skip
    edited = openai_client.images.edit(model="studio/gpt-image-1", image=[io.BytesIO(b"one"), io.BytesIO(b"two")], prompt="a hat")
    assert json.loads(edited.data[0].revised_prompt)["model"] == [None, "gpt-image-1"]


def test_a_transcript_is_text_or_a_stream_as_asked(openai_client: openai.OpenAI, gateway: Gateway) -> None:
    srt = openai_client.audio.translations.create(model="studio/whisper-1", file=WAV, response_format="srt")
    assert "00:00:00,000 --> 00:00:01,000" in srt
    raw = openai_client.audio.transcriptions.with_raw_response.create(model="studio/gpt-4o-transcribe", file=WAV, stream=True)
    assert [event.type for event in raw.parse()] == ["transcript.text.delta", "transcript.text.done"]
    assert row(gateway, raw.headers["x-request-id"])["input"] == 14


@pytest.mark.parametrize(("kind", "text"), [("json", '[null, \\"true\\"]'), ("srt", "00:00:00,000 --> 00:00:01,000")])
def test_a_model_that_ignores_that_it_is_to_stream_is_heard(
    openai_client: openai.OpenAI, gateway: Gateway, studio: Studio, kind: Any, text: str
) -> None:
    before = len(studio.received)
    asking = openai_client.audio.transcriptions.with_streaming_response
    with asking.create(model="studio/whisper-1", file=WAV, stream=True, response_format=kind) as reply:
        assert text in reply.read().decode()
    assert len(studio.received) == before + 1
    assert "transfer-encoding" not in reply.headers
    assert "outcome" not in row(gateway, reply.headers["x-request-id"])


def test_speech_flows(openai_client: openai.OpenAI, studio: Studio) -> None:
    with openai_client.audio.speech.with_streaming_response.create(model="studio/tts-1", voice="alloy", input="hello") as reply:
        assert reply.headers["content-type"] == "audio/mpeg"
        assert b"".join(reply.iter_bytes()) == SOUND
    assert studio.received[-1].json()["model"] == "tts-1"


def test_speech_that_breaks_off_does_not_end_well(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        openai_client.audio.speech.create(model="studio/tts-1", voice="alloy", input="cut me").read()


def test_speech_comes_as_events_where_asked(openai_client: openai.OpenAI, gateway: Gateway) -> None:
    raw = openai_client.audio.speech.with_raw_response.create(
        model="studio/gpt-4o-mini-tts", voice="alloy", input="hello", stream_format="sse"
    )
    assert b"speech.audio.done" in raw.content
    assert row(gateway, raw.headers["x-request-id"])["output"] == 50


def test_moderation_needs_no_model(openai_client: openai.OpenAI) -> None:
    assert openai_client.moderations.create(model="studio/omni", input="hi").model == "omni"
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.post("/moderations", body={"model": "studio/omni"}, cast_to=object)
    assert caught.value.param == "input"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_are_ranked(gateway: Gateway, path: str) -> None:
    body = json.dumps({"model": "ranker/rerank-v3.5", "query": "q", "documents": ["a", "b"]}).encode()
    asked = urllib.request.Request(gateway.url + path, body, {"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked) as reply:
        assert [each["index"] for each in json.load(reply)["results"]] == [0, 1]


def test_what_a_provider_does_not_offer_is_said(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not do this") as caught:
        openai_client.images.generate(model="anthropic/claude-sonnet-4-5", prompt="a cat")
    assert caught.value.param == "model"


@pytest.mark.parametrize("body", [b"", b"{}", b"--x\r\n", b"--x\r\n\r\n--x--", b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc'])
def test_a_form_that_is_none_is_refused(gateway: Gateway, body: bytes, studio: Studio) -> None:
    before = len(studio.received)
    asked = urllib.request.Request(f"{gateway.url}/v1/audio/transcriptions", body, {"authorization": f"Bearer {KEY}"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)
    assert caught.value.code == 400
    assert json.load(caught.value)["error"]["type"] == "invalid_request_error"
    assert len(studio.received) == before


@pytest.mark.parametrize("version", ["2025-04-01-preview", "v1"])
def test_azures_client_works(gateway: Gateway, version: str) -> None:
    if version == "v1":
        client = openai.OpenAI(base_url=f"{gateway.url}/openai/v1", api_key=KEY, max_retries=0)
    else:
        client = openai.AzureOpenAI(azure_endpoint=gateway.url, api_key=KEY, api_version=version, max_retries=0)
    said = client.chat.completions.create(model="broken/fine", messages=[{"role": "user", "content": "hi"}])
    assert said.choices[0].message.content == "hello"
    streamed = client.chat.completions.create(model="broken/fine", messages=[{"role": "user", "content": "hi"}], stream=True)
    assert len(list(streamed)) > 2
    assert client.images.generate(model="studio/gpt-image-1", prompt="a cat").data
    assert client.audio.transcriptions.create(model="studio/whisper-1", file=WAV).text


def test_a_form_asked_again_with_its_idempotency_key_is_the_same_under_another_boundary(openai_client: openai.OpenAI, studio: Studio) -> None:
    asking = {"model": "studio/whisper-1", "file": WAV, "extra_headers": {"Idempotency-Key": "heard"}}
    before = len(studio.received)
    first, again = (openai_client.audio.transcriptions.with_raw_response.create(**asking) for _ in range(2))
    assert (first.content, again.headers["idempotent-replayed"]) == (again.content, "true")
    assert len(studio.received) == before + 1
    for other in ({"prompt": "häns"}, {"file": ("speech.wav", WAV[1] + b"\r\n", "audio/wav")}):
        with pytest.raises(openai.UnprocessableEntityError):
            openai_client.audio.transcriptions.create(**asking | other)


def test_a_files_bytes_are_no_text_to_count_tokens_by(gateway: Gateway) -> None:
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=FEW_KEY, max_retries=0)
    client.chat.completions.create(model="broken/fine", messages=[{"role": "user", "content": "hi"}])
    file = bytes(range(256)) * 8192  # two minutes of sound
    said = client.audio.transcriptions.with_raw_response.create(model="studio/whisper-1", file=("a.mp3", file))
    assert int(said.headers["x-ratelimit-remaining-tokens"]) > 10_000
    edited = client.images.with_raw_response.edit(model="studio/gpt-image-1", image=file, prompt="a hat")
    assert int(edited.headers["x-ratelimit-remaining-tokens"]) > 5_000


@pytest.mark.parametrize("fault", ["html", "truncated_json"])
@pytest.mark.parametrize("path", ["moderations", "rerank", "images/generations", "audio/speech"])
def test_rubbish_is_no_reply(gateway: Gateway, fault: str, path: str) -> None:
    # A name of its own: what fails so often is not asked for a while, by other tests neither.
    asked: dict[str, Any] = {"model": f"broken/fault-{fault}:{path}", "input": "a", "voice": "v", "query": "q", "documents": ["a"], "prompt": "p"}
    request = urllib.request.Request(f"{gateway.url}/v1/{path}", json.dumps(asked).encode(), {"authorization": f"Bearer {KEY}"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert (caught.value.code, json.load(caught.value)["error"]["code"]) == (502, "bad_upstream_reply")
