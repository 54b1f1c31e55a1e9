"""The operator's own log: one line per notice, as JSON or as text.

Law: the operator is not hot, so a line is written at once, or with a later one; a log that cannot be written, or whose reader stands still,
stops nobody.
"""

from __future__ import annotations

import json
import time
from typing import Protocol

from llm_gateway.core.headers import printable
from llm_gateway.telemetry.access import AccessLog

LEVELS = ("trace", "debug", "info", "warn", "error")


class Stream(Protocol):
    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class Unawaited:
    """Standard error, which nobody waits for (telemetry/access.py)."""

    def __init__(self) -> None:
        self._log = AccessLog("stderr")

    def write(self, text: str) -> None:
        self._log.write([text.encode(errors="backslashreplace")])

    def flush(self) -> None:
        self._log.flush()


class Notices:
    """`level`: the least that is worth a line."""

    def __init__(self, stream: Stream, form: str, level: str) -> None:
        self._stream = stream
        self._form = form
        self._least = LEVELS.index(level)

    def say(self, level: str, event: str, **fields: object) -> None:
        if LEVELS.index(level) < self._least:
            return
        try:
            self._stream.write(self._line(level, event, fields) + "\n")
            self._stream.flush()
        except OSError:
            return

    def _line(self, level: str, event: str, fields: dict[str, object]) -> str:
        if self._form != "json":
            return f"operator: {event} " + " ".join(f"{name}={printable(str(value))}" for name, value in fields.items())
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03}Z"
        return json.dumps({"level": level, "event": event, "ts": stamp, "from": "operator", **fields})
