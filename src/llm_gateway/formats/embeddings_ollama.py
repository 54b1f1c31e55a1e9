"""Ollama's embed, and embeddings, which it replaced. https://docs.ollama.com/api/embed

Law: the old one takes one `prompt` and answers with one vector. An empty one is a request to load the model: it goes through to
an Ollama, and is refused elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Usage
from llm_gateway.formats import _members, _typed, _vectors, embedding_crossings
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, words
from llm_gateway.formats._members import invalid
from llm_gateway.formats._numbers import tokens
from llm_gateway.formats.contract import Peek, Summary
from llm_gateway.formats.ollama import errors

SHAPE, OLD = "ollama_embed", "ollama_embeddings"
_NULL = Raw(b"null")


class _Request(Struct, gc=False):
    """Of both: `prompt` is the old one's."""

    input: str | list[str] | None = None
    prompt: str | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class _Whole(Struct, gc=False):
    model: str | None = None
    embeddings: list[list[float]] | None = None
    embedding: list[float] | None = None
    prompt_eval_count: Any = None
    error: Any = None


class _Told(Struct, gc=False):
    embeddings: Raw = _NULL
    embedding: Raw = _NULL
    prompt_eval_count: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_KNOWN = frozenset({"model", "input", "truncate", "dimensions"})
_OLD_KNOWN = frozenset({"model", "prompt"})
_TOLD = _typed.names(_Whole)


def shapes() -> tuple[Embedding, ...]:
    return (
        Embedding(
            name=SHAPE, path="/api/embed", needs=("input",), read=_read, body=_body, counted=_counted, reply=_reply, said=_said,
            fault=errors.write, faulty=errors.read, lost=_lost,
        ),
        Embedding(
            name=OLD, path="/api/embeddings", needs=("prompt",), read=_read_old, body=_old_body, counted=_counted, reply=_reply,
            said=_said_old, fault=errors.write, faulty=errors.read,
        ),
    )  # fmt: skip


def _read(peek: Peek) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join(peek.members))
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if not given:
        raise _nothing("input")
    truncate = asked.truncate
    return EmbeddingCall(
        model=peek.model,
        inputs=tuple(Input(one, at=f"input[{at}]") for at, one in enumerate(given)),
        dimensions=asked.dimensions,
        truncate=None if truncate is None else "end" if truncate else "none",
        format=SHAPE,
        extras=rest(peek.members, _KNOWN),
    )


def _read_old(peek: Peek) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join(peek.members))
    if not asked.prompt:
        raise _nothing("prompt")
    extras = rest(peek.members, _OLD_KNOWN)
    return EmbeddingCall(model=peek.model, inputs=(Input(asked.prompt, at="prompt"),), format=OLD, extras=extras)


def _nothing(path: str) -> Fault:
    return invalid(f"'{path}' must not be empty: only Ollama loads a model that is asked nothing.", path)


def _lost(call: EmbeddingCall) -> list[str]:
    """Ollama cuts at the end."""
    return [embedding_crossings.name(call, "truncate")] if call.truncate == "start" else []


def _body(call: EmbeddingCall) -> Fields:
    body: Fields = {"input": [words(one) for one in call.inputs]}
    if call.truncate is not None:
        body["truncate"] = call.truncate != "none"
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    return body


def _old_body(call: EmbeddingCall) -> Fields:
    return {"prompt": words(call.inputs[0])}


def _usage(count: object) -> Usage | None:
    return None if count is None else Usage(input=tokens({"count": count}, "count"))


def _counted(body: bytes) -> Summary:
    told = decoded(_decode_told, body)
    if told.error:
        return Summary(None, fault=errors.read(200, body))
    if not (bytes(told.embeddings).startswith(b"[") or bytes(told.embedding).startswith(b"[")):
        raise no_reply()
    return Summary(_usage(told.prompt_eval_count))


def _reply(body: bytes) -> Embeddings:
    whole = decoded(_decode_whole, body)
    if whole.error:
        raise errors.read(200, body)
    vectors = whole.embeddings
    if vectors is None:
        if whole.embedding is None:
            raise no_reply()
        vectors = [whole.embedding]
    extras = {name: raw for name, raw in _decode_members(body).items() if name not in _TOLD}
    return Embeddings(
        model=whole.model or "", vectors=tuple(vectors), usage=_usage(whole.prompt_eval_count), format=SHAPE, extras=extras
    )


def _said(reply: Embeddings, call: EmbeddingCall) -> Fields:
    said: Fields = {"model": reply.model or call.model, "embeddings": [_vectors.numbers(one) for one in reply.vectors]}
    if reply.format == SHAPE:
        said |= reply.extras
    if reply.usage is not None:
        said["prompt_eval_count"] = reply.usage.input
    return said


def _said_old(reply: Embeddings, _: EmbeddingCall) -> Fields:
    if not reply.vectors:
        raise no_reply()
    return {"embedding": _vectors.numbers(reply.vectors[0])}
