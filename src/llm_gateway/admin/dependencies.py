"""What the gateway leans on besides providers, as /health shows it: Redis and the disk.

Law: bounded waits, no client library; one PING says all that is shown.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from llm_gateway.stores.redis.dial import ping
from llm_gateway.stores.redis.terms import Terms


class Dependencies:
    """`redis`: None where none is configured."""

    def __init__(self) -> None:
        self.redis: bool | None = None

    async def probe(self, terms: Terms | None) -> None:
        self.redis = await ping(terms) if terms is not None else None


def disk_space_gb(folder: str) -> float:
    """Free space where the journal goes; 0 where that cannot be told."""
    try:
        return round(shutil.disk_usage(Path(folder)).free / 1e9, 1)
    except OSError:
        return 0.0
