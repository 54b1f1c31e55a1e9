"""AWS event-stream frames as bytes: where they end, what their headers and payload are, and how one is made.

Law: bytes in, bytes out; knows no API's events. A frame is a prelude (total length, length of headers, CRC-32 of those two),
typed headers, a payload, and the CRC-32 of all before it; numbers are big-endian. Whatever does not hold is a
Fault(UPSTREAM_BROKEN), since nothing behind it can be trusted to be where it seems.
https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html,
https://smithy.io/2.0/aws/amazon-eventstream.html

Invariants
- Both checksums of a frame are checked before anything of it is told.
- `Frames.feed` returns whole frames; whatever the cuts, they are the same, and with `rest` they are what was fed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zlib import crc32

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind

Value = bool | int | bytes | str | datetime | UUID

LARGEST = 16 << 20  # a whole frame; AWS's own limit
LARGEST_HEADERS = 128 << 10
PRELUDE = 12
_TRAILER = 4
_OVERHEAD = PRELUDE + _TRAILER
_MOST_NAME = 255
_MOST_VALUE = 32767
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_lengths = struct.Struct(">II").unpack_from
_prelude = struct.Struct(">III").unpack_from
_crc = struct.Struct(">I").unpack_from
_INTEGERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q")}
_TRUE, _FALSE, _BYTES, _STRING, _TIMESTAMP, _UUID = 0, 1, 6, 7, 8, 9
_UUID_SIZE = 16


class Frame(Struct, frozen=True, gc=False):
    headers: dict[str, Value]
    payload: bytes

    def text(self, name: str) -> str:
        """A header that should be a string; "" where it is absent or of another type."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


def broken(what: str) -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, f"The upstream sent an event-stream frame that {what}.")


def length(data: bytes) -> int:
    """The whole length of the frame that `data`, of at least `PRELUDE` bytes, begins with. Raises Fault."""
    total, headers, checksum = _prelude(data)
    if crc32(data[:8]) != checksum:
        raise broken("has a damaged prelude")
    if total > LARGEST or headers > LARGEST_HEADERS:
        raise broken("is longer than the format allows")
    if total < headers + _OVERHEAD:
        raise broken("is shorter than its headers")
    return int(total)


def decode(frame: bytes) -> Frame:
    """One whole frame. Raises Fault."""
    block, payload = split(frame)
    return Frame(headers(block), payload)


def split(frame: bytes) -> tuple[bytes, bytes]:
    """The headers of one whole frame, still encoded, and its payload. Raises Fault."""
    if len(frame) < _OVERHEAD or length(frame) != len(frame):
        raise broken("is not whole")
    if crc32(frame[:-_TRAILER]) != _crc(frame, len(frame) - _TRAILER)[0]:
        raise broken("does not match its checksum")
    end = PRELUDE + _lengths(frame)[1]
    return frame[PRELUDE:end], frame[end:-_TRAILER]


def headers(block: bytes) -> dict[str, Value]:
    """The headers of a frame, out of the bytes between its prelude and its payload. Raises Fault."""
    found: dict[str, Value] = {}
    at = 0
    try:
        while at < len(block):
            start = at + 1
            end = start + block[at]
            name = str(_slice(block, start, end), "utf-8")
            if name in found:
                raise broken(f"repeats the header '{name}'")
            found[name], at = _value(block, end + 1, block[end])
    except (IndexError, struct.error, UnicodeDecodeError, OverflowError):
        raise broken("has damaged headers") from None
    return found


