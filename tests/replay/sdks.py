"""Our replies and errors as the official SDKs read them.

Law: a reply that we wrote is checked strictly against the SDK's types, so that what a lenient SDK would let pass is seen; one that
passes in its own shape is built the way the SDK builds it, since providers add fields of their own. What comes out is JSON in the
API's words again. A stream is cut into events by what its framing says, not by the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import anthropic.types as claude
import ollama
from anthropic import _models as anthropic_models
from google.genai import models as google_models
from google.genai import types as google
from openai import _models as openai_models
from openai.types import Completion, CreateEmbeddingResponse, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from formats.bedrock import by_boto, operation, reply_by_boto

JSON = dict[str, Any]
_BUILD = {"openai": openai_models.construct_type, "anthropic": anthropic_models.construct_type}
# What google-genai itself makes of a reply before it reads it: members that it does not know are left out.
_FROM_GOOGLE = {
    "gemini": google_models._GenerateContentResponse_from_mldev,
    "gemini_count": google_models._CountTokensResponse_from_mldev,
}
REPLIES: dict[str, Any] = {
    "openai_chat": ChatCompletion,
    "openai_responses": Response,
    "openai_completions": Completion,
    "openai_embeddings": CreateEmbeddingResponse,
    "openai_moderation": ModerationCreateResponse,
    "anthropic_messages": claude.Message,
    "anthropic_count": claude.MessageTokensCount,
    "gemini": google.GenerateContentResponse,
    "gemini_count": google.CountTokensResponse,
    "gemini_embed_batch": google.EmbedContentResponse,
    "ollama_chat": ollama.ChatResponse,
    "ollama_generate": ollama.GenerateResponse,
    "ollama_embed": ollama.EmbedResponse,
    "ollama_embeddings": ollama.EmbeddingsResponse,
}
EVENTS: dict[str, Any] = {
    "openai_chat": ChatCompletionChunk,
    "openai_responses": ResponseStreamEvent,
    "openai_completions": Completion,
    "anthropic_messages": claude.RawMessageStreamEvent,
    "gemini": google.GenerateContentResponse,
    "ollama_chat": ollama.ChatResponse,
    "ollama_generate": ollama.GenerateResponse,
}
# google.rpc.Code, as its JSON says them.
GOOGLE_CODES = frozenset({
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
})  # fmt: skip
# Seen in OpenAI's own errors, and in the SDK's `APIError.type` documentation.
OPENAI_TYPES = frozenset({
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "rate_limit_error",
    "insufficient_quota", "server_error", "api_error", "tokens", "requests", "timeout_error", "overloaded_error",
    "service_unavailable_error", "upstream_error", "conflict_error",
})  # fmt: skip


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _strictly(kind: Any, tree: Any) -> Any:
    adapter = _adapter(kind)
    return adapter.dump_python(adapter.validate_python(tree), mode="json", by_alias=True, exclude_unset=True, warnings=False)


def _leniently(kind: Any, shape: str, tree: Any) -> Any:
    if shape in _FROM_GOOGLE:
        return kind._from_response(response=_FROM_GOOGLE[shape](tree), kwargs={}).model_dump(mode="json", by_alias=True, exclude_unset=True)
    build = _BUILD.get(shape.partition("_")[0])
    if build is None:
        return _strictly(kind, tree)
    built = build(type_=kind, value=tree)
    return built.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False) if hasattr(built, "model_dump") else built


def reply(shape: str, body: bytes, *, own: bool = False) -> JSON:
    """own: it passed in its own shape. Raises what the SDK raises."""
    if shape.startswith("bedrock"):
        return reply_by_boto(body, name="CountTokens" if shape == "bedrock_count" else "Converse")
    kind = REPLIES.get(shape)
    tree = json.loads(body)
    if kind is None:
        return tree
    read: JSON = _leniently(kind, shape, tree) if own else _strictly(kind, tree)
    return read


def events(shape: str, body: bytes, *, own: bool = False) -> list[JSON]:
    """As `reply`, for each event of a stream."""
    if shape == "bedrock_converse":
        told, code = by_boto(body)
        return told + ([{"error": code}] if code else [])
    trees = cut(shape, body)
    kind = EVENTS[shape]
    own = own or shape == "openai_completions"  # its type says that every chunk has a reason to end; OpenAI's own have none
    read: Callable[[Any], JSON] = (lambda tree: _leniently(kind, shape, tree)) if own else (lambda tree: _strictly(kind, tree))
    return [tree if _failing(tree) else read(tree) for tree in trees]


def _failing(tree: JSON) -> bool:
    return "error" in tree and tree["error"] is not None and ("type" not in tree or tree["type"] == "error")


def cut(shape: str, body: bytes) -> list[JSON]:
    """The JSON of each event."""
    if shape == "bedrock_converse":
        return events(shape, body)
    if shape.startswith("ollama"):
        return [json.loads(line) for line in body.splitlines() if line.strip()]
    blocks = body.replace(b"\r\n", b"\n").split(b"\n\n")
    data = [b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")) for block in blocks]
    return [json.loads(one) for one in data if one and one != b"[DONE]"]


def error(shape: str, status: int, headers: dict[str, str], body: bytes) -> str:
    """What is wrong with an error in a shape's own words; "" if nothing is."""
    tree = json.loads(body)
    if not 400 <= status < 600:
        return f"status {status}"
    if shape.startswith("ollama"):
        return "" if set(tree) == {"error"} and isinstance(tree["error"], str) and tree["error"] else f"{tree}"
    if shape.startswith("anthropic"):
        _strictly(claude.ErrorResponse, tree)
        return ""
    if shape.startswith("gemini"):
        told = tree["error"]
        return "" if told["status"] in GOOGLE_CODES and told["code"] == status and told["message"] else f"{told}"
    if shape.startswith("bedrock"):
        known = {each.name for each in operation("ConverseStream").error_shapes} | {"AccessDeniedException"}
        name = headers.get("x-amzn-errortype", "").partition(":")[0]
        return "" if name in known and tree.get("message") else f"{name} {tree}"
    if shape.startswith("cohere"):
        return "" if isinstance(tree.get("message"), str) and tree["message"] else f"{tree}"
    told = tree["error"]
    named = told.keys() >= {"message", "type", "param", "code"} and told["type"] in OPENAI_TYPES
    return "" if named and told["message"] else f"{told}"
