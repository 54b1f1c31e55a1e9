"""Google's Gemini API: an `x-goog-api-key`, and generateContent; beside it Google's own OpenAI endpoint.

Source: https://ai.google.dev/api, https://ai.google.dev/gemini-api/docs/openai. A configured root may end in `/openai`, which
is where the OpenAI endpoint hangs; it is the same API. Google's rate limits say in the body when to come again
(google.rpc.RetryInfo), not in a header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.policies.retry import clamp_retry_after
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault

_NATIVE = "/models/"  # what every path of the Gemini shape begins with
_RETRY_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,9}(?:\.\d{1,9})?)s"')


class Gemini:
    """Clients of the array framing are of the same shape: their framing is made on our side. `compatible`: clients of
    OpenAI's shape are passed on to Google's endpoint of that shape."""

    static = True
    by_value: frozenset[str] = frozenset()
    betas: Mapping[str, str] | None = None

    def __init__(self, *, compatible: bool) -> None:
        native = {
            "chat": ("gemini", "gemini_array"),
            "count": ("gemini_count",),
            "embeddings": ("gemini_embed_batch", "gemini_embed"),
        }
        theirs = {"chat": ("openai_chat",), "embeddings": ("openai_embeddings",)} if compatible else {}
        self._forms = {operation: (*forms, *theirs.get(operation, ())) for operation, forms in native.items()}

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return self._forms.get(operation, ())

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        root = _root(account)
        if outgoing.path.startswith(_NATIVE):
            return Wire(b"POST", f"{root}{outgoing.path}".encode(), _headers(account), outgoing.body)
        bearer = ((b"authorization", b"Bearer " + account.key.encode()), *account.headers)
        return Wire(b"POST", f"{root}/openai{outgoing.path}".encode(), bearer, outgoing.body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return delayed(read_fault(form, status, headers, body, now), body)

    def probe(self, account: Account) -> Wire | None:
        return Wire(b"GET", f"{_root(account)}/models?pageSize=1".encode(), _headers(account), b"")


def delayed(fault: Fault, body: bytes) -> Fault:
    """With the time to come again that Google's error body says."""
    delay = _RETRY_DELAY.search(body) if fault.retry_after is None else None
    if delay is not None and fault.kind in {Kind.UPSTREAM_RATE_LIMIT, Kind.OVERLOADED}:
        fault.retry_after = clamp_retry_after(float(delay[1]))
    return fault


def _root(account: Account) -> str:
    return account.root.removesuffix("/openai")


def _headers(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-goog-api-key", account.key.encode()), *account.headers)
