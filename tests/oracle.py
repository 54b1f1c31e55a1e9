"""Tokens as another library counts them. It is loaded at the first question: that takes two seconds, and every process of the tests collects all of them."""

from __future__ import annotations

import importlib


def tokens(text: str, vocabulary: str) -> int:
    """vocabulary: o200k_base or cl100k_base."""
    return len(importlib.import_module("bpe_openai").get_encoding(vocabulary).encode_ordinary(text))
