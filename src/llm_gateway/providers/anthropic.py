"""Anthropic: an `x-api-key`, a version header, and the Messages API.

Source: https://docs.anthropic.com/en/api/overview#authentication, https://docs.anthropic.com/en/api/versioning
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault

VERSION = "2023-06-01"


class Anthropic:
    static = True
    by_value: frozenset[str] = frozenset()
    betas: Mapping[str, str] | None = None

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        if operation == "count":
            return ("anthropic_count",)
        return ("anthropic_messages",) if operation == "chat" else ()

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        return Wire(outgoing.method, f"{account.root}{outgoing.path}".encode(), _headers(account, outgoing), outgoing.body)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        return Wire(b"GET", f"{account.root}/models".encode(), _headers(account, None), b"")


def _headers(account: Account, outgoing: Outgoing | None) -> tuple[tuple[bytes, bytes], ...]:
    sent = {name for name, _ in outgoing.headers} if outgoing is not None else set()
    version = (account.api_version or VERSION).encode()
    versions = () if b"anthropic-version" in sent else ((b"anthropic-version", version),)
    return ((b"x-api-key", account.key.encode()), *versions, *account.headers)
