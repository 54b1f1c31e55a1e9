"""Every service we know by name, as data. Adding an OpenAI-compatible provider is one row here.

`base_url` is where the service lives, with the path its API hangs under; `key_env` the variables its own SDK reads, first
one set wins. A configured base URL without a path gets the service's own ("https://api.openai.com" -> "/v1"), one with
a path is taken as it is, except where `versioned` says that the vendor's SDK adds the version itself.
`type` is the row's name in configuration; `protocol` the module that speaks to it. `implied`: a key in the environment is
enough to have it.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

Protocol = Literal["openai", "anthropic", "azure", "gemini", "google", "echo"]


class Service(Struct, frozen=True, kw_only=True):
    protocol: Protocol = "openai"
    base_url: str = ""
    key_env: tuple[str, ...] = ()
    url_env: tuple[str, ...] = ()
    keyless: bool = False
    versioned: bool = False
    implied: bool = True
    catalogue: str = ""
    probe: str = "/models"

    def root(self, base_url: str) -> str:
        """The path prefix for requests to `base_url`, without trailing slash."""
        own = urlsplit(self.base_url).path.rstrip("/")
        given = urlsplit(base_url).path.rstrip("/")
        if not given:
            return own
        if self.versioned and not given.endswith(own):
            return given + own
        return given


def _compatible(base_url: str, *key_env: str, catalogue: str = "", keyless: bool = False) -> Service:
    return Service(base_url=base_url, key_env=key_env, catalogue=catalogue, keyless=keyless)


SERVICES: dict[str, Service] = {
    "openai": Service(
        base_url="https://api.openai.com/v1",
        key_env=("OPENAI_API_KEY",),
        url_env=("OPENAI_BASE_URL",),
        catalogue="openai",
    ),
    "anthropic": Service(
        protocol="anthropic",
        base_url="https://api.anthropic.com/v1",
        key_env=("ANTHROPIC_API_KEY",),
        url_env=("ANTHROPIC_BASE_URL",),
        versioned=True,
        catalogue="anthropic",
    ),
    "azure": Service(
        protocol="azure",
        key_env=("AZURE_OPENAI_API_KEY",),
        url_env=("AZURE_OPENAI_ENDPOINT",),
        catalogue="azure",
        probe="/openai/v1/models",
    ),
    "together": _compatible("https://api.together.xyz/v1", "TOGETHER_API_KEY", catalogue="together"),
    "vllm": _compatible("http://localhost:8000/v1", "VLLM_API_KEY", keyless=True),
    "ollama": Service(
        base_url="http://localhost:11434/v1", key_env=("OLLAMA_API_KEY",), url_env=("OLLAMA_HOST",), keyless=True
    ),
    "lmstudio": _compatible("http://localhost:1234/v1", keyless=True),
    "llamacpp": _compatible("http://localhost:8080/v1", keyless=True),
    "openai_compatible": Service(base_url="http://localhost/v1", keyless=True),
    "google": Service(
        protocol="google",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        catalogue="google",
    ),
    "gemini": Service(
        protocol="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        implied=False,
        catalogue="google",
    ),
    "groq": _compatible("https://api.groq.com/openai/v1", "GROQ_API_KEY", catalogue="groq"),
    "mistral": _compatible("https://api.mistral.ai/v1", "MISTRAL_API_KEY", catalogue="mistral"),
    "deepseek": _compatible("https://api.deepseek.com", "DEEPSEEK_API_KEY", catalogue="deepseek"),
    "xai": _compatible("https://api.x.ai/v1", "XAI_API_KEY", catalogue="x-ai"),
    "fireworks": _compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", catalogue="fireworks"),
    "openrouter": _compatible("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", catalogue="openrouter"),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", catalogue="cerebras"),
    "perplexity": _compatible(
        "https://api.perplexity.ai", "PERPLEXITY_API_KEY", "PPLX_API_KEY", catalogue="perplexity"
    ),
    "nvidia": _compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY"),
    "cohere": _compatible("https://api.cohere.ai/compatibility/v1", "COHERE_API_KEY", "CO_API_KEY", catalogue="cohere"),
    "huggingface": _compatible("https://router.huggingface.co/v1", "HF_TOKEN", catalogue="huggingface_together"),
    "moonshot": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", catalogue="moonshotai"),
    "zai": _compatible("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "alibaba": _compatible("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "deepinfra": _compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "novita": _compatible("https://api.novita.ai/v3/openai", "NOVITA_API_KEY", catalogue="novita"),
    "hyperbolic": _compatible("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "nebius": _compatible("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "avian": _compatible("https://api.avian.io/v1", "AVIAN_API_KEY", catalogue="avian"),
    "heroku": _compatible("https://us.inference.heroku.com/v1", "HEROKU_API_KEY"),
    "ollama_cloud": _compatible("https://ollama.com/v1", "OLLAMA_CLOUD_API_KEY"),
    "vercel": _compatible("https://ai-gateway.vercel.sh/v1", "AI_GATEWAY_API_KEY"),
    "github": _compatible("https://models.github.ai/inference", "GITHUB_TOKEN"),
    "crusoe": _compatible("https://api.inference.crusoecloud.com/v1", "CRUSOE_API_KEY"),
    "echo": Service(protocol="echo", base_url="echo://local", keyless=True),
}


def sells(kind: str, wanted: str) -> bool:
    """Whether a provider of type `kind` has the models of type `wanted`: one vendor may be several rows."""
    service, other = SERVICES.get(kind), SERVICES.get(wanted)
    return kind == wanted or (
        service is not None and other is not None and service.catalogue != "" and service.catalogue == other.catalogue
    )
