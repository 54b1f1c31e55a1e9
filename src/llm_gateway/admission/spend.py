"""What was spent before this worker began to count: the operator's spend table, once it holds all that was journalled until then.

Law: reads only. Until the operator has said which table holds, nothing is known (None), and hard budgets wait. What the table does not
name was not spent on; what it says of another window is over.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from llm_gateway.core.tenancy import Claim, place
from llm_gateway.policies.windows import window
from llm_gateway.stores.tables import Table, TableError

_decode = msgspec.msgpack.Decoder(tuple[str, int]).decode


class Spend:
    """core.gauges.Seeds. `unread`: tables that could not be read."""

    def __init__(self) -> None:
        self.unread = 0
        self._table: Table | None = None

    def open(self, path: Path) -> None:
        """From now on this one; a damaged one is not taken."""
        try:
            self._table = Table(path)
        except (TableError, OSError):
            self.unread += 1

    def spent(self, claim: Claim, wall: float) -> int | None:
        if self._table is None:
            return None
        try:
            value = self._table.get(place(claim.name))
            said, amount = _decode(value) if value is not None else ("", 0)
        except (TableError, msgspec.DecodeError):
            self.unread += 1
            return None
        return amount if value is not None and said == window(claim.period, wall) else 0
