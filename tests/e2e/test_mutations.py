"""Recorded requests, damaged at random, sent to every kind of target: whatever becomes of them, it is never our own failure."""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
from typing import Any
from urllib.parse import quote, urlsplit

from e2e.conftest import KEY, Gateway
from replay.recordings import Recordings

PATHS = {
    "chat_completions": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses", "completions": "/v1/completions",
    "converse": "/model/{model}/converse", "converse-stream": "/model/{model}/converse-stream",
    "generateContent": "/v1beta/models/{model}:generateContent", "embeddings": "/v1/embeddings", "ollama_embed": "/api/embed",
    "streamGenerateContent": "/v1beta/models/{model}:streamGenerateContent?alt=sse", "ollama_chat": "/api/chat",
    "ollama_generate": "/api/generate", "moderations": "/v1/moderations", "count_tokens": "/v1/messages/count_tokens",
}  # fmt: skip
PROVIDERS = ("openai", "anthropic", "native", "bedrock", "ollama", "compat", "broken")
MODELS = ("m", "claude-x", "gpt-4o", "fault-ok", "fault-error_in_200", "titan-embed-text-v2", "gemini-2.5-pro", "o3-pro", "gpt-3.5-turbo-instruct")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 10**30, 3.5, "", "x" * 50, [], {}, [None], {"a": 1}, "data:image/png;base64,!!!!", "http://127.0.0.1/x",
    [[[]]], "\ud83d", {"type": "text"}, {"type": 5},
)  # fmt: skip
ROUNDS = int(os.environ.get("MUTATIONS", "1500"))


def damaged(value: Any, dice: random.Random) -> Any:
    if dice.random() < 0.06:
        return dice.choice(ODD)
    if isinstance(value, dict):
        kept = {name: damaged(inner, dice) for name, inner in value.items() if dice.random() > 0.03}
        return kept | ({dice.choice(("type", "role", "content", "id", "stream", "n")): dice.choice(ODD)} if dice.random() < 0.05 else {})
    if isinstance(value, list):
        kept_items = [damaged(inner, dice) for inner in value if dice.random() > 0.03]
        return kept_items + ([dice.choice(ODD)] if dice.random() < 0.03 else [])
    return value


def test_no_damage_is_our_own_failure(gateway: Gateway, recordings: Recordings) -> None:
    dice = random.Random(ROUNDS)
    whole = [(PATHS[each.row["api"]], each.request) for each in recordings.select() if each.row["api"] in PATHS and isinstance(each.request, dict)]
    seen: collections.Counter[int] = collections.Counter()
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=20)
    for _ in range(ROUNDS):
        path, request = dice.choice(whole)
        body, model = damaged(request, dice), f"{dice.choice(PROVIDERS)}/{dice.choice(MODELS)}"
        if isinstance(body, dict):
            body["model"] = model
        raw = json.dumps(body).encode()
        connection.request("POST", path.replace("{model}", quote(model, safe="")), raw, {"authorization": f"Bearer {KEY}"})
        reply = connection.getresponse()
        try:
            said = reply.read()
        except http.client.IncompleteRead as cut:  # a stream that could not end well did not
            said = cut.partial
            connection.close()
        seen[reply.status] += 1
        assert reply.status != 500, (path, raw, said)
    assert seen[400] > ROUNDS / 10
    assert seen[200] > ROUNDS / 20
    assert "Traceback" not in gateway.log.read_text()
