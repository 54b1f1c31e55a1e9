"""OpenAI's responses, both sides. https://platform.openai.com/docs/api-reference/responses"""

from llm_gateway.formats.openai_responses.sealing import handed_ids, sealed_reply, with_ids
from llm_gateway.formats.openai_responses.shape import OpenAIResponses

__all__ = ["OpenAIResponses", "handed_ids", "sealed_reply", "with_ids"]
