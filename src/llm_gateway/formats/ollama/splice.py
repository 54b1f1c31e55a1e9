"""A stream of Ollama's passed through to a client of the same shape, by whole lines.

Law: bytes that go through are the upstream's own. The line that says `"done": true` ends the stream and waits for `tail`.
A line is waited for however long it is (up to 16 MiB): the last one of a generate holds the whole context and may be the
longest, and only a whole line tells whether it is the last. So `between` is always true. The usage gets no cost: this shape
has no place. Prints itself as its state: passing -> ended | failed.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Usage
from llm_gateway.formats._incoming import cut
from llm_gateway.formats._lines import Lines
from llm_gateway.formats.ollama import _facts, _wire, errors, replies


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: Raw = _wire.NONE


class _Called(Struct, gc=False):
    function: _Function | None = None


class _Said(Struct, gc=False):
    content: str | None = None
    thinking: str | None = None
    tool_calls: tuple[_Called, ...] | None = None
    images: tuple[Raw, ...] | None = None


class _Line(Struct, gc=False):
    message: _Said | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: tuple[_Called, ...] | None = None
    image: str | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


class LineSplice:
    """A Passage."""

    __slots__ = ("_first", "_held", "_lines", "between", "characters", "ended", "failed", "finish", "meaningful", "usage")

    def __init__(self) -> None:
        self._lines = Lines()
        self._first: bytes | None = None  # the first line, where it is wanted; b"" until it came
        self._held = b""
        self.usage: Usage | None = None
        self.finish: str | None = None
        self.meaningful = False
        self.characters = 0
        self.ended = False
        self.failed: Fault | None = None
        self.between = True

    def __repr__(self) -> str:
        state = "failed" if self.failed else "ended" if self.ended else "passing"
        return f"LineSplice({state}, finish={self.finish!r}, characters={self.characters})"

    def feed(self, data: bytes) -> bytes:
        if self._over():
            return b""
        try:
            block = self._lines.feed(data)
        except Fault as fault:
            self.failed = fault
            return b""
        if self._first == b"":
            self._first = block[: block.find(b"\n") + 1].strip()
        return self._pass(block) if block else b""

    def close(self, *, whole: bool = True) -> bytes:
        if self._over():
            return b""
        rest = self._lines.take().strip()
        passed = self._pass(rest + b"\n") if rest else b""
        if not self._over():
            self.failed = cut()
        return passed

    def tail(self, cost: float | None) -> bytes:
        held, self._held = self._held, b""
        return held

    def fail(self, fault: Fault) -> bytes:
        self._held = b""
        return errors.line(fault)

    def heartbeat(self) -> bytes:
        return b""

    def follow(self) -> None:
        self._first = b""

    def curtail(self, usage: Usage) -> bool:
        if self._over() or not self._first:
            return False
        try:
            first = _decode_members(self._first)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        said = replies.placed({}, generate="response" in first)
        about = {name: first[name] for name in ("model", "created_at") if name in first}
        self.finish = _facts.done_reason("length")
        self._held = msgspec.json.encode({**about, **said, "done": True, "done_reason": self.finish, **_facts.written_usage(usage)}) + b"\n"
        self.usage, self.ended, self.meaningful = usage, True, True
        return True

    def _over(self) -> bool:
        return self.ended or self.failed is not None

    def _pass(self, block: bytes) -> bytes:
        """Of whole lines, those before the end; the same object where all of them go."""
        end = block.find(b"\n") + 1
        if end == len(block):
            return block if self._goes(block) else b""
        start = 0
        while start < len(block):
            end = block.find(b"\n", start) + 1
            if not self._goes(block[start:end]):
                return block[:start]
            start = end
        return block

    def _goes(self, line: bytes) -> bool:
        """Look at a line; False for one that ends the stream."""
        try:
            told = _decode(line)
        except msgspec.ValidationError:
            self.meaningful = True  # well-formed, but of a kind we do not know: the client may
            return True
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not line.strip():
                return True
            self.failed = Fault(Kind.UPSTREAM_BROKEN, "The upstream sent a line that is not JSON.")
            return False
        if told.error:
            self.failed = errors.read(200, line)
            return False
        self._count(told)
        if told.done:
            self._end(told, line)
        return not told.done

    def _count(self, told: _Line) -> None:
        said = told.message
        if said is None:
            said = _Said(told.response, told.thinking, told.tool_calls, (Raw(b""),) if told.image else None)
        size = len(said.content or "") + len(said.thinking or "") + sum(map(_length, said.tool_calls or ()))
        if size or said.images:
            self.meaningful = True
            self.characters += size

    def _end(self, told: _Line, line: bytes) -> None:
        self.ended = self.meaningful = True
        self._held = line
        self.finish = told.done_reason or "stop"
        counts = _wire.Reply(prompt_eval_count=told.prompt_eval_count, eval_count=told.eval_count)
        self.usage = _facts.usage(counts)


def _length(call: _Called) -> int:
    return 0 if call.function is None else len(call.function.name or "") + len(bytes(call.function.arguments))
