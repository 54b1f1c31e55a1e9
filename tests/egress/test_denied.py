"""A file that a caller names and Google will not read: the caller's trouble, which must not take the model from everybody else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Peer, Scripted, provider, request, running, snapshot
from llm_gateway.policies.breaker import Terms

FILE = "https://generativelanguage.googleapis.com/v1beta/files/abc"
ANSWER = {"candidates": [{"content": {"parts": [{"text": "hello"}], "role": "model"}, "finishReason": "STOP"}], "responseId": "r"}
DENIED = [
    (403, "You do not have permission to access the File abc or it may not exist.", "PERMISSION_DENIED"),
    (400, "The File abc is not in an ACTIVE state and usage is not allowed.", "FAILED_PRECONDITION"),
    (403, "CachedContent not found (or permission denied)", "PERMISSION_DENIED"),
    (403, "service-1@gcp-sa-aiplatform.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud Storage object.",
     "PERMISSION_DENIED"),
]  # fmt: skip


def _google(connection: Peer) -> None:
    """Refuses what names a file, as the file's name says."""
    while True:
        connection.until(b"\r\n\r\n")
        while b"]}" not in connection.rest:
            connection.more()
        asked, connection.rest = connection.rest, b""
        status, body = b"200 OK", json.dumps(ANSWER).encode()
        if b"files/abc" in asked:
            code, message, word = DENIED[int(asked[asked.index(b"files/abc") + 9 :][:1])]
            status, body = b"%d No" % code, json.dumps({"error": {"code": code, "message": message, "status": word}}).encode()
        connection.send(b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    told = snapshot(tmp_path_factory.mktemp("denied"), (provider("goog", Scripted(_google).url, type="gemini", breaker=Terms()),))
    with running(told) as started:
        yield started


@pytest.mark.parametrize("which", range(len(DENIED)))
def test_it_is_told_to_the_caller_and_others_are_served(gateway: Gateway, which: int) -> None:
    picture = [{"type": "text", "text": "See?"}, {"type": "image_url", "image_url": {"url": f"{FILE}{which}"}}]
    for _ in range(4):
        reply = gateway.ask(request(f"goog/gemini-{which}", messages=[{"role": "user", "content": picture}]))
        assert (reply.status, reply.json()["error"]["code"]) == (404, "file_unavailable"), reply
        assert b"gserviceaccount" not in reply.body
    assert gateway.ask(request(f"goog/gemini-{which}")).status == 200
