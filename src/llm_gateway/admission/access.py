"""Who may do what: by the head alone (`identify`), then by the body's top level (`read`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llm_gateway.admission.auth import Keys
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange
from llm_gateway.formats.contract import Format


class Journal(Protocol):
    """`full`: usage can not be recorded now, so nothing new may be used."""

    full: bool


class Admission:
    def __init__(self, keys: Keys, formats: Mapping[str, Format], journal: Journal) -> None:
        self._keys = keys
        self._formats = formats
        self._journal = journal

    def identify(self, x: Exchange) -> None:
        """Finds the principal. Raises Fault UNAUTHENTICATED, or OVERLOADED when usage could not be recorded."""
        if not x.route.open:
            x.principal = self._keys.principal(x.headers, x.query)
        if self._journal.full and x.route.body:
            raise Fault(
                Kind.OVERLOADED,
                "Usage cannot be recorded at the moment; try again.",
                code="journal_full",
                retry_after=5.0,
            )

    def read(self, x: Exchange) -> None:
        """Reads the body's top level and checks that this key may use the model. Raises Fault INVALID, NO_MODEL."""
        model = x.params[0] if x.params else None
        peek = x.peek = self._formats[x.route.format].peek(x.body, model, stream=x.route.stream)
        x.model, x.stream = peek.model, peek.stream
        principal = x.principal
        if principal is not None and principal.models and peek.model not in principal.models:
            raise Fault(
                Kind.NO_MODEL,
                f"The model {peek.model[:100]!r} does not exist or is not available to you.",
                param="model",
            )
