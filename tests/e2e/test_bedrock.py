"""boto3 against the gateway, signing with keys that the gateway made: Bedrock's recorded replies, everyone else's, and refusals;
and everyone else's SDK to Bedrock's recordings."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import boto3
import openai
import pytest
from botocore.config import Config
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import ClientError

from e2e.conftest import AWS_KEY, KEY, Gateway
from e2e.recorded import anthropic_content, chosen
from e2e.test_jobs import row
from processes import eventually
from replay.recordings import Interaction, Recordings
from replay.server import ReplayUpstream
from replay.studio import Studio

ASK = [{"role": "user", "content": [{"text": "hi"}]}]


@pytest.fixture(scope="module")
def secret(gateway: Gateway) -> str:
    """As `llm-gateway keys new --aws` tells it, for the access key id that the configuration holds."""
    command = [str(Path(sys.executable).parent / "python"), "-c",
               "import sys; from llm_gateway.admission.auth import aws_secret; print(aws_secret(open(sys.argv[1]).read().strip().encode(), sys.argv[2]))",
               str(gateway.data / "secret"), AWS_KEY]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def client(gateway: Gateway, key: str, secret: str) -> Any:
    config = Config(retries={"max_attempts": 1, "mode": "standard"}, read_timeout=20)
    return boto3.client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=gateway.url, aws_access_key_id=key, aws_secret_access_key=secret, config=config
    )


@pytest.fixture(scope="module")
def bedrock(gateway: Gateway, secret: str) -> Iterator[Any]:
    made = client(gateway, AWS_KEY, secret)
    yield made
    made.close()


def recorded(recordings: Recordings, api: str) -> list[Interaction]:
    return [each for each in recordings.select(provider="bedrock", api=api) if each.status == 200]


def spoken(content: list[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in content)


def frames(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [(frame.headers[":event-type"], json.loads(frame.payload)) for frame in buffer]


def test_recorded_replies_arrive(bedrock: Any, recordings: Recordings) -> None:
    cases = recorded(recordings, "converse")
    assert len(cases) > 15
    for each in cases:
        got = bedrock.converse(modelId=f"bedrock/{each.id}", messages=ASK)
        wanted = json.loads(each.body)
        assert got["stopReason"] == wanted["stopReason"], each.id
        assert got["usage"]["totalTokens"] == wanted["usage"]["totalTokens"]
        assert spoken(got["output"]["message"]["content"]) == spoken(wanted["output"]["message"]["content"])


def test_recorded_streams_arrive(bedrock: Any, recordings: Recordings) -> None:
    cases = recorded(recordings, "converse-stream")
    assert len(cases) > 15
    for each in cases:
        wanted = frames(each.body)
        if any(kind.endswith("Exception") for kind, _ in wanted):
            continue
        got = list(bedrock.converse_stream(modelId=f"bedrock/{each.id}", messages=ASK)["stream"])
        assert [next(iter(event)) for event in got] == [kind for kind, _ in wanted], each.id


def test_others_answer_in_bedrocks_shape(bedrock: Any, recordings: Recordings) -> None:
    plain = next(each for each in chosen(recordings, "anthropic", "messages", streaming=False) if b'"text":' in each.body and b"citations" not in each.body)
    got = bedrock.converse(modelId=f"anthropic/{plain.id}", messages=ASK)
    assert spoken(got["output"]["message"]["content"]) == anthropic_content(plain)[0]
    streamed = next(each for each in chosen(recordings, "anthropic", "messages", streaming=True) if b"text_delta" in each.body)
    events = list(bedrock.converse_stream(modelId=f"anthropic/{streamed.id}", messages=ASK)["stream"])
    said = "".join(event["contentBlockDelta"]["delta"].get("text", "") for event in events if "contentBlockDelta" in event)
    assert said == anthropic_content(streamed)[0]
    assert "usage" in events[-1]["metadata"]


def test_bedrock_answers_in_others_shapes(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, recordings: Recordings) -> None:
    plain = next(each for each in recorded(recordings, "converse") if spoken(json.loads(each.body)["output"]["message"]["content"]))
    wanted = spoken(json.loads(plain.body)["output"]["message"]["content"])
    ask = [{"role": "user", "content": "hi"}]
    assert openai_client.chat.completions.create(model=f"bedrock/{plain.id}", messages=ask).choices[0].message.content == wanted
    message = anthropic_client.messages.create(model=f"bedrock/{plain.id}", messages=ask, max_tokens=9)
    assert "".join(block.text for block in message.content if block.type == "text") == wanted
    for each in recorded(recordings, "converse-stream")[:6]:
        text = "".join(event.get("delta", {}).get("text", "") for kind, event in frames(each.body) if kind == "contentBlockDelta")
        chunks = openai_client.chat.completions.create(model=f"bedrock/{each.id}", messages=ask, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text, each.id


def test_tokens_are_counted_or_estimated(bedrock: Any, anthropic_client: anthropic.Anthropic, recordings: Recordings, replay: ReplayUpstream) -> None:
    claude = "bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0"
    asked = {"converse": {"messages": ASK}}
    theirs = next(each for each in recordings.select(provider="anthropic", api="count_tokens") if each.status == 200)
    got = bedrock.count_tokens(modelId=f"anthropic/{theirs.id}", input=asked)
    assert got["inputTokens"] == json.loads(theirs.body)["input_tokens"]
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]})
    got = bedrock.count_tokens(modelId=f"anthropic/{theirs.id}", input={"invokeModel": {"body": body.encode()}})
    assert got["inputTokens"] == json.loads(theirs.body)["input_tokens"]
    assert replay.received[-1].json()["messages"] == [{"role": "user", "content": "hi"}]

    refusals = {"support counting": 200, "identifier is invalid": 400}
    for each in recordings.select(provider="bedrock", api="count_tokens"):
        status = next(status for words, status in refusals.items() if words in each.body.decode())
        replay.queue(each.id)
        if status == 200:  # models and regions that do not count
            got = bedrock.count_tokens(modelId=claude, input=asked)
            assert got["inputTokens"] > 0
            assert got["ResponseMetadata"]["HTTPHeaders"]["x-gateway-estimated"] == "true"
        else:
            with pytest.raises(ClientError, match="identifier is invalid"):
                bedrock.count_tokens(modelId=claude, input=asked)
        assert replay.received[-1].path == "/model/anthropic.claude-sonnet-4-20250514-v1%3A0/count-tokens"
        assert replay.received[-1].json() == {"input": asked}
    counted = next(each for each in recordings.select(provider="bedrock", api="count_tokens") if b"counting" in each.body)
    replay.queue(counted.id)
    assert anthropic_client.messages.count_tokens(model=claude, messages=[{"role": "user", "content": "hi"}]).input_tokens > 0
    assert replay.received[-1].json() == {"input": asked}
    assert bedrock.count_tokens(modelId="bedrock/amazon.nova-lite-v1:0", input=asked)["inputTokens"] > 0  # not asked at all


def test_errors_are_bedrocks_own(bedrock: Any) -> None:
    with pytest.raises(ClientError) as caught:
        bedrock.converse(modelId="nobody/knows", messages=ASK)
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"
    with pytest.raises(ClientError) as caught:
        bedrock.converse(modelId="broken/fault-status:503", messages=ASK)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    with pytest.raises(Exception, match=r"(?i)upstream|stream"):
        list(bedrock.converse_stream(modelId="broken/fault-cut_midstream", messages=ASK)["stream"])


def test_a_long_body_is_checked_too(bedrock: Any, gateway: Gateway) -> None:
    """Over 256 KiB it is hashed in a thread."""
    long = [{"role": "user", "content": [{"text": "no play " * 50_000}]}]
    assert bedrock.converse(modelId="echo/x", messages=long)["output"]["message"]["content"]
    with pytest.raises(ClientError) as caught:
        client(gateway, AWS_KEY, "wrong").converse(modelId="echo/x", messages=long)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_a_wrong_signature_is_refused(gateway: Gateway, secret: str, wrong: str) -> None:
    other = ("y" if secret[0] == "x" else "x") + secret[1:]
    stranger = client(gateway, AWS_KEY if wrong == "secret" else "AKGWSOMEBODYELSE2222", other if wrong == "secret" else secret)

    def refused() -> bool:
        with pytest.raises(ClientError) as caught:
            stranger.converse(modelId="broken/fine", messages=ASK)
        status = caught.value.response["ResponseMetadata"]["HTTPStatusCode"]
        assert status in {401, 403, 503}
        return status != 503  # while it is not known yet which keys there are

    assert eventually(refused)


def test_a_signature_is_good_for_its_own_request_only(gateway: Gateway, secret: str) -> None:
    """What was signed for one path or body opens no other; nor do routes that have no body."""
    caught: list[Any] = []
    made = client(gateway, AWS_KEY, secret)
    made.meta.events.register("before-send.bedrock-runtime", lambda request, **_: caught.append(request))
    assert made.converse(modelId="broken/fine", messages=ASK)["stopReason"] == "end_turn"
    request = caught[0]
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items() if name != "Content-Length"}

    def status(path: str, body: bytes | None) -> int:
        asked = urllib.request.Request(gateway.url + path, body, headers | {"content-type": "application/json"})
        try:
            return int(urllib.request.urlopen(asked).status)
        except urllib.error.HTTPError as refused:
            return refused.code

    path = re.sub(r"^https?://[^/]+", "", request.url)
    assert status(path, request.body) == 200
    assert status(path, request.body.replace(b"hi", b"ho")) == 403
    assert status("/v1/chat/completions", b'{"model":"broken/fine","messages":[{"role":"user","content":"x"}]}') == 401
    assert status("/v1/models", None) == 401


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_who_only_knows_the_id_of_a_key_gets_nothing_that_is_kept(openai_client: openai.OpenAI, gateway: Gateway, studio: Studio, method: str) -> None:
    """Nor does anything stand in the books of whose key it is."""
    made = openai_client.responses.create(model="studio/m", input="one")
    before = len(studio.received)
    forged = f"AWS4-HMAC-SHA256 Credential={AWS_KEY}/20200101/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
    headers = {"authorization": forged, "x-amz-date": "20200101T000000Z", "x-request-id": f"forged-{method}"}
    asked = urllib.request.Request(f"{gateway.url}/v1/responses/{made.id}", headers=headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked)
    assert refused.value.code == 401
    assert len(studio.received) == before
    booked = row(gateway, f"forged-{method}")
    assert (booked["tenant"], booked["key"]) == (None, None)


def test_a_plain_key_works_too(gateway: Gateway) -> None:
    body = json.dumps({"messages": ASK}).encode()
    asked = urllib.request.Request(f"{gateway.url}/model/broken%2Ffine/converse", body, {"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(asked) as reply:
        assert json.load(reply)["output"]["message"]["content"] == [{"text": "hello"}]


def test_claude_on_bedrock_keeps_anthropics_own_events(gateway: Gateway, recordings: Recordings) -> None:
    """The invoke stream wraps Anthropic's events in frames: the client gets the events."""
    ask = [{"role": "user", "content": "hi"}]
    client = anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0)
    claude = [each for each in recorded(recordings, "invoke-stream") if "claude" in (each.row["model"] or "")]
    cases = [each for each in claude if b"message_start" in b"".join(wrapped(each.body))]
    assert len(cases) >= 5
    for each in cases:
        wanted = [json.loads(event)["type"] for event in wrapped(each.body)]
        with client.messages.stream(model=f"bedrock/claude-{each.id}", messages=ask, max_tokens=9) as stream:
            got = [event.type for event in stream if event.type in set(wanted)]
        assert got == [kind for kind in wanted if kind != "ping"], each.id


def wrapped(body: bytes) -> list[bytes]:
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return [base64.b64decode(told["bytes"]) for told in (json.loads(frame.payload) for frame in buffer) if "bytes" in told]
