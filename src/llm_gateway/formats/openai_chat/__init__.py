"""OpenAI's chat completions, both sides. https://platform.openai.com/docs/api-reference/chat"""

from llm_gateway.formats.openai_chat.shape import OpenAIChat

__all__ = ["OpenAIChat"]
