"""Which paths exist, and what each means: one table. Pure.

An unknown path is answered in the shape its prefix suggests, a known path with a wrong method gets 405 with `Allow`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Route

CHAT, MESSAGES, GEMINI, GEMINI_ARRAY = "openai_chat", "anthropic_messages", "gemini", "gemini_array"
BEDROCK, OLLAMA, OLLAMA_GENERATE = "bedrock_converse", "ollama_chat", "ollama_generate"

Methods = dict[bytes, Route]


class Branch(Struct, frozen=True):
    """Paths that begin alike and go on with a name: `bare` when nothing follows it, else by what does."""

    prefix: bytes
    bare: Methods
    tails: dict[str, Methods] = {}


def _post(operation: str, shape: str, label: str, **more: object) -> Methods:
    return {b"POST": Route(operation, shape, label, body=True, **more)}  # type: ignore[arg-type]


def _stored(shape: str) -> Route:
    return Route("response", shape, "/v1/responses/{id}", body=True, sealed=True, asked=True)


# OpenAI's API, below its version; Azure has the same below its own.
_OPENAI: dict[bytes, Methods] = {
    b"/chat/completions": _post("chat", CHAT, "/v1/chat/completions"),
    b"/completions": _post("chat", "openai_completions", "/v1/completions"),
    b"/responses": _post("chat", "openai_responses", "/v1/responses", sealed=True),
    b"/embeddings": _post("embeddings", "openai_embeddings", "/v1/embeddings"),
    b"/moderations": _post("moderation", "openai_moderation", "/v1/moderations"),
    b"/images/generations": _post("images", "openai_images", "/v1/images/generations"),
    b"/images/edits": _post("images", "openai_image_edits", "/v1/images/edits"),
    b"/audio/speech": _post("speech", "openai_speech", "/v1/audio/speech"),
    b"/audio/transcriptions": _post("transcription", "openai_transcription", "/v1/audio/transcriptions"),
    b"/audio/translations": _post("transcription", "openai_translation", "/v1/audio/translations"),
    b"/rerank": _post("rerank", "rerank", "/v1/rerank"),
    b"/models": {b"GET": Route("models", CHAT, "/v1/models")},
}
EXACT: dict[bytes, Methods] = {
    **{b"/v1" + path: methods for path, methods in _OPENAI.items()},
    **{b"/openai/v1" + path: methods for path, methods in _OPENAI.items()},
    b"/openai/models": {b"GET": Route("models", CHAT, "/v1/models")},
    b"/openai/responses": _post("chat", "openai_responses", "/v1/responses", sealed=True),
    b"/v2/embed": _post("embeddings", "cohere_embed", "/v2/embed"),
    b"/v1/embed": _post("embeddings", "cohere_embed_v1", "/v1/embed"),
    b"/v2/rerank": _post("rerank", "rerank", "/v1/rerank"),
    b"/v1/messages": _post("chat", MESSAGES, "/v1/messages", id_header=b"request-id"),
    b"/v1/messages/count_tokens": _post("count", "anthropic_count", "/v1/messages/count_tokens", id_header=b"request-id"),
    b"/api/chat": _post("chat", OLLAMA, "/api/chat"),
    b"/api/generate": _post("chat", OLLAMA_GENERATE, "/api/generate"),
    b"/api/embed": _post("embeddings", "ollama_embed", "/api/embed"),
    b"/api/embeddings": _post("embeddings", "ollama_embeddings", "/api/embeddings"),
    b"/api/tags": {b"GET": Route("models", OLLAMA, "/v1/models")},
    b"/api/show": {b"POST": Route("model", OLLAMA, "/v1/models/{id}")},
    b"/api/ps": {b"GET": Route("running", OLLAMA, "/api/ps")},
    b"/api/version": {b"GET": Route("version", OLLAMA, "/api/version", open=True)},
    b"/v1beta/models": {b"GET": Route("models", GEMINI, "/v1/models")},
    b"/health": {b"GET": Route("health", CHAT, "/health", open=True)},
    b"/health/live": {b"GET": Route("live", CHAT, "/health/live", open=True)},
    b"/health/ready": {b"GET": Route("ready", CHAT, "/health/ready", open=True)},
}
# The SSE framing of a Gemini stream has to be asked for.
_GEMINI: dict[str, Methods] = {
    ":generateContent": _post("chat", GEMINI, "generateContent", stream=False),
    ":embedContent": _post("embeddings", "gemini_embed", "embedContent", stream=False),
    ":batchEmbedContents": _post("embeddings", "gemini_embed_batch", "batchEmbedContents", stream=False),
    ":countTokens": _post("count", "gemini_count", "countTokens", stream=False),
    ":streamGenerateContent": _post("chat", GEMINI, "streamGenerateContent", stream=True),
}
_BEDROCK: dict[str, Methods] = {
    "/count-tokens": _post("count", "bedrock_count", "/model/{id}/count-tokens", stream=False),
    "/converse": _post("chat", BEDROCK, "/model/{id}/converse", stream=False),
    "/converse-stream": _post("chat", BEDROCK, "/model/{id}/converse-stream", stream=True),
}
_STORED: Methods = {b"GET": _stored("openai_response"), b"DELETE": _stored("openai_response_delete")}
_OF_STORED: dict[str, Methods] = {
    "/cancel": {b"POST": _stored("openai_response_cancel")},
    "/input_items": {b"GET": _stored("openai_response_input")},
}
BRANCHES: tuple[Branch, ...] = (
    Branch(b"/v1/models/", {b"GET": Route("model", CHAT, "/v1/models/{id}")}, _GEMINI),
    Branch(b"/v1beta/models/", {b"GET": Route("model", GEMINI, "/v1/models/{id}")}, _GEMINI),
    Branch(b"/v1/responses/", _STORED, _OF_STORED),
    Branch(b"/openai/v1/responses/", _STORED, _OF_STORED),
    Branch(b"/openai/responses/", _STORED, _OF_STORED),
    Branch(b"/openai/v1/models/", {b"GET": Route("model", CHAT, "/v1/models/{id}")}),
    Branch(b"/model/", {}, _BEDROCK),
    Branch(b"/openai/deployments/", {}, {path.decode(): methods for path, methods in _OPENAI.items() if b"POST" in methods}),
)
STREAM_ARRAY = Route("chat", GEMINI_ARRAY, "streamGenerateContent", body=True, stream=True)
# The same lists for a caller of Gemini's shape at a path that two shapes share.
LISTS = {"models": Route("models", GEMINI, "/v1/models"), "model": Route("model", GEMINI, "/v1/models/{id}")}
UNKNOWN = Route("unknown", CHAT, "other", open=True)
UNKNOWN_GEMINI = Route("unknown", GEMINI, "other", open=True)
UNKNOWN_MESSAGES = Route("unknown", MESSAGES, "other", open=True, id_header=b"request-id")
UNKNOWN_OLLAMA = Route("unknown", OLLAMA, "other", open=True)
UNKNOWN_BEDROCK = Route("unknown", BEDROCK, "other", open=True)
PREFLIGHT = Route("preflight", CHAT, "preflight", open=True)

_HEX = b"0123456789abcdefABCDEF"


def match(method: bytes, path: bytes) -> tuple[Route, tuple[str, ...]]:
    """The route and its path parameters. Raises Fault NOT_FOUND or METHOD (its `headers` hold `Allow`)."""
    methods = EXACT.get(path)
    params: tuple[str, ...] = ()
    if methods is None:
        if path == b"*" and method == b"OPTIONS":
            return PREFLIGHT, ()
        methods, params = _by_prefix(path)
    route = methods.get(method)
    if route is None and method == b"HEAD":
        route = methods.get(b"GET")
    elif route is None and method == b"OPTIONS":
        route = PREFLIGHT
    if route is None:
        raise _refused(methods, method)
    return route, params


def unknown(path: bytes) -> Route:
    """The route that stands for a path we do not have, in the shape its caller most likely speaks."""
    if path.startswith(b"/v1/messages"):
        return UNKNOWN_MESSAGES
    if path.startswith(b"/api/"):
        return UNKNOWN_OLLAMA
    if path.startswith(b"/model/"):
        return UNKNOWN_BEDROCK
    return UNKNOWN_GEMINI if path.startswith((b"/v1beta/", b"/v1/models/")) else UNKNOWN


def voiced(route: Route, headers: Mapping[bytes, bytes], query: bytes) -> Route:
    """The route in the shape its caller speaks, for what the path alone does not say: how a stream is framed, and who asks
    for a list of models."""
    if route.stream and route.format == GEMINI:
        return route if b"alt=sse" in query.split(b"&") else STREAM_ARRAY
    if route.operation in LISTS and (b"x-goog-api-key" in headers or query.startswith(b"key=") or b"&key=" in query):
        return LISTS[route.operation]
    return route


def decode(segment: bytes) -> str:
    """Percent-decodes one path segment, once (RFC 3986 section 2.1). Raises ValueError on broken escapes or UTF-8."""
    if b"%" not in segment:
        return segment.decode()
    head, *rest = segment.split(b"%")
    out = bytearray(head)
    for piece in rest:
        if len(piece) < 2 or piece[0] not in _HEX or piece[1] not in _HEX:
            raise ValueError("broken percent escape")
        out.append(int(piece[:2], 16))
        out += piece[2:]
    return out.decode()


def _by_prefix(path: bytes) -> tuple[Methods, tuple[str, ...]]:
    for branch in BRANCHES:
        prefix = branch.prefix
        if path.startswith(prefix) and len(path) > len(prefix):
            try:
                name = decode(path[len(prefix) :])
            except ValueError:
                break
            for tail, methods in branch.tails.items():
                if name.endswith(tail) and len(name) > len(tail):
                    return methods, (name.removesuffix(tail),)
            if branch.bare:
                return branch.bare, (name,)
    raise Fault(Kind.NOT_FOUND, f"Unknown path {printable(path)}. The API lives under /v1 (Gemini's under /v1beta); see the documentation.")


def _refused(methods: dict[bytes, Route], method: bytes) -> Fault:
    fault = Fault(Kind.METHOD, f"{printable(method)} is not allowed here; use {_allow(methods).decode()}.")
    fault.headers = ((b"allow", _allow(methods)),)
    return fault


def _allow(methods: dict[bytes, Route]) -> bytes:
    return b", ".join([*methods, *([b"HEAD"] if b"GET" in methods else []), b"OPTIONS"]) if methods else b""


def printable(raw: bytes) -> str:
    """A client's bytes, fit for an error message: ASCII, at most 100 characters."""
    return raw[:100].decode("ascii", "replace").replace("\ufffd", "?")
