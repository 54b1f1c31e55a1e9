"""Anthropic's messages, both sides. https://platform.claude.com/docs/en/api/messages"""

from llm_gateway.formats.anthropic_messages.shape import AnthropicMessages

__all__ = ["AnthropicMessages"]
