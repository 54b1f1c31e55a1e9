"""Services that refuse what a model thought in an earlier turn, which other services want back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingress.gateway import KEY, Peer, Scripted, provider, running, snapshot
from replay.faulty import COMPLETION

THOUGHT = {"type": "thinking", "thinking": "They want it brief.", "signature": ""}
TURNS = [
    {"role": "user", "content": "weather?"},
    {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "c1", "name": "look", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}]},
    {"role": "assistant", "content": [THOUGHT]},
    {"role": "user", "content": "and?"},
]


def asked(tmp_path: Path, kind: str, size: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What the service was told, and what the client heard."""
    seen: list[dict[str, Any]] = []

    def answering(connection: Peer) -> None:
        seen.append(connection.reply().json())
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(COMPLETION) + COMPLETION)

    turns = [*TURNS[:-1], {"role": "user", "content": "and?" * size}]
    body = json.dumps({"model": "place/m", "max_tokens": 100, "messages": turns}).encode()
    with running(snapshot(tmp_path, (provider("place", Scripted(answering).url, type=kind),))) as gateway:
        head = f"POST /v1/messages HTTP/1.1\r\nHost: a\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        reply = gateway.ask(head.encode() + body)
    assert reply.status == 200, reply.body
    (told,) = seen
    return told["messages"], reply.headers


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("kind", ["groq", "mistral", "cerebras"])
def test_thoughts_are_left_out_where_they_are_refused(kind: str, size: int, tmp_path: Path) -> None:
    """ "property 'reasoning_content' is unsupported", from the second turn of every conversation on."""
    messages, headers = asked(tmp_path, kind, size)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
    assert "reasoning" not in json.dumps(messages)
    assert messages[1]["content"] == "I look."
    assert headers["x-gateway-dropped-params"] == "messages[1].thinking, messages[3].thinking"


def test_others_get_them_back(tmp_path: Path) -> None:
    messages, headers = asked(tmp_path, "deepseek", 1)
    assert [message.get("reasoning_content") for message in messages if message["role"] == "assistant"] == ["They want it brief."] * 2
    assert "x-gateway-dropped-params" not in headers
