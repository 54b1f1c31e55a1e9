"""Which module speaks to which row of the table. The only place, beside the table, where providers are named."""

from __future__ import annotations

from llm_gateway.providers.anthropic import Anthropic
from llm_gateway.providers.azure import Azure
from llm_gateway.providers.bedrock import Bedrock
from llm_gateway.providers.cohere import Cohere
from llm_gateway.providers.contract import Provider
from llm_gateway.providers.gemini import Gemini
from llm_gateway.providers.ollama import Ollama
from llm_gateway.providers.openai import OpenAI
from llm_gateway.providers.table import SERVICES
from llm_gateway.providers.vertex import Vertex


def provider(kind: str) -> Provider:
    """The provider for a `type` of the configuration. KeyError for one that the table does not have."""
    service = SERVICES[kind]
    match service.protocol:
        case "bedrock":
            return Bedrock()
        case "ollama":
            return Ollama()
        case "openai" | "echo":
            return OpenAI(service)
        case "cohere":
            return Cohere()
        case "vertex":
            return Vertex()
        case "azure":
            return Azure(service)
        case "anthropic":
            return Anthropic()
        case "gemini" | "google":
            return Gemini(compatible=service.protocol == "google")
