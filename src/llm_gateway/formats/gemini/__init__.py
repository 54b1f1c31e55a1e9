"""Gemini's generateContent and streamGenerateContent, both sides. https://ai.google.dev/api/generate-content"""

from llm_gateway.formats.gemini.shape import Gemini

__all__ = ["Gemini"]
