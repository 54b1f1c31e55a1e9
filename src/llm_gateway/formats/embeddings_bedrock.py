"""Amazon's Titan text embeddings behind Bedrock's InvokeModel. The path says the model; Cohere's there are Cohere's own shape.

Law: one text for each request. https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Encoding, Input
from llm_gateway.core.types import Usage
from llm_gateway.formats import _members, _typed, _vectors
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, unnamed, words
from llm_gateway.formats._numbers import tokens
from llm_gateway.formats.bedrock_converse import errors
from llm_gateway.formats.contract import Peek, Summary

SHAPE = "bedrock_titan_embed"
_NULL = Raw(b"null")


class _Request(Struct, rename="camel", gc=False):
    input_text: str | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    normalize: bool | None = None
    embedding_types: list[Encoding] | None = None


class _ByType(Struct, rename={"numbers": "float"}, gc=False):
    numbers: list[float] | None = None
    binary: Raw = _NULL


class _Whole(Struct, rename="camel", gc=False):
    embedding: list[float] | None = None
    embeddings_by_type: _ByType | None = None
    input_text_token_count: Any = None
    message: Any = None


class _Told(Struct, rename="camel", gc=False):
    embedding: Raw = _NULL
    embeddings_by_type: Raw = _NULL
    input_text_token_count: Any = None
    message: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_KNOWN = _typed.names(_Request) | {"model"}


def shape() -> Embedding:
    return Embedding(
        name=SHAPE, path="/model/{model}/invoke", needs=("inputText",), read=_read, body=_body, counted=_counted, reply=_reply, said=_said,
        fault=errors.write, faulty=errors.read, placed=unnamed,
    )  # fmt: skip


def _read(peek: Peek) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join(peek.members))
    return EmbeddingCall(
        model=peek.model,
        inputs=(Input(asked.input_text or "", at="inputText"),),
        dimensions=asked.dimensions,
        encodings=tuple(asked.embedding_types or ()),
        normalize=asked.normalize,
        format=SHAPE,
        extras=rest(peek.members, _KNOWN),
    )


def _body(call: EmbeddingCall) -> Fields:
    """The first version of the model knows of a text only; what else is not asked for is not said."""
    body: Fields = {"inputText": words(call.inputs[0])}
    if call.dimensions is not None:
        body["dimensions"] = call.dimensions
    if call.normalize is not None:
        body["normalize"] = call.normalize
    if call.encodings and call.format == SHAPE:
        body["embeddingTypes"] = call.encodings
    return body


def _usage(count: object) -> Usage | None:
    return None if count is None else Usage(input=tokens({"count": count}, "count"))


def _counted(body: bytes) -> Summary:
    told = decoded(_decode_told, body)
    if told.message and bytes(told.embedding) == b"null":
        return Summary(None, fault=errors.read(200, body))
    if not (bytes(told.embedding).startswith(b"[") or bytes(told.embeddings_by_type).startswith(b"{")):
        raise no_reply()
    return Summary(_usage(told.input_text_token_count))


def _reply(body: bytes) -> Embeddings:
    whole = decoded(_decode_whole, body)
    by_type = whole.embeddings_by_type
    vector = whole.embedding or (by_type.numbers if by_type is not None else None)
    extras = {"embeddings.binary": by_type.binary.copy()} if by_type is not None and bytes(by_type.binary) != b"null" else {}
    if vector is None and whole.message:
        raise errors.read(200, body)
    if vector is None and not extras:
        raise no_reply()
    vectors = () if vector is None else (vector,)
    return Embeddings(model="", vectors=vectors, usage=_usage(whole.input_text_token_count), format=SHAPE, extras=extras)


def _said(reply: Embeddings, call: EmbeddingCall) -> Fields:
    said: Fields = {"inputTextTokenCount": 0 if reply.usage is None else reply.usage.input}
    by_type: Fields = {}
    if reply.vectors:
        by_type["float"] = said["embedding"] = _vectors.numbers(reply.vectors[0])
    if reply.format == SHAPE and "embeddings.binary" in reply.extras:
        by_type["binary"] = reply.extras["embeddings.binary"]
    return {**said, "embeddingsByType": by_type} if call.encodings else said
