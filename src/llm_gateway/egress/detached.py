"""A client that may leave without its request noticing: what is still to be sent is thrown away, and nobody waits for it.

Law: while the client is there it gets its bytes exactly as without. Its body counts in memory for as long as it is held, whether or not
somebody is there: clients that send much and leave would else have a worker hold any amount of it.
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
        return self._client.hold(x, size)

    def release(self, x: Exchange) -> None:
        self._client.release(x)

    def finish(self, x: Exchange, data: bytes) -> None:
        if self._client.alive:
            self._client.finish(x, data)
        else:
            self._client.release(x)

    def abort(self, x: Exchange) -> None:
        if self._client.alive:
            self._client.abort(x)
        else:
            self._client.release(x)
