"""Token log probabilities <-> Logprob."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from llm_gateway.core.types import Logprob


class TopLogprob(Struct, gc=False):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(Struct, gc=False):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Struct, gc=False):
    content: list[TokenLogprob] | None = None


def read(logprobs: Logprobs | None) -> tuple[Logprob, ...] | None:
    if logprobs is None or logprobs.content is None:
        return None
    return tuple(
        Logprob(
            one.token,
            one.logprob,
            one.bytes,
            tuple(Logprob(top.token, top.logprob, top.bytes) for top in one.top_logprobs or ()),
        )
        for one in logprobs.content
    )


def write(logprobs: tuple[Logprob, ...]) -> dict[str, Any]:
    return {
        "content": [{**_token(one), "top_logprobs": [_token(top) for top in one.top]} for one in logprobs],
        "refusal": None,
    }


def _token(one: Logprob) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": one.bytes}
