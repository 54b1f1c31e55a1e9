"""A prompt that Gemini would not answer: told to the client, never tried again, and paid for, since its tokens were read."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Peer, Scripted, provider, request, running, snapshot

BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}, "modelVersion": "m"}


def _refusing(connection: Peer) -> None:
    while True:
        asked = connection.until(b"\r\n\r\n")
        while b'"contents"' not in connection.rest:
            connection.more()
        connection.rest = b""
        stream = b"alt=sse" in asked
        body = json.dumps(BLOCKED).encode()
        body = b"data: %b\r\n\r\n" % body if stream else body
        kind = b"text/event-stream" if stream else b"application/json"
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstream = Scripted(_refusing)
    told = snapshot(tmp_path_factory.mktemp("blocked"), (provider("goog", upstream.url, type="gemini", max_retries=2),))
    with running(told) as started:
        yield started


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("shape", ["openai", "gemini"])
def test_it_is_billed_once(gateway: Gateway, stream: bool, shape: str) -> None:
    name = f"{shape}-{stream}"
    if shape == "openai":
        reply = gateway.ask(request("goog/gemini-2.5-flash", stream=stream, headers=(f"X-Request-ID: {name}",)))
        assert (reply.status, reply.json()["error"]["code"]) == (400, "content_filter")
    else:
        path = f"/v1beta/models/goog%2Fgemini-2.5-flash:{'streamGenerateContent?alt=sse' if stream else 'generateContent'}"
        said = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
        reply = gateway.ask(request("", path=path, headers=(f"X-Request-ID: {name}",), **said))
        assert reply.status == 200
        assert b"SAFETY" in reply.body
    row = gateway.row(name)
    assert row["outcome"] == "content_filter"
    (attempt,) = row["attempts"]
    assert (attempt["outcome"], attempt["input"], attempt["cost"]) == ("content_filter", 9, 9 * 300)
