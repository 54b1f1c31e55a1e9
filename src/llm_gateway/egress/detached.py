"""A client that may leave without its request noticing: what is still to be sent is thrown away, and nobody waits for it.

Law: while the client is there it gets its bytes exactly as without.
"""

from __future__ import annotations

from typing import Any

from llm_gateway.core.exchange import Client, Exchange


class Detached:
    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def alive(self) -> bool:
        return True

    @property
    def paused(self) -> bool:
        return self._client.alive and self._client.paused

    @property
    def sink(self) -> Any:
        return self._client.sink

    @sink.setter
    def sink(self, value: Any) -> None:
        self._client.sink = value

    def send(self, data: bytes) -> None:
        if self._client.alive:
            self._client.send(data)

    def hold(self, x: Exchange, size: int) -> bool:
        """Of a connection that was lost nothing is counted any more: neither is the body."""
        return not self._client.alive or self._client.hold(x, size)

    def release(self, x: Exchange) -> None:
        """A connection that was lost has given its memory back already."""
        if self._client.alive:
            self._client.release(x)
        else:
            x.body, x.peek, x.marked, x.call, x.filled = b"", None, None, None, None

    def finish(self, x: Exchange, data: bytes) -> None:
        if self._client.alive:
            self._client.finish(x, data)

    def abort(self, x: Exchange) -> None:
        if self._client.alive:
            self._client.abort(x)
