"""Which of our shapes, operations and providers a recorded interaction belongs to; for the rest, why to none.

Law: decided by what the manifest and the URL say. Nothing is skipped in silence: whatever is not served has a reason here.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_gateway.providers.table import SERVICES
from replay.recordings import Interaction

CHAT = (
    "openai_chat", "openai_responses", "openai_completions", "anthropic_messages", "gemini", "bedrock_converse", "ollama_chat",
    "ollama_generate",
)  # fmt: skip
EMBEDDINGS = ("openai_embeddings", "gemini_embed", "gemini_embed_batch", "cohere_embed", "ollama_embed", "ollama_embeddings")
COUNTS = ("anthropic_count", "gemini_count", "bedrock_count")
CLIENTS = {"chat": CHAT, "embeddings": EMBEDDINGS, "count": COUNTS, "moderation": ("openai_moderation",), "images": ("openai_images",)}

# Shapes that upstreams speak and no client of ours does.
UPSTREAMS = {"embeddings": ("bedrock_titan_embed", "bedrock_cohere_embed", "vertex_embed")}

_FORMS = {
    "chat_completions": "openai_chat",
    "responses": "openai_responses",
    "completions": "openai_completions",
    "messages": "anthropic_messages",
    "generateContent": "gemini",
    "streamGenerateContent": "gemini",
    "converse": "bedrock_converse",
    "converse-stream": "bedrock_converse",
    "ollama_chat": "ollama_chat",
    "ollama_generate": "ollama_generate",
    "ollama_embed": "ollama_embed",
    "moderations": "openai_moderation",
    "images": "openai_images",
}
_KINDS = {
    "vercel-gateway": "vercel",
    "ollama-cloud": "ollama_cloud",
    "gpustack": "openai_compatible",
    "snowflake": "openai_compatible",
}
_UNSERVED = {
    "batches": "batches are not served yet",
    "cachedContents": "caches that a client manages itself are not served",
    "interactions": "Gemini's interactions API is not served; generateContent is",
    "cohere_chat_v1": "Cohere is reached through its OpenAI endpoint; its own chat API is not served",
    "cohere_chat_v2": "Cohere is reached through its OpenAI endpoint; its own chat API is not served",
    "models": "lists of models are the gateway's own, from its catalogue; none is asked of an upstream",
    "ollama_meta": "lists of models are the gateway's own, from its catalogue; none is asked of an upstream",
}
_OTHER_INVOKE = "Bedrock's invoke is spoken to Claude's Messages API and Titan's embeddings; other models are reached by Converse"


class Served(NamedTuple):
    """`form`: the shape spoken with the upstream. `kind`: the type of the provider. `wrapped`: Claude's messages in a cloud's own
    wrapping, which the provider makes."""

    form: str
    operation: str
    kind: str
    wrapped: bool = False


def served(one: Interaction) -> Served | str:
    """Where it belongs, or the reason why nowhere."""
    api, provider = one.row["api"], one.row["provider"]
    kind = _KINDS.get(provider, provider)
    assert kind in SERVICES, kind
    if api in _UNSERVED:
        return _UNSERVED[api]
    if one.url_path.endswith("/responses/compact"):
        return "compaction of a response's input is not served"
    if one.row["body_kind"] == "json-array":
        return "an upstream is always asked for events; the array framing is what our own clients may have"
    if api in {"invoke", "invoke-stream"}:
        return _invoked(one, kind)
    if api == "embeddings":
        return _embedded(one, kind)
    if api == "count_tokens":
        return Served({"anthropic": "anthropic_count", "bedrock": "bedrock_count"}.get(provider, "gemini_count"), "count", kind)
    form = _FORMS[api]
    operation = next(name for name, forms in CLIENTS.items() if form in forms)
    return Served(form, operation, kind, wrapped=(provider, api) == ("vertex", "messages"))


def _invoked(one: Interaction, kind: str) -> Served | str:
    model = str(one.row["model"])
    if "claude" in model and "messages" in (one.request or {}):
        return Served("anthropic_messages", "chat", kind, wrapped=True)
    if "titan-embed" in model:
        return Served("bedrock_titan_embed", "embeddings", kind)
    return _OTHER_INVOKE


def _embedded(one: Interaction, kind: str) -> Served | str:
    path = one.url_path
    for end, form in (
        (":predict", "vertex_embed"), (":batchEmbedContents", "gemini_embed_batch"), (":embedContent", "gemini_embed"),
        ("/v2/embed", "cohere_embed"), ("/api/embeddings", "ollama_embeddings"),
    ):  # fmt: skip
        if path.endswith(end):
            return Served(form, "embeddings", kind)
    return Served("openai_embeddings", "embeddings", kind)
