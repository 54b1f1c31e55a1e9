"""NDJSON as bytes: where a stream's lines end, whatever its cuts.

Law: bytes in, bytes out; knows nothing of JSON or of any API. A line that must be held whole ends the stream at 16 MiB.
"""

from __future__ import annotations

from llm_gateway.core.errors import Fault, Kind

_LARGEST = 16 << 20


class Lines:
    """Cuts a stream into blocks of whole lines. `size`: bytes kept back, of one unfinished line."""

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size = 0

    def feed(self, data: bytes) -> bytes:
        """Every line that is now whole; the very object given where nothing was kept and it ends one, as usual. Raises
        Fault(UPSTREAM_BROKEN) for a line that never ends."""
        cut = data.rfind(b"\n") + 1
        if cut == len(data) and not self._parts:
            return data
        if not cut:
            self._keep(data)
            return b""
        self._parts.append(data[:cut])
        block = self.take()
        if cut < len(data):
            self._keep(data[cut:])
        return block

    def take(self) -> bytes:
        """What is kept, whole or not; nothing is kept afterwards."""
        kept = b"".join(self._parts)
        self._parts = []
        self.size = 0
        return kept

    def _keep(self, data: bytes) -> None:
        self._parts.append(data)
        self.size += len(data)
        if self.size > _LARGEST:
            raise Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event of more than 16 MiB.")
