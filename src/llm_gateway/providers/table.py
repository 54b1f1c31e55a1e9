"""Every service we know by name, as data. Adding an OpenAI-compatible provider is one row here.

`base_url` is where the service lives, with the path its API hangs under; `key_env` the variables its own SDK reads, first
one set wins. A configured base URL without a path gets the service's own ("https://api.openai.com" -> "/v1"), one with
a path is taken as it is, except where `versioned` says that the vendor's SDK adds the version itself.
`type` is the row's name in configuration; `protocol` the module that speaks to it. `implied`: a key in the environment is
enough to have it.
`cloud`: whose credentials it takes instead of a key, which the operator process fetches; `asked`: only where configuration
says so. `places`: where it lives by region, "" for those without a place of their own; `region_env`: variables that say the region.
`resource`: the path that stands between base URL and API, of accounts that are no keys. `options`: those of a configured
provider that mean something to it, and nothing to others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Struct

from llm_gateway.providers.contract import Operation

Protocol = Literal["openai", "anthropic", "azure", "gemini", "google", "ollama", "bedrock", "vertex", "cohere", "echo"]
Cloud = Literal["", "aws", "google", "azure"]

CHAT, COMPLETIONS, RESPONSES, MESSAGES = "openai_chat", "openai_completions", "openai_responses", "anthropic_messages"
OPENAI_SHAPES: dict[Operation, tuple[str, ...]] = {
    "embeddings": ("openai_embeddings",),
    "images": ("openai_images", "openai_image_edits"),
    "speech": ("openai_speech",),
    "transcription": ("openai_transcription", "openai_translation"),
    "moderation": ("openai_moderation",),
    "rerank": ("rerank",),
    "response": ("openai_response", "openai_response_delete", "openai_response_cancel", "openai_response_input"),
}
_EMBEDDINGS: frozenset[Operation] = frozenset({"embeddings"})
_RANKS: frozenset[Operation] = frozenset({"embeddings", "rerank"})
_SOUNDS: frozenset[Operation] = frozenset({"speech", "transcription"})
_ALL: frozenset[Operation] = frozenset({"embeddings", "images", "speech", "transcription", "moderation", "response"})


# OpenAI's are its organisation's ("organization_id did not match"), Azure's the resource's; nobody's are another vendor's.
_RESPONSES_SEALS: Mapping[str, str] = MappingProxyType({
    RESPONSES: "encrypted_content", "openai_response": "encrypted_content", "openai_response_input": "encrypted_content",
})  # fmt: skip
# Google says nothing of it; "Corrupted thought signature" (400) is what users see on other accounts.
_GOOGLES_SEALS = {"gemini": "thoughtSignature", "gemini_array": "thoughtSignature", CHAT: "thought_signature"}


class Service(Struct, frozen=True, kw_only=True):
    """`chat`: the shapes it takes conversations in, the one to cross to first; `only`: patterns of model names
    that take them in other shapes; `offers`: what else it does, in OpenAI's shapes or, for rerank, in Cohere's. `seals`: by shape,
    the member of its replies that only the account which made it can read back. `forgets`: it refuses a conversation that holds
    what a model thought ("property 'reasoning_content' is unsupported")."""

    protocol: Protocol = "openai"
    base_url: str = ""
    key_env: tuple[str, ...] = ()
    url_env: tuple[str, ...] = ()
    keyless: bool = False
    versioned: bool = False
    implied: bool = True
    catalogue: str = ""
    probe: str = "/models"
    chat: tuple[str, ...] = (CHAT,)
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    offers: frozenset[Operation] = frozenset()
    cloud: Cloud = ""
    asked: bool = False
    places: Mapping[str, str] = {}
    region_env: tuple[str, ...] = ()
    resource: str = ""
    options: frozenset[str] = frozenset()
    seals: Mapping[str, str] = _RESPONSES_SEALS
    forgets: bool = False

    def place(self, region: str) -> str:
        """The base URL in `region`."""
        if not region or not self.places:
            return self.base_url
        host = self.places.get(region) or self.places[""].format(region=region)
        return host + urlsplit(self.base_url).path

    def region(self, base_url: str) -> str:
        """Of one of its own addresses; "" for any other."""
        host = "://".join(urlsplit(base_url)[:2])
        named = next((region for region, place in self.places.items() if place == host), "")
        pattern = re.escape(self.places.get("", "")).replace(r"\{region\}", "([a-z0-9-]+)")
        found = re.fullmatch(pattern, host) if pattern else None
        return named or (found[1] if found is not None else "")

    def shapes(self, operation: Operation, model: str) -> tuple[str, ...]:
        """The shapes of `operation` for `model`, of a service that speaks OpenAI's API."""
        if operation == "chat":
            return next((shapes for pattern, shapes in self.only if re.match(pattern, model)), self.chat)
        return OPENAI_SHAPES[operation] if operation in self.offers else ()

    def root(self, base_url: str) -> str:
        """The path prefix for requests to `base_url`, without trailing slash."""
        own = urlsplit(self.base_url).path.rstrip("/")
        given = urlsplit(base_url).path.rstrip("/")
        if not given:
            return own
        if self.versioned and not given.endswith(own):
            return given + own
        return given


