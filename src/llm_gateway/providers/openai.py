"""OpenAI and everything that speaks its API: a bearer key and a path.

Source: https://platform.openai.com/docs/api-reference/authentication
"""

from __future__ import annotations

from collections.abc import Mapping

from llm_gateway.core.errors import Fault
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Wire
from llm_gateway.providers.faults import read_fault
from llm_gateway.providers.table import Service


class OpenAI:
    """`service`: what of the API there is, and a cheap authenticated GET below the root."""

    static = True
    by_value: frozenset[str] = frozenset()
    betas: Mapping[str, str] | None = None

    def __init__(self, service: Service) -> None:
        self._service = service

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return self._service.shapes(operation, model)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> Wire:
        return Wire(
            outgoing.method, f"{account.root}{outgoing.path}".encode(), (*_auth(account), *account.headers), outgoing.body
        )

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return read_fault(form, status, headers, body, now)

    def probe(self, account: Account) -> Wire | None:
        return Wire(b"GET", f"{account.root}{self._service.probe}".encode(), (*_auth(account), *account.headers), b"")


def _auth(account: Account) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"authorization", b"Bearer " + account.key.encode()),) if account.key else ()
