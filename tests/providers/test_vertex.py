"""Vertex: where each publisher's models are asked, in whose shape, with what in the body; recorded addresses among them."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.shapes import ALL
from llm_gateway.core.errors import Kind
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.counting import AnthropicCount, GeminiCount
from llm_gateway.providers.awaiting import Awaiting
from llm_gateway.providers.contract import Account
from llm_gateway.providers.vertex import Vertex
from replay.recordings import folder, load

VERTEX = Vertex()
ROOT = "/v1/projects/p/locations/l"
TEXT = [{"role": "user", "parts": [{"text": "hi"}]}]


def account(**more) -> Account:
    return Account(**{"provider": "vertex", "type": "vertex", "root": ROOT, "key": "ya29", "token": True} | more)


def sent(shape, model: str, body: dict, *, stream: bool = False) -> tuple[str, dict, dict]:
    """(path below the root, body, headers) of a request as the shape forwards it."""
    peek = shape.peek(json.dumps(body).encode(), model, **({"stream": stream} if shape.name.startswith("gemini") else {}))
    wire = VERTEX.address(shape.forward(peek, model), account(), model, 0.0)
    assert wire.path.decode().startswith(ROOT)
    return wire.path.decode().removeprefix(ROOT), json.loads(wire.body), dict(wire.headers)


@pytest.mark.parametrize(
    ("model", "chat", "count", "embeddings"),
    [
        ("gemini-2.5-flash", ("gemini", "gemini_array", "openai_chat"), ("gemini_count",), ()),
        ("google/gemini-2.5-flash", ("gemini", "gemini_array", "openai_chat"), ("gemini_count",), ()),
        ("publishers/google/models/gemini-2.5-flash", ("gemini", "gemini_array", "openai_chat"), ("gemini_count",), ()),
        ("gemini-embedding-2", (), ("gemini_count",), ("gemini_embed",)),
        ("text-embedding-005", (), ("gemini_count",), ("vertex_embed",)),
        ("gemini-embedding-001", (), ("gemini_count",), ("vertex_embed",)),
        ("endpoints/123", ("gemini", "gemini_array"), ("gemini_count",), ()),
        ("claude-haiku-4-5@20251001", ("anthropic_messages",), ("anthropic_count",), ()),
        ("anthropic/claude-opus-4-1", ("anthropic_messages",), ("anthropic_count",), ()),
        ("meta/llama-3.3-70b-instruct-maas", ("openai_chat",), (), ()),
        ("mistral-small-2503", ("openai_chat",), (), ()),
        ("deepseek-ai/deepseek-r1-0528-maas", ("openai_chat",), (), ()),
    ],
)
def test_each_publisher_is_spoken_to_in_its_shape(model, chat, count, embeddings):
    assert (VERTEX.formats("chat", model), VERTEX.formats("count", model), VERTEX.formats("embeddings", model)) == (chat, count, embeddings)
    assert VERTEX.formats("images", model) == ()


@pytest.mark.parametrize(
    ("model", "resource"),
    [
        ("gemini-2.5-flash", "/publishers/google/models/gemini-2.5-flash"),
        ("google/gemini-2.5-flash", "/publishers/google/models/gemini-2.5-flash"),
        ("publishers/google/models/gemini-2.5-flash", "/publishers/google/models/gemini-2.5-flash"),
        ("endpoints/123", "/endpoints/123"),
        ("../x?y", "/publishers/google/models/..%2Fx%3Fy"),
    ],
)
def test_gemini_passes_untouched(model, resource):
    assert sent(ALL["generateContent"], model, {"contents": TEXT})[:2] == (f"{resource}:generateContent", {"contents": TEXT})
    path, body, headers = sent(ALL["generateContent"], model, {"contents": TEXT}, stream=True)
    assert path == f"{resource}:streamGenerateContent?alt=sse"
    assert headers == {b"authorization": b"Bearer ya29"}
    assert body == {"contents": TEXT}


def test_claude_is_named_in_the_path_and_its_version_in_the_body():
    said = {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    path, body, _ = sent(ALL["messages"], "claude-haiku-4-5@20251001", said)
    assert path == "/publishers/anthropic/models/claude-haiku-4-5@20251001:rawPredict"
    assert body == {"anthropic_version": "vertex-2023-10-16", "max_tokens": 5, "messages": said["messages"]}
    path, body, _ = sent(ALL["messages"], "claude-haiku-4-5@20251001", {**said, "stream": True, "anthropic_version": "vertex-2030-01-01"})
    assert path.endswith(":streamRawPredict")
    assert (body["stream"], body["anthropic_version"]) == (True, "vertex-2030-01-01")


def test_tokens_of_claude_are_counted_by_a_model_of_that_name():
    path, body, _ = sent(AnthropicCount(), "claude-opus-4-1", {"model": "x", "messages": [{"role": "user", "content": "hi"}]})
    assert path == "/publishers/anthropic/models/count-tokens:rawPredict"
    assert (body["model"], body["anthropic_version"]) == ("claude-opus-4-1", "vertex-2023-10-16")


def test_tokens_of_gemini_are_counted_at_the_top():
    whole = {"model": "models/x", "contents": TEXT, "tools": []}
    path, body, _ = sent(GeminiCount(), "gemini-2.5-flash", {"generateContentRequest": whole})
    assert path == "/publishers/google/models/gemini-2.5-flash:countTokens"
    assert body == {"contents": TEXT, "tools": []}
    assert sent(GeminiCount(), "gemini-2.5-flash", {"contents": TEXT})[1] == {"contents": TEXT}


@pytest.mark.parametrize(
    ("model", "path", "named"),
    [
        ("gemini-2.5-flash", "/endpoints/openapi/chat/completions", "google/gemini-2.5-flash"),
        ("meta/llama-3.3-70b-instruct-maas", "/endpoints/openapi/chat/completions", "meta/llama-3.3-70b-instruct-maas"),
        ("mistral-small-2503", "/publishers/mistralai/models/mistral-small-2503:rawPredict", "mistral-small-2503"),
        ("codestral-2@2508", "/publishers/mistralai/models/codestral-2@2508:rawPredict", "codestral-2"),
    ],
)
def test_openais_shape_goes_where_the_publisher_takes_it(model, path, named):
    messages = [{"role": "user", "content": "hi"}]
    assert sent(ALL["chat_completions"], model, {"model": "x", "messages": messages})[:2] == (path, {"model": named, "messages": messages})


def test_an_api_key_is_googles_own_header_and_needs_no_project():
    wire = VERTEX.address(Outgoing(b"{}", "/models/m:generateContent"), account(root="/v1", token=False, headers=((b"x-own", b"1"),)), "m", 0.0)
    assert wire.path == b"/v1/publishers/google/models/m:generateContent"
    assert wire.headers == ((b"x-goog-api-key", b"ya29"), (b"x-own", b"1"))


def test_the_probe_lists_models_without_a_project():
    probe = VERTEX.probe(account())
    assert probe is not None
    assert probe.path == b"/v1/publishers/google/models?pageSize=1"


@pytest.mark.skipif(not (folder() / "manifest.jsonl").exists(), reason="no recorded traffic beside the checkout")
def test_recorded_requests_go_where_they_went():
    seen = set()
    for each in load().select(provider="vertex"):
        url = urlsplit(each.record["request"]["url"])
        resource, _, verb = url.path.partition("/publishers/")[2].rpartition(":")
        if not resource:
            continue
        publisher, _, model = resource.partition("/models/")
        outgoing = {
            "anthropic": Outgoing(json.dumps({"stream": verb.startswith("stream")}).encode(), "/messages"),
            "google": Outgoing(b"{}", f"/models/{model}:{verb}{'?alt=sse' if verb.startswith('stream') else ''}"),
        }[publisher]
        root, _, _ = url.path.partition("/publishers/")
        wire = VERTEX.address(outgoing, account(root=root), model, 0.0)
        assert urlsplit(wire.path.decode()).path == url.path, each.id
        seen.add((publisher, verb))
    assert len(seen) >= 5


@given(st.text(max_size=60), st.sampled_from(["/models/x:generateContent", "/messages", "/chat/completions"]))
def test_whatever_a_client_calls_a_model_stays_below_the_root(model, path):
    wire = VERTEX.address(Outgoing(b'{"model":"m"}', path), account(), model, 0.0)
    below = wire.path.decode("ascii").removeprefix(ROOT)
    assert below.startswith(("/publishers/", "/endpoints/"))
    assert not {"..", ".", ""} & set(below.rpartition(":")[0].split("/")[1:-1])
    assert not set(below) & set(" ?#\r\n\t")


def test_googles_errors_are_read_as_such_in_every_shape():
    body = b'[{"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "7s"}]}}]'
    for shape in ("messages", "chat_completions", "generateContent"):
        fault = VERTEX.fault(ALL[shape], 429, {}, body, 0.0)
        assert (fault.kind, fault.retry_after) == (Kind.UPSTREAM_RATE_LIMIT, 7.0)
    denied = b'{"error": {"code": 403, "message": "Permission denied on resource project p", "status": "PERMISSION_DENIED"}}'
    fault = VERTEX.fault(ALL["messages"], 403, {}, denied, 0.0)
    assert (fault.kind, fault.status, fault.body) == (Kind.UPSTREAM_AUTH, 403, None)
    theirs = b'{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: too large"}}'
    fault = VERTEX.fault(ALL["messages"], 400, {}, theirs, 0.0)
    assert (fault.kind, fault.message) == (Kind.INVALID, "max_tokens: too large")


def test_without_credentials_nothing_is_sent_but_all_is_known():
    waiting = Awaiting(VERTEX)
    assert waiting.formats("chat", "claude-opus-4-1") == ("anthropic_messages",)
    assert waiting.probe(account()) is None
    with pytest.raises(Exception, match="no credentials") as raised:
        waiting.address(Outgoing(b"{}", "/messages"), account(), "m", 0.0)
    assert (raised.value.kind, raised.value.code) == (Kind.UNAVAILABLE, "no_credentials")


@pytest.mark.parametrize("model", ["claude-opus-4-1@20250805", "anthropic/claude-opus-4-1@20250805", "publishers/anthropic/models/claude-opus-4-1@20250805"])
def test_claude_is_counted_by_its_own_name(model):
    """The path names no model there, and the body's is Anthropic's name for it."""
    path, body, _ = sent(AnthropicCount(), model, {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    assert (path, body["model"]) == ("/publishers/anthropic/models/count-tokens:rawPredict", "claude-opus-4-1@20250805")
