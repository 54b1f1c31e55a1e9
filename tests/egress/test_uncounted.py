"""Vectors of an API that does not say how many tokens they cost: no success is free because nobody counted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ingress.gateway import Gateway, Peer, Scripted, provider, request, running, snapshot

TEXT = "What is the meaning of life? " * 20


def _vectors(connection: Peer) -> None:
    """Google's Gemini API, which tells of no usage."""
    while True:
        connection.until(b"\r\n\r\n")
        while b'"requests"' not in connection.rest:
            connection.more()
        connection.rest = b""
        body = json.dumps({"embeddings": [{"values": [0.5, 0.25]}]}).encode()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    upstream = Scripted(_vectors)
    told = snapshot(tmp_path_factory.mktemp("uncounted"), (provider("goog", upstream.url, type="gemini"),))
    with running(told) as started:
        yield started


def test_they_are_billed_by_estimate_and_the_row_says_so(gateway: Gateway) -> None:
    reply = gateway.ask(request("goog/gemini-embedding-001", path="/v1/embeddings", headers=("X-Request-ID: vectors",), input=TEXT))
    assert reply.status == 200, reply
    assert reply.json()["data"][0]["embedding"] == [0.5, 0.25]
    row = gateway.row("vectors")
    assert row["estimated"] is True
    assert 100 < row["input"] < 200
    assert row["cost"] == row["input"] * 150
    assert float(reply.headers["x-gateway-cost"]) == row["cost"] / 1e9
