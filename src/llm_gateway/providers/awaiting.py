"""A provider whose credentials have not come yet: it is known what it can do, but nothing is sent to it.

Law: no call leaves unauthenticated; whoever is next in line gets the request at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.formats.contract import Format, Outgoing
from llm_gateway.providers.contract import Account, Operation, Provider


class Awaiting:
    static = False
    by_value: frozenset[str] = frozenset()  # nothing is fetched for a call that cannot be made
    betas: Mapping[str, str] | None = None

    def __init__(self, speaker: Provider) -> None:
        self.speaker = speaker

    def formats(self, operation: Operation, model: str) -> tuple[str, ...]:
        return self.speaker.formats(operation, model)

    def address(self, outgoing: Outgoing, account: Account, model: str, now: float) -> NoReturn:
        message = "The gateway has no credentials for this model's provider yet. Try again in a moment."
        raise Fault(Kind.UNAVAILABLE, message, code="no_credentials", retry_after=1.0)

    def fault(self, form: Format, status: int, headers: Mapping[bytes, bytes], body: bytes, now: float) -> Fault:
        return self.speaker.fault(form, status, headers, body, now)

    def probe(self, account: Account) -> None:
        return None
