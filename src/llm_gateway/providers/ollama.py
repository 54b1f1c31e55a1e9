"""Ollama, at home or in its cloud: its own API below `/api`, and below `/v1` OpenAI's.

Source: https://docs.ollama.com/api, https://docs.ollama.com/openai, https://docs.ollama.com/cloud. A configured root may end
in `/v1` or `/api`; both hang on the same base. The cloud wants a bearer key, a server at home takes none.
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault

_NATIVE = "/api/"  # what every path of its own shapes begins with
_FORMS: dict[Operation, tuple[str, ...]] = {
    "chat": ("ollama_chat", "ollama_generate", "openai_chat", "openai_completions"),
    "embeddings": ("ollama_embed", "openai_embeddings", "ollama_embeddings"),
}


class Ollama:
    static = True
    by_value = frozenset({"openai_chat"})
    betas: Mapping[str, str] | None = None

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return _FORMS.get(operation, ())

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        below = "" if outgoing.path.startswith(_NATIVE) else "/v1"
        path = f"{_base(account)}{below}{outgoing.path}"
        return Wire(outgoing.method, path.encode(), _headers(account), outgoing.body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        return Wire(b"GET", f"{_base(account)}/api/version".encode(), _headers(account), b"")


def _base(account: Account) -> str:
    return account.root.removesuffix("/v1").removesuffix("/api")


def _headers(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    bearer = ((b"authorization", b"Bearer " + account.key.encode()),) if account.key else ()
    return (*bearer, *account.headers)
