"""What a streamed message tells as it goes by.

Law: reads, never changes, but for what `tail` adds. The end is held from the message_delta that brings the stop reason and
the final usage, which gets `usage.cost`, to message_stop, which is added where a complete stream lacks it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core import sse
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._halves import tolerant
from llm_gateway.formats._splice import Verdict
from llm_gateway.formats.anthropic_messages import _usage, errors

_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_DELTA = b"event: content_block_delta\ndata: "
_NULL = Raw(b"null")
_CLOSE = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_EMPTY_AT_START = frozenset({"text", "thinking"})  # blocks that open with nothing in them


class _Delta(Struct, gc=False):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    content: Any = None
    citation: Any = None


class _Message(Struct, gc=False):
    usage: dict[str, Any] | None = None


class _Event(Struct, gc=False):
    type: str = ""
    delta: _Delta | None = None
    content_block: dict[str, Any] | None = None
    message: _Message | None = None
    usage: dict[str, Any] | None = None
    index: Any = None


_decode = msgspec.json.Decoder(_Event).decode
_decode_with_care = tolerant(_decode)
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class MessageWatch:
    __slots__ = ("_block", "_counts", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self) -> None:
        self._block: Any = None  # the number of the one that is open
        self._counts: dict[str, Any] = {}
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None

    def glance(self, data: bytes) -> bool:
        if not data.startswith(_DELTA) or data.find(b"\n\n") != len(data) - 2:
            return False
        try:
            event = _decode(data[33:])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        delta = event.delta
        if delta is None:
            return False
        if generated := delta.text or delta.thinking or delta.partial_json:
            self.meaningful = True
            self.characters += len(generated)
        elif delta.signature or delta.citation or delta.content:
            self.meaningful = True
        return True

    def look(self, event: bytes) -> Verdict:
        data = sse.payload(event)
        if not data:
            return Verdict.SEND
        try:
            seen = _decode_with_care(data)
        except msgspec.ValidationError:
            self.meaningful = True  # well-formed, but of a kind we do not know: the client may
            return Verdict.SEND
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent an event that is not JSON.")
            return Verdict.DROP
        match seen.type:
            case "error":
                self.failed = errors.read(200, data)
                return Verdict.DROP
            case "message_stop":
                self.ended = True
                return Verdict.HOLD
            case "message_start":
                self._count(seen.message.usage if seen.message else None)
            case "message_delta":
                return self._look_delta(seen)
            case "content_block_start":
                self._block = seen.index
                self._open(seen.content_block or {})
            case "content_block_delta":
                self._see(seen.delta)
            case "content_block_stop":
                self._block = None
            case _:
                pass  # ping, and what is yet to be invented
        return Verdict.SEND

    def complete(self) -> bool:
        return self.finish is not None

    def tail(self, held: list[bytes], cost: float | None) -> bytes:
        if cost is not None:
            _add_cost(held, cost)
        return b"".join(held) if self.ended else b"".join(held) + _STOP

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b'event: ping\ndata: {"type": "ping"}\n\n'

    def follow(self) -> None:
        """Which block is open is known anyway."""

    def curtail(self, first: bytes, usage: Usage) -> list[bytes]:
        self.finish = "max_tokens"
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        told = msgspec.json.encode({"type": "message_delta", "delta": delta, "usage": _usage.write(usage)})
        ends = [b"event: message_delta\ndata: " + told + b"\n\n", _STOP]
        return [_CLOSE % self._block, *ends] if isinstance(self._block, int) else ends

    def _count(self, counts: dict[str, Any] | None) -> None:
        if counts:
            self._counts = _usage.merged(self._counts, counts)
            self.usage = _usage.read(self._counts)

    def _look_delta(self, event: _Event) -> Verdict:
        self._count(event.usage)
        if event.delta is None or not event.delta.stop_reason:
            return Verdict.SEND
        self.meaningful = True
        self.finish = event.delta.stop_reason
        return Verdict.HOLD

    def _open(self, block: dict[str, Any]) -> None:
        kind = block.get("type")
        if not isinstance(kind, str) or kind not in _EMPTY_AT_START or block.get(kind):
            self.meaningful = True
            texts = (block.get(name) for name in ("text", "thinking", "name"))
            self.characters += sum(len(text) for text in texts if isinstance(text, str))

    def _see(self, delta: _Delta | None) -> None:
        if delta is None:
            return
        generated = delta.text or delta.thinking or delta.partial_json or ""
        if generated or delta.signature or delta.citation or delta.content:
            self.meaningful = True
            self.characters += len(generated)


def _add_cost(held: list[bytes], cost: float) -> None:
    """Write `usage.cost` into the message_delta among the held events."""
    for position, event in enumerate(held):
        try:
            members = _decode_members(sse.payload(event))
            usage = _decode_members(members.get("usage", _NULL))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        usage["cost"] = Raw(msgspec.json.encode(cost))
        members["usage"] = Raw(msgspec.json.encode(usage))
        held[position] = b"event: message_delta\ndata: " + msgspec.json.encode(members) + b"\n\n"
        return