def _compatible(base_url: str, *key_env: str, **more: Any) -> Service:
    return Service(base_url=base_url, key_env=key_env, **more)


_OPENAI_CHAT = (CHAT, RESPONSES, COMPLETIONS)
# Models that one shape alone reaches (https://platform.openai.com/docs/models).
_OPENAI_ONLY = (
    (r"(gpt-3\.5-turbo-instruct|davinci-002|babbage-002)", (COMPLETIONS,)),
    (r"(o\d|gpt-\d[.\d]*)-pro|.*(codex|deep-research)|computer-use", (RESPONSES,)),
)

SERVICES: dict[str, Service] = {
    "openai": Service(
        base_url="https://api.openai.com/v1",
        key_env=("OPENAI_API_KEY",),
        url_env=("OPENAI_BASE_URL",),
        catalogue="openai",
        chat=_OPENAI_CHAT,
        only=_OPENAI_ONLY,
        offers=_ALL,
    ),
    "anthropic": Service(
        protocol="anthropic",
        base_url="https://api.anthropic.com/v1",
        key_env=("ANTHROPIC_API_KEY",),
        url_env=("ANTHROPIC_BASE_URL",),
        versioned=True,
        catalogue="anthropic",
        chat=(MESSAGES,),
    ),
    "azure": Service(
        protocol="azure",
        key_env=("AZURE_OPENAI_API_KEY",),
        url_env=("AZURE_OPENAI_ENDPOINT",),
        catalogue="azure",
        probe="/openai/v1/models",
        chat=_OPENAI_CHAT,
        only=_OPENAI_ONLY,
        offers=_ALL - {"moderation"},
        cloud="azure",
        asked=True,
        options=frozenset({"entra"}),
    ),
    "bedrock": Service(
        protocol="bedrock",
        base_url="https://bedrock-runtime.us-east-1.amazonaws.com",
        key_env=("AWS_BEARER_TOKEN_BEDROCK",),
        url_env=("AWS_ENDPOINT_URL_BEDROCK_RUNTIME",),
        catalogue="aws",
        cloud="aws",
        places={"": "https://bedrock-runtime.{region}.amazonaws.com"},
        region_env=("AWS_REGION", "AWS_DEFAULT_REGION"),
        options=frozenset({"profile", "role_arn", "external_id"}),
    ),
    "together": _compatible(
        "https://api.together.xyz/v1", "TOGETHER_API_KEY", catalogue="together", chat=(CHAT, COMPLETIONS),
        offers=_RANKS | _SOUNDS | {"images"},
    ),
    "vllm": _compatible(
        "http://localhost:8000/v1", "VLLM_API_KEY", keyless=True, chat=(CHAT, COMPLETIONS, RESPONSES),
        offers=_RANKS | {"transcription", "response"},
    ),
    "ollama": Service(
        protocol="ollama",
        base_url="http://localhost:11434/v1",
        key_env=("OLLAMA_API_KEY",),
        url_env=("OLLAMA_HOST",),
        keyless=True,
    ),
    "lmstudio": _compatible(
        "http://localhost:1234/v1", keyless=True, chat=_OPENAI_CHAT, offers=_EMBEDDINGS | {"response"}
    ),
    "llamacpp": _compatible("http://localhost:8080/v1", keyless=True, chat=(CHAT, COMPLETIONS), offers=_RANKS),
    "openai_compatible": Service(
        base_url="http://localhost/v1", keyless=True, chat=(CHAT, COMPLETIONS), offers=_ALL | _RANKS
    ),
    "google": Service(
        protocol="google",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        catalogue="google",
        seals=_GOOGLES_SEALS,
    ),
    "gemini": Service(
        protocol="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        implied=False,
        catalogue="google",
        seals=_GOOGLES_SEALS,
    ),
    # Sources: https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations and the hosts in Anthropic's SDK.
    "vertex": Service(
        protocol="vertex",
        base_url="https://aiplatform.googleapis.com/v1",
        catalogue="google",
        cloud="google",
        places={
            "global": "https://aiplatform.googleapis.com",
            "us": "https://aiplatform.us.rep.googleapis.com",
            "eu": "https://aiplatform.eu.rep.googleapis.com",
            "": "https://{region}-aiplatform.googleapis.com",
        },
        region_env=("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION"),
        resource="/projects/{project}/locations/{region}",
        seals=_GOOGLES_SEALS,
        options=frozenset({"project", "credentials"}),
    ),
    "groq": _compatible(
        "https://api.groq.com/openai/v1", "GROQ_API_KEY", catalogue="groq", chat=(CHAT, RESPONSES), offers=_SOUNDS,
        forgets=True,
    ),
    "mistral": _compatible(
        "https://api.mistral.ai/v1", "MISTRAL_API_KEY", catalogue="mistral",
        offers=_EMBEDDINGS | {"moderation", "transcription"}, forgets=True,
    ),
    "deepseek": _compatible(
        "https://api.deepseek.com", "DEEPSEEK_API_KEY", catalogue="deepseek", chat=(CHAT, RESPONSES)
    ),
    "xai": _compatible(
        "https://api.x.ai/v1", "XAI_API_KEY", catalogue="x-ai", chat=(CHAT, RESPONSES), offers=frozenset({"images", "response"})
    ),
    "fireworks": _compatible(
        "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", catalogue="fireworks", chat=_OPENAI_CHAT,
        offers=_RANKS | {"response"},
    ),
    "openrouter": _compatible(
        "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", catalogue="openrouter", chat=_OPENAI_CHAT, offers=_EMBEDDINGS
    ),
    "cerebras": _compatible(
        "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", catalogue="cerebras", chat=(CHAT, COMPLETIONS), forgets=True
    ),
    "perplexity": _compatible(
        "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "PPLX_API_KEY", catalogue="perplexity"
    ),
    "nvidia": _compatible(
        "https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", chat=(CHAT, COMPLETIONS), offers=_EMBEDDINGS
    ),
    "cohere": Service(
        protocol="cohere",
        base_url="https://api.cohere.ai/compatibility/v1",
        key_env=("COHERE_API_KEY", "CO_API_KEY"),
        catalogue="cohere",
    ),
    "voyage": _compatible("https://api.voyageai.com/v1", "VOYAGE_API_KEY", chat=(), offers=_RANKS),
    "jina": _compatible("https://api.jina.ai/v1", "JINA_API_KEY", chat=(), offers=_RANKS),
    "huggingface": _compatible(
        "https://router.huggingface.co/v1", "HF_TOKEN", catalogue="huggingface_together", chat=(CHAT, RESPONSES)
    ),
    "moonshot": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", catalogue="moonshotai"),
    "zai": _compatible("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "alibaba": _compatible(
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", offers=_EMBEDDINGS
    ),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY", offers=_EMBEDDINGS),
    "deepinfra": _compatible(
        "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", chat=(CHAT, COMPLETIONS), offers=_EMBEDDINGS | {"images"}
    ),
    "novita": _compatible(
        "https://api.novita.ai/v3/openai", "NOVITA_API_KEY", catalogue="novita", chat=(CHAT, COMPLETIONS), offers=_RANKS
    ),
    "hyperbolic": _compatible("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY", chat=(CHAT, COMPLETIONS)),
    "nebius": _compatible(
        "https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY", chat=(CHAT, COMPLETIONS), offers=_EMBEDDINGS | {"images"}
    ),
    "avian": _compatible("https://api.avian.io/v1", "AVIAN_API_KEY", catalogue="avian"),
    "heroku": _compatible(
        "https://us.inference.heroku.com/v1", "HEROKU_API_KEY", offers=_EMBEDDINGS | {"images"}
    ),
    "ollama_cloud": Service(protocol="ollama", base_url="https://ollama.com/v1", key_env=("OLLAMA_CLOUD_API_KEY",)),
    "vercel": _compatible("https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY", offers=_EMBEDDINGS),
    "github": _compatible("https://models.github.ai/inference", "GITHUB_TOKEN", offers=_EMBEDDINGS),
    "crusoe": _compatible("https://api.inference.crusoecloud.com/v1", "CRUSOE_API_KEY"),
    "echo": Service(protocol="echo", base_url="echo://local", keyless=True),
}  # fmt: skip


def sells(kind: str, wanted: str) -> bool:
    """Whether a provider of type `kind` has the models of type `wanted`: one vendor may be several rows."""
    service, other = SERVICES.get(kind), SERVICES.get(wanted)
    return kind == wanted or (
        service is not None and other is not None and service.catalogue != "" and service.catalogue == other.catalogue
    )
