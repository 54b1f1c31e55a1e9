"""What a reply that never told its usage must have cost: tokens by characters, good to some tens of percent.

Law: used only when a stream was cut or cancelled, and marked `estimated`. Text counts 1 token per 4 characters; strings
that are plainly data (base64, data: URLs) count as one image, never by their bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_gateway.core.types import Usage

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 800
DATA_FROM = 512


def estimate(body: bytes, characters: int) -> Usage:
    """body: the client's request, JSON; characters: of generated text that went by."""
    try:
        tree = msgspec.json.decode(body)
    except msgspec.DecodeError:
        tree = None
    return Usage(input=_prompt(tree), output=-(-characters // CHARACTERS_PER_TOKEN), estimated=True)


def _prompt(tree: Any) -> int:
    texts = images = 0
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            stack += node.values()
        elif isinstance(node, list):
            stack += node
        elif isinstance(node, str):
            if len(node) > DATA_FROM and " " not in node[:DATA_FROM]:
                images += 1
            else:
                texts += len(node)
    return -(-texts // CHARACTERS_PER_TOKEN) + images * IMAGE_TOKENS
