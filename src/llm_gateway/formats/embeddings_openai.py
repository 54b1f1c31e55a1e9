"""OpenAI's embeddings, which most other services have, too. https://platform.openai.com/docs/api-reference/embeddings

Law: an input is a text, a list of token numbers, or a list of either. What vectors are for, which OpenAI has no word for, is
read where its followers write it (`input_type` at Voyage, NVIDIA; `task` at Jina; `truncate`, `truncation`). A reply tells of
usage always, since clients read it unasked; where the upstream told of none, of zero tokens.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input, Task, Truncate, Vector
from llm_gateway.core.types import Usage
from llm_gateway.formats import _members, _typed, _vectors
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, tokens, words
from llm_gateway.formats._members import invalid
from llm_gateway.formats._numbers import money
from llm_gateway.formats._numbers import tokens as count
from llm_gateway.formats.contract import Peek, Summary
from llm_gateway.formats.embedding_crossings import TASKS
from llm_gateway.formats.openai_chat import errors

SHAPE, PATH = "openai_embeddings", "/embeddings"
_NULL = Raw(b"null")
_TRUNCATES: dict[str, Truncate] = {"none": "none", "start": "start", "end": "end"}
_TASK_NAMES = ("input_type", "task", "task_type")


class _Request(Struct, gc=False):
    input: str | list[Any] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    input_type: str | None = None
    task: str | None = None
    task_type: str | None = None
    truncate: str | None = None
    truncation: bool | None = None


class _Vector(Struct, gc=False):
    embedding: list[float] | str
    index: int | None = None


class _Whole(Struct, gc=False):
    data: list[_Vector] | None = None
    id: str | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


class _Told(Struct, gc=False):
    """Without the vectors, which are most of it."""

    data: Raw = _NULL
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format", "user"})


def shape() -> Embedding:
    return Embedding(
        name=SHAPE, path=PATH, needs=("input",), read=_read, body=_body, counted=_counted, reply=_reply, said=_said,
        fault=errors.write, faulty=errors.read,
    )  # fmt: skip


def _read(peek: Peek) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join(peek.members))
    return EmbeddingCall(
        model=peek.model,
        inputs=_inputs(asked.input),
        dimensions=asked.dimensions,
        encodings=(asked.encoding_format,) if asked.encoding_format is not None else (),
        task=_task(asked),
        truncate=_truncate(asked),
        user=asked.user,
        format=SHAPE,
        extras=rest(peek.members, _KNOWN),
    )


def _task(asked: _Request) -> Task | None:
    said = next((value for name in _TASK_NAMES if (value := getattr(asked, name))), "")
    return TASKS.get(said.lower())


def _truncate(asked: _Request) -> Truncate | None:
    if asked.truncate is not None:
        if asked.truncate.lower() not in _TRUNCATES:
            raise invalid("'truncate' must be one of 'NONE', 'START', 'END'.", "truncate")
        return _TRUNCATES[asked.truncate.lower()]
    return None if asked.truncation is None else "end" if asked.truncation else "none"


def _inputs(given: str | list[Any] | None) -> tuple[Input, ...]:
    if given is None:
        raise _typed.missing("input")
    if isinstance(given, str):
        return (Input(given, at="input"),)
    if not given:
        raise invalid("'input' must not be empty.", "input")
    if type(given[0]) is int:
        return (Input(tokens=_tokens(given, "input"), at="input"),)
    return tuple(_input(one, f"input[{at}]") for at, one in enumerate(given))


def _input(one: object, path: str) -> Input:
    if isinstance(one, str):
        return Input(one, at=path)
    if not isinstance(one, list) or not one:
        raise invalid(f"'{path}' must be a text or a list of token numbers.", path)
    return Input(tokens=_tokens(one, path), at=path)


def _tokens(numbers: list[Any], path: str) -> tuple[int, ...]:
    for at, number in enumerate(numbers):
        if type(number) is not int or number < 0:
            raise invalid(f"'{path}[{at}]' must be a token's number.", f"{path}[{at}]")
    return tuple(numbers)


def _body(call: EmbeddingCall) -> Fields:
    """encoding_format only where this shape's own client asked: some services know one of its words only."""
    body: Fields = {"input": [words(one) if one.tokens is None else one.tokens for one in call.inputs]}
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    if call.encodings and call.format == SHAPE:
        body["encoding_format"] = call.encodings[0]
    if call.user is not None:
        body["user"] = call.user
    return body


def _usage(fields: Fields | None) -> Usage | None:
    if not fields:
        return None
    return Usage(input=count(fields, "prompt_tokens", "total_tokens", "input_tokens"), cost=money(fields.get("cost")))


def _counted(body: bytes) -> Summary:
    told = decoded(_decode_told, body)
    if told.error:
        return Summary(_usage(told.usage), fault=errors.read(200, body))
    if not bytes(told.data).startswith(b"["):
        raise no_reply()
    return Summary(_usage(told.usage))


def _reply(body: bytes) -> Embeddings:
    whole = decoded(_decode_whole, body)
    if whole.error:
        raise errors.read(200, body)
    if whole.data is None:
        raise no_reply()
    ordered = sorted(enumerate(whole.data), key=_place)
    return Embeddings(
        model=whole.model or "",
        vectors=tuple(one.embedding for _, one in ordered),
        id=whole.id or "",
        usage=_usage(whole.usage),
        format=SHAPE,
    )


def _place(numbered: tuple[int, _Vector]) -> int:
    at, one = numbered
    return at if one.index is None else one.index


def _said(reply: Embeddings, call: EmbeddingCall) -> Fields:
    write = _vectors.text if call.encodings == ("base64",) else _vectors.numbers
    data = [{"object": "embedding", "index": at, "embedding": write(one)} for at, one in enumerate(_given(reply))]
    said: Fields = {"id": reply.id} if reply.id else {}
    usage: Fields = {"prompt_tokens": tokens(reply.usage), "total_tokens": tokens(reply.usage)}
    if reply.usage is not None and reply.usage.cost is not None:
        usage["cost"] = reply.usage.cost
    return {**said, "object": "list", "data": data, "model": reply.model or call.model, "usage": usage}


def _given(reply: Embeddings) -> tuple[Vector, ...]:
    if not reply.vectors:
        raise no_reply()
    return reply.vectors