def _value(block: bytes, at: int, kind: int) -> tuple[Value, int]:
    """The value at `at`, and where it ends."""
    if kind in {_TRUE, _FALSE}:
        return kind == _TRUE, at
    if kind in _INTEGERS:
        form = _INTEGERS[kind]
        return form.unpack_from(block, at)[0], at + form.size
    if kind in {_BYTES, _STRING}:
        start = at + 2
        end = start + int.from_bytes(_slice(block, at, start))
        value = _slice(block, start, end)
        return (value if kind == _BYTES else str(value, "utf-8")), end
    if kind == _TIMESTAMP:
        (milliseconds,) = _INTEGERS[5].unpack_from(block, at)
        return _EPOCH + timedelta(milliseconds=milliseconds), at + _INTEGERS[5].size
    if kind == _UUID:
        return UUID(bytes=_slice(block, at, at + _UUID_SIZE)), at + _UUID_SIZE
    raise broken("has a header of an unknown type")


def _slice(block: bytes, start: int, end: int) -> bytes:
    if end > len(block):
        raise IndexError(end)
    return block[start:end]


def encode(headers: Mapping[str, Value], payload: bytes) -> bytes:
    """One frame. ValueError for what no frame can hold."""
    return framed(encode_headers(headers), payload)


def framed(block: bytes, payload: bytes) -> bytes:
    """A frame around headers that are encoded already, as `encode_headers` does."""
    total = len(block) + len(payload) + _OVERHEAD
    if total > LARGEST or len(block) > LARGEST_HEADERS:
        raise ValueError("A frame holds at most 16 MiB, and 128 KiB of headers.")
    sizes = struct.pack(">II", total, len(block))
    start = b"".join((sizes, crc32(sizes).to_bytes(4), block, payload))
    return start + crc32(start).to_bytes(4)


def encode_headers(headers: Mapping[str, Value]) -> bytes:
    encoded: list[bytes] = []
    for name, value in headers.items():
        said = name.encode()
        if not 0 < len(said) <= _MOST_NAME:
            raise ValueError("A header's name has 1 to 255 bytes.")
        encoded += (bytes((len(said),)), said, _encoded(value))
    return b"".join(encoded)


def _encoded(value: Value) -> bytes:
    match value:
        case bool():
            return bytes((_TRUE if value else _FALSE,))
        case int():
            kind = 4 if -(1 << 31) <= value < 1 << 31 else 5
            if not -(1 << 63) <= value < 1 << 63:
                raise ValueError("A header's number has at most 64 bits.")
            return bytes((kind,)) + _INTEGERS[kind].pack(value)
        case str() | bytes():
            data = value.encode() if isinstance(value, str) else value
            if len(data) > _MOST_VALUE:
                raise ValueError("A header's value has at most 32767 bytes.")
            return bytes((_STRING if isinstance(value, str) else _BYTES,)) + len(data).to_bytes(2) + data
        case datetime():
            milliseconds = (value - _EPOCH) // timedelta(milliseconds=1)
            return bytes((_TIMESTAMP,)) + _INTEGERS[5].pack(milliseconds)
        case UUID():
            return bytes((_UUID,)) + value.bytes


class Frames:
    """Cuts a stream into whole frames. `size`: bytes kept back, of one unfinished frame. `damage`: why what follows the last
    frame told can be none; nothing more is told then."""

    __slots__ = ("_parts", "_wanted", "damage", "size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._wanted = PRELUDE  # bytes that must be there before anything more can be told
        self.damage: Fault | None = None
        self.size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Every frame that is now whole; [] if none is."""
        if self.damage is not None:
            return []
        if not self._parts and len(data) >= PRELUDE:  # nothing is kept, as usual
            return self._cut(data)
        self._parts.append(data)
        self.size += len(data)
        if self.size < self._wanted:
            return []
        return self._cut(self.rest())

    def rest(self) -> bytes:
        """What is kept; nothing is kept afterwards."""
        kept = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        self._wanted = PRELUDE
        self.size = 0
        return kept

    def _cut(self, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        at = 0
        while len(data) - at >= PRELUDE:
            try:
                size = length(data[at : at + PRELUDE])
            except Fault as fault:
                self.damage = fault
                return found
            if at + size > len(data):
                self._wanted = size
                break
            found.append(data[at : at + size])
            at += size
        if at < len(data):
            self._parts = [data[at:]]
            self.size = len(data) - at
        return found
