"""What a reply that never told its usage must have cost: tokens by characters, good to some tens of percent.

Law: used only when a stream was cut or cancelled, and marked `estimated`. Text counts 1 token per 4 characters; strings
that are plainly data (base64, data: URLs) count as one image, never by their bytes. It runs on the loop, so its work is
bounded: bodies over 32 KiB (1 MB of short messages, taken apart, is 58 ms) are measured by their length, less
the data that is found by its usual marks.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from llm_gateway.core.types import Usage

CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 800
DATA_FROM = 512
LARGE = 32 << 10
MOST_SEARCHES = 1000
MARKS = (b";base64,", b'"data":"', b'"data": "')


def estimate(prompt: int, characters: int, partial: Usage | None = None) -> Usage:
    """prompt: tokens; characters: of generated text that went by; partial: what the stream itself had said so far."""
    output = -(-characters // CHARACTERS_PER_TOKEN)
    if partial is None:
        return Usage(input=prompt, output=output, estimated=True)
    return replace(partial, input=partial.input or prompt, output=max(partial.output, output), estimated=True)


def prompt_tokens(body: bytes) -> int:
    """About how many tokens the client's request (JSON) is."""
    texts, images = _measured(body) if len(body) > LARGE else _counted(body)
    return -(-texts // CHARACTERS_PER_TOKEN) + images * IMAGE_TOKENS


def _counted(body: bytes) -> tuple[int, int]:
    """(characters of text, images) by every string there is."""
    try:
        stack = [msgspec.json.decode(body)]
    except (msgspec.DecodeError, RecursionError):  # RecursionError: this is called with less stack left than its reader was
        return len(body), 0
    texts = images = 0
    while stack:
        node: Any = stack.pop()
        if isinstance(node, dict):
            stack += node.values()
        elif isinstance(node, list):
            stack += node
        elif isinstance(node, str):
            if len(node) > DATA_FROM and " " not in node[:DATA_FROM]:
                images += 1
            else:
                texts += len(node)
    return texts, images


def _measured(body: bytes) -> tuple[int, int]:
    """The same, by a few searches."""
    texts, images, searches = len(body), 0, 0
    for mark in MARKS:
        start = body.find(mark)
        while start >= 0 and searches < MOST_SEARCHES:
            searches += 1
            start += len(mark)
            end = body.find(b'"', start)
            if end - start > DATA_FROM:
                texts -= end - start
                images += 1
            start = body.find(mark, max(start, end))
    return texts, images
