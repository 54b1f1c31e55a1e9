"""Ollama's provider: where each shape goes, with which key, and what its errors mean."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Kind
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.ollama import OllamaChat
from llm_gateway.providers.contract import Account
from llm_gateway.providers.ollama import Ollama

PATHS = {
    "/api/chat": "/api/chat",
    "/api/generate": "/api/generate",
    "/api/embed": "/api/embed",
    "/chat/completions": "/v1/chat/completions",
    "/completions": "/v1/completions",
    "/embeddings": "/v1/embeddings",
}


def account(root: str = "/v1", **more: object) -> Account:
    return Account(**{"provider": "ollama", "type": "ollama", "root": root} | more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("root", "base"), [("/v1", ""), ("", ""), ("/api", ""), ("/behind/v1", "/behind"), ("/behind", "/behind")])
def test_each_shape_goes_below_its_own_root(root, base):
    for path, below in PATHS.items():
        outgoing = Outgoing(b"{}", path)
        wire = Ollama().address(outgoing, account(root), "m", 0.0)
        assert (wire.method, wire.path.decode(), wire.body is outgoing.body) == (b"POST", base + below, True)
    probe = Ollama().probe(account(root))
    assert probe is not None
    assert (probe.method, probe.path.decode(), probe.body) == (b"GET", f"{base}/api/version", b"")


def test_a_key_is_a_bearers_and_none_is_no_header():
    headers = ((b"x-team", b"blue"),)
    with_key, without = account(key="k", headers=headers), account(headers=headers)
    assert Ollama().address(Outgoing(b"", "/api/chat"), with_key, "m", 0.0).headers == ((b"authorization", b"Bearer k"), *headers)
    assert Ollama().address(Outgoing(b"", "/api/chat"), without, "m", 0.0).headers == headers


def test_its_own_shapes_come_first_and_what_it_does_not_do_is_nothing():
    assert Ollama().formats("chat", "m")[:3] == ("ollama_chat", "ollama_generate", "openai_chat")
    assert Ollama().formats("embeddings", "m")[:2] == ("ollama_embed", "openai_embeddings")
    assert Ollama().formats("images", "m") == ()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, b'{"error":"model \'x\' not found"}', Kind.UPSTREAM_NO_MODEL),
        (400, b'{"error":"\\"llama3\\" does not support tools"}', Kind.INVALID),
        (400, b'{"error":"input length exceeds the context length"}', Kind.CONTEXT_LENGTH),
        (401, b'{"error":"unauthorized"}', Kind.UPSTREAM_AUTH),
        (429, b'{"error":"you have reached your hourly usage limit"}', Kind.UPSTREAM_RATE_LIMIT),
        (500, b'{"error":"llama runner process has terminated: exit status 2"}', Kind.UPSTREAM_ERROR),
        (503, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}', Kind.OVERLOADED),
    ],
)
def test_its_errors(status, body, kind):
    fault = Ollama().fault(OllamaChat(), status, {b"retry-after": b"3"}, body, 0.0)
    assert (fault.kind, fault.status, fault.retry_after) == (kind, status, 3.0)
