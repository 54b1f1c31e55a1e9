"""Ollama's own chat and generate, both sides. https://docs.ollama.com/api"""

from llm_gateway.formats.ollama.shape import OllamaChat, OllamaGenerate

__all__ = ["OllamaChat", "OllamaGenerate"]
