"""Events -> a streamed chat completion.

Law: a chunk's envelope is written once, at Start; each event costs one small encode. Thoughts that another API sealed go out
in `reasoning_details` beside the plain text, so that a client which sends them back sends all of them. A part that only
another shape knows is left out.
"""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from llm_gateway.core.errors import Fault
from llm_gateway.core.events import (
    CitationDelta,
    Delta,
    End,
    Event,
    Failed,
    Finish,
    LogprobsDelta,
    OpaqueDelta,
    PartEnd,
    PartStart,
    SignatureDelta,
    Start,
    TranscriptDelta,
    UsageUpdate,
)
from llm_gateway.core.types import Reasoning, Usage
from llm_gateway.formats.openai_chat import _logprobs, _reasoning, _usage, errors, replies

Fields = dict[str, Any]
_DONE = b"data: [DONE]\n\n"
_FINISHES = {"pause": "stop"}
_FIELDS = {"text": b'{"content":', "reasoning": b'{"reasoning_content":', "refusal": b'{"refusal":'}
_encode = msgspec.json.Encoder().encode


class _Part:
    """`tool`: the call's place among its choice's calls. `begun`: some of its arguments went out. `at`: where its text
    starts in the answer. `kind` "custom": a custom tool's call."""

    __slots__ = ("at", "begun", "format", "kind", "tool")

    def __init__(self, kind: str, tool: int, at: int, shape: str) -> None:
        self.kind = kind
        self.tool = tool
        self.at = at
        self.format = shape
        self.begun = False


