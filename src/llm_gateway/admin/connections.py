"""The operator's connections: how many there may be, how long a head may take to come, and how long it may be.

Law: who has no token costs the operator next to nothing. The library bounds none of this: idle connections took every descriptor, so that the audit
log and the database could not be opened, and a head without end took all memory. Connections by the socket in data_dir are its owner's, and
always find room.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST = 512
SPARE_FILES = 256  # of the operator's own: database, journals, workers, what it fetches
HEAD_SECONDS = 10.0
LONGEST_HEAD = 64 << 10  # bytes that come without a head or a piece of body being whole


class Connection(HttpToolsProtocol):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._late: asyncio.TimerHandle | None = None
        self._pending = 0
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._counted = isinstance(transport.get_extra_info("sockname"), tuple)  # a socket of data_dir has a path
        if self._counted and sum(getattr(each, "_counted", False) for each in self.connections) > most():
            self.transport.abort()
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > LONGEST_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._heard()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.pipeline and not self.transport.is_closing():
            self._heard()
            self._wait()

    def _wait(self) -> None:
        """For a head."""
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _heard(self) -> None:
        self._pending = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None


def most() -> int:
    """So many that descriptors are left for what the operator is there for."""
    return max(64, min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES))
