"""Claude Code says which of Anthropic's betas it uses, all of them to everybody; a cloud refuses the request for one that it does not know."""

from __future__ import annotations

import json

import pytest

from ingress.gateway import Peer, Scripted, provider, request, running, snapshot
from llm_gateway.formats.contract import Outgoing
from llm_gateway.providers.betas import BEDROCK, VERTEX, known, unknown
from llm_gateway.providers.contract import Account
from llm_gateway.providers.vertex import Vertex

CLAUDE_CODE = (
    b"claude-code-20250219,oauth-2025-04-20, interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    b"prompt-caching-scope-2026-01-05,advanced-tool-use-2025-11-20,effort-2025-11-24,web-search-2025-03-05,,a-beta-of-tomorrow"
)
THINKING, CONTEXT, SEARCH = "interleaved-thinking-2025-05-14", "context-management-2025-06-27", "tool-search-tool-2025-10-19"
HEADERS = ((b"anthropic-version", b"2023-06-01"), (b"anthropic-beta", CLAUDE_CODE))


def test_what_a_cloud_knows_is_kept_in_its_words():
    assert known(HEADERS, BEDROCK) == [THINKING, CONTEXT, SEARCH, "effort-2025-11-24"]
    assert known(HEADERS, VERTEX) == [THINKING, CONTEXT, SEARCH, "web-search-2025-03-05"]
    assert known((), VERTEX) == []
    both = ((b"anthropic-beta", b"advanced-tool-use-2025-11-20,tool-search-tool-2025-10-19"),)
    assert known(both, BEDROCK) == [SEARCH]


def test_what_is_left_out_is_named():
    assert unknown(b"oauth-2025-04-20, advanced-tool-use-2025-11-20,,x", VERTEX) == ("anthropic-beta: oauth-2025-04-20", "anthropic-beta: x")


def test_vertex_is_told_in_the_header():
    account = Account(provider="v", type="vertex", root="/v1/projects/p/locations/l", key="k", token=True)
    body = b'{"model":"claude-opus-4-6","max_tokens":5,"messages":[]}'
    told = dict(Vertex().address(Outgoing(body, "/messages", headers=HEADERS), account, "claude-opus-4-6", 0.0).headers)
    assert told[b"anthropic-beta"] == f"{THINKING},{CONTEXT},{SEARCH},web-search-2025-03-05".encode()
    counted = dict(Vertex().address(Outgoing(body, "/messages/count_tokens", headers=HEADERS), account, "claude-opus-4-6", 0.0).headers)
    assert counted[b"anthropic-beta"] == f"{THINKING},{CONTEXT},{SEARCH}".encode()  # which refuses to search
    without = dict(Vertex().address(Outgoing(body, "/messages", headers=HEADERS[:1]), account, "claude-opus-4-6", 0.0).headers)
    assert b"anthropic-beta" not in without


@pytest.mark.parametrize(
    ("kind", "model", "betas"),
    [
        ("bedrock", "anthropic.claude-opus-4-6", CLAUDE_CODE),
        ("bedrock", "anthropic.claude-opus-4-6", b"oauth-2025-04-20"),
        ("vertex", "claude-opus-4-6", b"oauth-2025-04-20"),
    ],
)
def test_no_other_word_reaches_it(kind: str, model: str, betas: bytes, tmp_path) -> None:
    seen: list[bytes] = []

    def refusing(connection: Peer) -> None:
        head = connection.until(b"\r\n\r\n")
        while b'"messages"' not in connection.rest:
            connection.more()
        seen.append(head + connection.rest)
        connection.send(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n" + b'{"message":"x"}'[:14])

    place = provider("cloud", Scripted(refusing).url, type=kind, region="us-east-1")
    with running(snapshot(tmp_path, (place,))) as gateway:
        gateway.ask(request(f"cloud/{model}", path="/v1/messages", headers=(f"anthropic-beta: {betas.decode()}",)))
    (sent,) = seen
    assert b"anthropic-beta" not in sent.lower()
    assert b"oauth" not in sent
    said = json.loads(sent[sent.index(b"{") :])
    assert said.get("anthropic_beta") == ([THINKING, CONTEXT, SEARCH, "effort-2025-11-24"] if betas is CLAUDE_CODE else None)


def test_who_is_answered_hears_what_was_left_out(tmp_path) -> None:
    answer = b'{"id":"1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'

    def answering(connection: Peer) -> None:
        connection.until(b"\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)

    place = provider("cloud", Scripted(answering).url, type="vertex", region="us-east-1")
    with running(snapshot(tmp_path, (place,))) as gateway:
        told = gateway.ask(request("cloud/claude-opus-4-6", path="/v1/messages", headers=("anthropic-beta: oauth-2025-04-20",)))
    assert told.headers["x-gateway-dropped-params"] == "anthropic-beta: oauth-2025-04-20"