class ChatWriter:
    __slots__ = ("_end", "_functions", "_head", "_length", "_now", "_parts", "_tools", "_usage", "_wants_usage")

    def __init__(self, *, wants_usage: bool, now: int, functions: bool = False) -> None:
        """now: Unix seconds, for `created` where the upstream has none. functions: the client knows no `tool_calls`, only its
        predecessor, of which there can be one."""
        self._functions = functions
        self._wants_usage = wants_usage
        self._now = now
        self._head = b""
        self._end = b',"usage":null}\n\n' if wants_usage else b"}\n\n"
        self._parts: dict[tuple[int, int], _Part] = {}
        self._tools: dict[int, int] = {}
        self._length: dict[int, int] = {}
        self._usage: Usage | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Delta():
                return self._write_delta(event)
            case Start():
                return self._write_start(event)
            case PartStart():
                return self._write_part(event)
            case PartEnd():
                part = self._parts[event.choice, event.index]
                return self._arguments(event.choice, part, "{}") if part.kind == "tool" and not part.begun else b""
            case SignatureDelta():
                return self._write_signature(event)
            case TranscriptDelta():
                return self._write_transcript(event)
            case CitationDelta():
                return self._write_citation(event)
            case LogprobsDelta():
                return self._chunk(event.choice, b"{}", logprobs=_encode(_logprobs.write(event.logprobs)))
            case Finish():
                finish = "function_call" if self._functions and event.finish == "tool_calls" else event.finish
                return self._chunk(event.choice, b"{}", finish=_encode(_FINISHES.get(finish, finish)))
            case UsageUpdate():
                self._usage = event.usage
                return b""
            case OpaqueDelta() | End() | Failed():
                return b""
            case _:
                assert_never(event)

    def tail(self, cost: float | None) -> bytes:
        if not self._wants_usage or self._usage is None:
            return _DONE
        usage = _encode(_usage.write(self._usage, cost))
        return self._head + b'],"usage":' + usage + b"}\n\n" + _DONE

    def fail(self, fault: Fault) -> bytes:
        return errors.event(fault)

    def heartbeat(self) -> bytes:
        return b": \n\n"

    def _write_start(self, start: Start) -> bytes:
        envelope: Fields = {
            "id": start.id,
            "object": "chat.completion.chunk",
            "created": start.created or self._now,
            "model": start.model,
        }
        if (tier := replies.tier(start.service_tier)) is not None:
            envelope["service_tier"] = tier
        if start.fingerprint is not None:
            envelope["system_fingerprint"] = start.fingerprint
        self._head = b"data: " + _encode(envelope)[:-1] + b',"choices":['
        return self._choice(0, {"role": "assistant", "content": ""})

    def _chunk(self, choice: int, delta: bytes, logprobs: bytes = b"null", finish: bytes = b"null") -> bytes:
        return b'%b{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}]%b' % (
            self._head,
            choice,
            delta,
            logprobs,
            finish,
            self._end,
        )

    def _choice(self, choice: int, delta: Fields) -> bytes:
        return self._chunk(choice, _encode(delta))

    def _write_part(self, start: PartStart) -> bytes:
        choice = start.choice
        kind = "custom" if start.tool_kind == "custom" else start.kind
        shape = start.format if start.kind == "reasoning" else ""
        part = _Part(kind, self._tools.get(choice, 0), self._length.get(choice, 0), shape)
        self._parts[choice, start.index] = part
        match start.kind:
            case "tool":
                self._tools[choice] = part.tool + 1
                empty = {"name": start.name or "", "input" if kind == "custom" else "arguments": ""}
                if self._functions:
                    return self._choice(choice, {"function_call": empty}) if not part.tool else b""
                call = {"index": part.tool, "id": start.id, "type": _type(kind), _type(kind): empty}
                return self._choice(choice, {"tool_calls": [call]})
            case "reasoning" if start.redacted is not None:
                sealed = _reasoning.detail(Reasoning(redacted=start.redacted, format=start.format, id=start.id))
                return self._choice(choice, {"reasoning_details": [{**sealed, "index": start.index}]})
            case "audio" if start.id is not None:
                return self._choice(choice, {"audio": {"id": start.id}})
            case _:
                return b""

    def _write_delta(self, event: Delta) -> bytes:
        part = self._parts[event.choice, event.index]
        kind = part.kind
        if kind == "text":
            self._length[event.choice] = self._length.get(event.choice, 0) + len(event.text)
        elif kind in {"tool", "custom"}:
            return self._arguments(event.choice, part, event.text)
        elif kind == "audio":
            return self._choice(event.choice, {"audio": {"data": event.text}})
        elif kind == "opaque":
            return b""
        elif part.format:
            thought = {**_reasoning.detail(Reasoning(event.text, format=part.format)), "index": event.index}
            return self._choice(event.choice, {"reasoning_content": event.text, "reasoning_details": [thought]})
        return self._chunk(event.choice, _FIELDS[kind] + _encode(event.text) + b"}")

    def _write_signature(self, event: SignatureDelta) -> bytes:
        """A call's seal stands on the call, as Google's own OpenAI endpoint has it; a thought's among the details."""
        part = self._parts[event.choice, event.index]
        if part.kind == "tool" and self._functions:
            return b""
        if part.kind == "tool":
            google = {"google": {"thought_signature": event.signature}}
            return self._choice(event.choice, {"tool_calls": [{"index": part.tool, "extra_content": google}]})
        sealed = _reasoning.detail(Reasoning(signature=event.signature, format=event.format))
        return self._choice(event.choice, {"reasoning_details": [{**sealed, "index": event.index}]})

    def _arguments(self, choice: int, part: _Part, text: str) -> bytes:
        part.begun = True
        if self._functions:
            return self._choice(choice, {"function_call": {"arguments": text}}) if not part.tool else b""
        more = {_type(part.kind): {"input" if part.kind == "custom" else "arguments": text}}
        return self._choice(choice, {"tool_calls": [{"index": part.tool, **more}]})

    def _write_transcript(self, event: TranscriptDelta) -> bytes:
        audio: Fields = {"transcript": event.text}
        if event.id is not None:
            audio["id"] = event.id
        if event.expires_at is not None:
            audio["expires_at"] = event.expires_at
        return self._choice(event.choice, {"audio": audio})

    def _write_citation(self, event: CitationDelta) -> bytes:
        """The text that a source stands behind is what its part has said so far."""
        cited, start = event.citation, self._parts[event.choice, event.index].at
        note = replies.annotation(cited.url, cited.title, start, self._length.get(event.choice, 0))
        return b"" if note is None else self._choice(event.choice, {"annotations": [note]})


def _type(kind: str) -> str:
    return "custom" if kind == "custom" else "function"
