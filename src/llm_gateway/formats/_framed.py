"""The front half of a stream reader whose shape is a `Reading`: bytes -> payloads -> its events.

Law: knows no shape. Whatever a payload holds, what comes out ends in End or in Failed, once: a payload that the reading
cannot decode is a broken upstream's, a stream that ends without an end is a cut one's.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import Event, Failed
from llm_gateway.formats._incoming import Incoming, broken, cut


class Reading(Protocol):
    """What one shape makes of one stream. `read` may raise a msgspec.DecodeError, which ends the stream."""

    over: bool

    def read(self, payload: bytes, events: list[Event]) -> None: ...


class Framed:
    """A StreamReader."""

    __slots__ = ("_incoming", "_read", "_reading")

    def __init__(self, reading: Reading) -> None:
        self._incoming = Incoming()
        self._reading = reading
        self._read = reading.read

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._reading.over:
            return events
        try:
            self._take(self._incoming.feed(data), events)
        except Fault as fault:
            self._fail(fault, events)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = []
        if self._reading.over:
            return events
        self._take(self._incoming.close(), events)
        if not self._reading.over:
            self._fail(cut(), events)
        return events

    def _take(self, payloads: list[bytes], events: list[Event]) -> None:
        try:
            for payload in payloads:
                self._read(payload, events)
                if self._reading.over:
                    return
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._fail(broken(), events)

    def _fail(self, fault: Fault, events: list[Event]) -> None:
        self._reading.over = True
        events.append(Failed(fault))
