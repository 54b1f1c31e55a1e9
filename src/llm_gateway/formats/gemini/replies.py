"""A whole generateContent reply <-> Completion.

Law: an unusual reply is read as far as it goes; only what is no reply at all is a Fault. A prompt that was not answered is
one, too (CONTENT_FILTER); an answer that was withheld is not: it finishes with `content_filter`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_never

import msgspec
from msgspec import Raw, structs

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import (
    Audio,
    Choice,
    Citation,
    Completion,
    Document,
    Image,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    Video,
)
from llm_gateway.formats._replies import JSON_HEADERS
from llm_gateway.formats.contract import Outgoing, Summary
from llm_gateway.formats.gemini import _facts, _finish, _ids, _reading, _usage, _wire, _writing, errors
from llm_gateway.formats.gemini._reading import SHAPE

Fields = dict[str, Any]
_JSON = b"application/json"
_decode = msgspec.json.Decoder(_wire.Reply).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def summarise(body: bytes) -> Summary:
    reply, fault = _look(body)
    finish = _finish.word(reply.candidates[0].finish_reason) if reply.candidates else None
    return Summary(_counted(reply), finish, fault)


def read(body: bytes) -> Completion:
    reply, fault = _look(body)
    if fault is not None:
        raise fault
    choices = tuple(_choice(one, at, reply.response_id or "") for at, one in enumerate(reply.candidates or ()))
    return Completion(
        id=reply.response_id or "",
        model=reply.model_version or "",
        choices=choices or (Choice((), "content_filter"),),  # withheld whole: clients of other shapes read the first choice
        usage=_counted(reply),
        created=moment(reply.create_time),
        format=SHAPE,
    )


def _look(body: bytes) -> tuple[_wire.Reply, Fault | None]:
    try:
        reply = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _no_reply() from None
    if reply.error:
        return reply, errors.read(200, body)
    if not reply.candidates:
        feedback = reply.prompt_feedback
        if feedback is not None and feedback.block_reason:
            return reply, errors.blocked(feedback, body, _JSON, _counted(reply))
        if reply.usage_metadata is None and reply.response_id is None:
            raise _no_reply()
    return reply, None


def _no_reply() -> Fault:
    return Fault(Kind.UPSTREAM_BROKEN, "The upstream's reply is not a generateContent reply.")


def _counted(reply: _wire.Reply) -> Usage | None:
    searches = max((_facts.searches(one.grounding_metadata) for one in reply.candidates or ()), default=0)
    return _usage.read(reply.usage_metadata or {}, searches)


def _choice(candidate: _wire.Candidate, at: int, reply: str) -> Choice:
    content = candidate.content
    parts = _parts(content.parts or [] if content is not None else [], reply)
    if cited := _facts.citations(candidate.grounding_metadata):
        parts = _cite(parts, cited)
    called = any(isinstance(part, ToolCall) for part in parts)
    reason, native = _finish.read(_finish.word(candidate.finish_reason), called=called, empty=content is None)
    index = at if candidate.index is None else candidate.index
    logprobs = _facts.logprobs(candidate.logprobs_result)
    return Choice(tuple(parts), reason, index, native_finish=native, logprobs=logprobs)


def _parts(content: list[Raw], reply: str) -> list[Part]:
    try:
        read = (_reading.part(raw, f"parts[{at}]", _ids.made(reply, at), {}) for at, raw in enumerate(content))
        return [part for part in read if part is not None]
    except Fault as fault:
        raise Fault(
            Kind.UPSTREAM_BROKEN, f"The upstream's reply is not a generateContent reply: {fault.message}"
        ) from None


def _cite(parts: list[Part], cited: tuple[Citation, ...]) -> list[Part]:
    """Sources go with the last text that holds their words, or the last text."""
    texts = {at: part for at, part in enumerate(parts) if isinstance(part, Text)}
    for one in cited:
        holding = [at for at, text in texts.items() if one.cited_text and one.cited_text in text.text]
        place = next(iter(holding or [*texts][-1:]), None)
        if place is not None:
            texts[place] = structs.replace(texts[place], citations=(*texts[place].citations, one))
    return [texts.get(at, part) for at, part in enumerate(parts)]


def moment(text: str | None) -> int:
    """Unix seconds of an RFC 3339 time, 0 where there is none."""
    try:
        return int(msgspec.convert(text, datetime).timestamp()) if text else 0
    except (msgspec.ValidationError, OverflowError, OSError):
        return 0


def _time(seconds: int) -> str | None:
    """RFC 3339. None for one that no calendar has: some services tell milliseconds where OpenAI's shape has seconds."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if seconds else None
    except (ValueError, OverflowError, OSError):
        return None


def write(reply: Completion, now: int) -> Outgoing:
    dropped: list[str] = []
    body: Fields = {"candidates": [_candidate(choice, dropped) for choice in reply.choices]}
    if reply.usage is not None:
        body["usageMetadata"] = _usage.write(reply.usage)
    body["modelVersion"] = reply.model
    if (created := _time(reply.created or now)) is not None:
        body["createTime"] = created
    body["responseId"] = reply.id
    return Outgoing(msgspec.json.encode(body), headers=JSON_HEADERS, dropped=tuple(dict.fromkeys(dropped)))


def _candidate(choice: Choice, dropped: list[str]) -> Fields:
    parts = [written for part in choice.parts if (written := _part(part, dropped)) is not None]
    candidate: Fields = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": _finish.write(choice.finish, choice.native_finish),
        "index": choice.index,
    }
    cited = tuple(one for part in choice.parts if isinstance(part, Text) for one in part.citations)
    if (grounding := _facts.grounding(cited)) is not None:
        candidate["groundingMetadata"] = grounding
    if choice.logprobs is not None:
        candidate["logprobsResult"] = _facts.written_logprobs(choice.logprobs)
    return candidate


def _part(part: Part, dropped: list[str]) -> Fields | Raw | None:
    match part:
        case Text(text=text, signature=signature):
            return {"text": text} | ({"thoughtSignature": signature} if signature else {})
        case Refusal(text=text):
            return {"text": text}
        case ToolCall():
            return _writing.function_call(part, arguments(part))
        case Reasoning(redacted=None):
            return thought(part)
        case Audio(media=media, transcript=transcript):
            if media.data is not None:
                return _writing.source(media, "audio/wav", "")
            return {"text": transcript} if transcript else None
        case Opaque(format="gemini", raw=raw):
            return raw
        case Image(media=media) if media.data is not None or media.url is not None:
            return _writing.source(media, "image/png", "")
        case Opaque() | Image() | Video() | Document() | ToolResult() | Reasoning():
            dropped.append(f"content.{type(part).__name__.lower()}")
            return None
        case _:
            assert_never(part)


def thought(part: Reasoning) -> Fields:
    said: Fields = {"text": part.text or "\n\n".join(part.summary), "thought": True}
    if part.signature is not None and part.format == SHAPE:
        said["thoughtSignature"] = part.signature
    return said


def arguments(call: ToolCall) -> Raw | Fields:
    """An object, as Gemini's clients rely on. What the model wrote instead of one is kept under a name of its own."""
    if call.kind == "custom":
        return {"input": call.arguments}
    written = call.arguments.strip() or "{}"
    try:
        _decode_object(written.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {"invalid_json": call.arguments}
    return Raw(written)
