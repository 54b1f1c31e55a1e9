"""Counts of tokens for targets that count none themselves: exact where their vocabulary is known, else an estimate.

Law: always an answer, and it says which of the two it is.
"""

from __future__ import annotations

from typing import Protocol

from llm_gateway.accounting.estimate import IMAGE_TOKENS, prompt_tokens
from llm_gateway.core.errors import Fault
from llm_gateway.core.exchange import Exchange
from llm_gateway.egress.slices import LARGE, sliced
from llm_gateway.formats.contract import Format, Stepwise
from llm_gateway.models.tokenizers import encoding, prompt


class Counter(Protocol):
    """supervisor.counting.TokenCounter is one."""

    async def count(self, encoding: str, texts: list[str]) -> int | None: ...


async def counted(x: Exchange, form: Format, model: str, counter: Counter | None) -> tuple[int, bool]:
    """(tokens, exact)."""
    vocabulary = encoding(model)
    if vocabulary is None or counter is None:
        return prompt_tokens(x.body), False
    try:
        call = await sliced(form.read_steps(x.peek)) if x.bytes_in > LARGE and isinstance(form, Stepwise) else form.read_request(x.peek)
    except Fault:  # nobody sends it on, so what is wrong with it is no reason to refuse an estimate
        return prompt_tokens(x.body), False
    asked = prompt(call, vocabulary)
    tokens = await counter.count(vocabulary, asked.texts)
    if tokens is None:
        return prompt_tokens(x.body), False
    return tokens + asked.overhead + asked.media * IMAGE_TOKENS, asked.exact
