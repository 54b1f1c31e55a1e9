"""What a streamed response tells as it goes by.

Law: reads, never changes, but for what `tail` adds and for ids that are sealed. The end is the event that holds the whole
response: response.completed, .incomplete, .failed; it gets `usage.cost`. A stream without it was cut.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._splice import Splice, Verdict
from llm_gateway.formats.openai_responses import _envelope, errors, replies, sealing
from llm_gateway.formats.openai_responses._output import Item
from llm_gateway.formats.openai_responses.sealing import Seal
from llm_gateway.formats.openai_responses.trace import Trace

_DELTA = b"event: response.output_text.delta\ndata: "
_NULL = Raw(b"null")
_ENDS = frozenset({"response.completed", "response.incomplete", "response.cancelled"})
_FAILED = "response.failed"
# Events that a client sees nothing in yet: one that saw no more would not notice a restart.
_OPENING = frozenset({
    "response.created", "response.queued", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "response.reasoning_summary_part.added", "keepalive", "ping",
})  # fmt: skip
_SAID = frozenset({"function_call", "custom_tool_call"})  # items that say something by opening
# The last event holds all that was said, and what was asked: it is read whole, far beyond what other shapes' events are.
WHOLE = 16 << 20


class _Text(Struct, gc=False):
    delta: str
    sequence_number: int = 0


class _Event(Struct, gc=False):
    type: str = ""
    delta: Any = None
    item: Item | None = None
    response: Raw = _NULL
    error: Any = None
    sequence_number: int = 0


_decode_text = msgspec.json.Decoder(_Text).decode
_decode = msgspec.json.Decoder(_Event).decode
_decode_with_care = tolerant(_decode)
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class ResponseWatch:
    """`_number`: of the last event; `_kept`: a stored response is asked for, which may have failed when it was made."""

    __slots__ = ("_kept", "_number", "_trace", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        self._number = 0
        self._trace: Trace | None = None
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        if self._trace is not None or not data.startswith(_DELTA) or data.find(b"\n\n") != len(data) - 2:
            return False
        try:
            event = _decode_text(data[40:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        self._number = event.sequence_number
        if event.delta:
            self.meaningful = True
            self.characters += len(event.delta)
        return True

    def look(self, event: bytes) -> Verdict:
        data = sse.payload(event)
        if not data or data == b"[DONE]":
            return Verdict.SEND
        try:
            seen = _decode_with_care(data)
        except msgspec.ValidationError:
            self.meaningful = True  # well-formed, but of a kind we do not know: the client may
            return Verdict.SEND
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event that is not JSON.")
            return Verdict.DROP
        self._number = max(self._number, seen.sequence_number)
        self.meaningful = self.meaningful or self._kept
        if seen.type in _ENDS or (self._kept and seen.type == _FAILED):
            return self._look_end(bytes(seen.response))
        if seen.type == "error" or seen.error or seen.type == _FAILED:
            self.failed = errors.read(200, bytes(seen.response) if seen.type == _FAILED else data)
            return Verdict.DROP
        self._see(seen)
        if self._trace is not None:
            self._trace.see(data)
        return Verdict.SEND

    def complete(self) -> bool:
        return False

    def tail(self, held: list[bytes], cost: float | None) -> bytes:
        if cost is not None:
            held = [_with_cost(event, cost) for event in held]
        return b"".join(held)

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault, self._number + 1)

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def follow(self) -> None:
        self._trace = Trace()

    def curtail(self, first: bytes, usage: Usage) -> list[bytes]:
        ends = self._trace.ends(usage, self._number + 1) if self._trace is not None else []
        self.finish = "max_output_tokens" if ends else None
        return ends

    def _look_end(self, body: bytes) -> Verdict:
        try:
            reply = replies.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream's last event holds no response.")
            return Verdict.DROP
        self.usage = replies.counted(reply)
        if reply.error and not self._kept:
            self.failed = errors.read(200, body)
            return Verdict.DROP
        self.finish = _envelope.word(reply.status, reply.incomplete_details) or "completed"
        self.meaningful = self.ended = True
        return Verdict.HOLD

    def _see(self, event: _Event) -> None:
        if isinstance(event.delta, str):
            self.meaningful = self.meaningful or bool(event.delta)
            self.characters += len(event.delta)
        elif event.type not in _OPENING:
            self.meaningful = True
        if event.item is not None and event.type == "response.output_item.added" and event.item.type in _SAID:
            self.meaningful = True
            self.characters += len(event.item.name or "")


class SealedPassage:
    """A Passage around a splice. seal: where set, what replaces the ids by which the response could be asked for again, in
    the events that carry it; every other event goes through as it came."""

    __slots__ = ("_inner", "seal")

    def __init__(self, *, kept: bool = False) -> None:
        self._inner = Splice(ResponseWatch(kept=kept), WHOLE)
        self.seal: Seal | None = None

    def __repr__(self) -> str:
        return repr(self._inner)

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def finish(self) -> str | None:
        return self._inner.finish

    @property
    def meaningful(self) -> bool:
        return self._inner.meaningful

    @property
    def ended(self) -> bool:
        return self._inner.ended

    @property
    def failed(self) -> Fault | None:
        return self._inner.failed

    @property
    def characters(self) -> int:
        return self._inner.characters

    @property
    def between(self) -> bool:
        return self._inner.between

    def feed(self, data: bytes) -> bytes:
        passed = self._inner.feed(data)
        if self.seal is None or passed.find(b'"response"') < 0:
            return passed
        return sealing.sealed_events(passed, self.seal)

    def close(self, *, whole: bool = True) -> bytes:
        return self._sealed(self._inner.close(whole=whole))

    def tail(self, cost: float | None) -> bytes:
        return self._sealed(self._inner.tail(cost))

    def fail(self, fault: Fault) -> bytes:
        return self._inner.fail(fault)

    def heartbeat(self) -> bytes:
        return self._inner.heartbeat()

    def follow(self) -> None:
        self._inner.follow()

    def curtail(self, usage: Usage) -> bool:
        return self._inner.curtail(usage)

    def _sealed(self, passed: bytes) -> bytes:
        return passed if self.seal is None or not passed else sealing.sealed_events(passed, self.seal)


def _with_cost(event: bytes, cost: float) -> bytes:
    """`usage.cost`, in the event that ends the stream."""

    def priced(response: dict[str, Raw]) -> None:
        usage = _decode_members(response.get("usage", _NULL))
        usage["cost"] = Raw(msgspec.json.encode(cost))
        response["usage"] = Raw(msgspec.json.encode(usage))

    return sealing.changed(event, priced)
