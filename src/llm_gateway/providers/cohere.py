"""Cohere: its own API for embeddings and ranking, its OpenAI endpoint for conversations.

Source: https://docs.cohere.com/reference/embed, .../rerank, https://docs.cohere.com/docs/compatibility-api. A configured root
ends in `/compatibility/v1`, where the OpenAI endpoint hangs; the rest of the API lies beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault

_COMPATIBLE = "/compatibility/v1"
_FORMS: dict[Operation, tuple[str, ...]] = {
    "chat": ("openai_chat",),
    "embeddings": ("cohere_embed", "openai_embeddings"),
    "rerank": ("rerank",),
}
_OWN = {"/rerank": "/v2/rerank", "/v2/embed": "/v2/embed"}  # what a shape calls its path -> Cohere's


class Cohere:
    static = True
    by_value: frozenset[str] = frozenset()
    betas: Mapping[str, str] | None = None

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return _FORMS.get(operation, ())

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        base = account.root.removesuffix(_COMPATIBLE).removesuffix("/v1").removesuffix("/v2")
        own = _OWN.get(outgoing.path)
        path = f"{base}{_COMPATIBLE}{outgoing.path}" if own is None else f"{base}{own}"
        return Wire(outgoing.method, path.encode(), _headers(account), outgoing.body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        base = account.root.removesuffix(_COMPATIBLE).removesuffix("/v1").removesuffix("/v2")
        return Wire(b"GET", f"{base}{_COMPATIBLE}/models".encode(), _headers(account), b"")


def _headers(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", b"Bearer " + account.key.encode()), *account.headers)
