"""Amazon Bedrock's Converse and ConverseStream, both sides.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

from llm_gateway.formats.bedrock_converse.shape import BedrockConverse

__all__ = ["BedrockConverse"]
