"""Vertex AI's text embeddings behind `:predict`: instances with their words, predictions with their vectors.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api. Law: the path says the model; what a
text is for stands with each text, the length of vectors and whether too long a text is cut with all of them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input, Task
from llm_gateway.core.types import Usage
from llm_gateway.formats import _members, _typed, _vectors
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, unnamed, words
from llm_gateway.formats._members import invalid
from llm_gateway.formats._numbers import tokens
from llm_gateway.formats.contract import Peek, Summary
from llm_gateway.formats.embedding_crossings import TASKS
from llm_gateway.formats.embeddings_gemini import WORDS
from llm_gateway.formats.gemini import errors

SHAPE = "vertex_embed"
_NULL = Raw(b"null")


class _Instance(Struct, gc=False):
    content: str
    task_type: str | None = None
    title: str | None = None


class _Parameters(Struct, rename="camel", gc=False):
    output_dimensionality: Annotated[int, Meta(ge=1)] | None = None
    auto_truncate: bool | None = None


class _Request(Struct, gc=False):
    instances: Annotated[list[_Instance], Meta(min_length=1)]
    parameters: _Parameters | None = None


class _Values(Struct, gc=False):
    values: list[float]
    statistics: dict[str, Any] | None = None


class _Prediction(Struct, gc=False):
    embeddings: _Values


class _Whole(Struct, gc=False):
    predictions: list[_Prediction] | None = None
    error: Any = None


class _Counted(Struct, gc=False):
    statistics: dict[str, Any] | None = None


class _Seen(Struct, gc=False):
    embeddings: _Counted | None = None


class _Told(Struct, gc=False):
    """What accounting reads: the vectors themselves are passed over."""

    predictions: list[_Seen] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_KNOWN = _typed.names(_Request) | {"model"}


def shape() -> Embedding:
    return Embedding(
        name=SHAPE, path="/models/{model}:predict", needs=("instances",), read=_read, body=_body, counted=_count, reply=_reply, said=_said,
        fault=errors.write, faulty=errors.read, placed=unnamed,
    )  # fmt: skip


def _read(peek: Peek) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join({name: raw for name, raw in peek.members.items() if name != "model"}))
    parameters = asked.parameters or _Parameters()
    truncate = parameters.auto_truncate
    return EmbeddingCall(
        model=peek.model,
        inputs=tuple(Input(one.content, title=one.title, at=f"instances[{at}].content") for at, one in enumerate(asked.instances)),
        dimensions=parameters.output_dimensionality,
        task=_task(asked.instances),
        truncate=None if truncate is None else "end" if truncate else "none",
        format=SHAPE,
        extras=rest(peek.members, _KNOWN),
    )


def _task(instances: list[_Instance]) -> Task | None:
    """What all of them are for: other shapes can say it once."""
    said = {one.task_type for one in instances}
    if len(said) > 1:
        raise invalid("'instances[1].task_type' must be the same for all instances with this model.", "instances[1].task_type")
    word = said.pop()
    if word is not None and word.lower() not in TASKS:
        raise invalid("'instances[0].task_type' is none of Google's task types.", "instances[0].task_type")
    return None if word is None else TASKS[word.lower()]


def _body(call: EmbeddingCall) -> Fields:
    task = {} if call.task is None else {"task_type": WORDS[call.task]}
    instances = [{"content": words(one), **task, **({"title": one.title} if one.title else {})} for one in call.inputs]
    parameters: Fields = {}
    if call.dimensions is not None:
        parameters["outputDimensionality"] = call.dimensions
    if call.truncate is not None:
        parameters["autoTruncate"] = call.truncate != "none"
    return {"instances": instances} | ({"parameters": parameters} if parameters else {})


def _usage(statistics: list[dict[str, Any] | None]) -> Usage:
    return Usage(input=sum(tokens(each or {}, "token_count") for each in statistics))


def _count(body: bytes) -> Summary:
    told = decoded(_decode_told, body)
    if told.error:
        return Summary(None, fault=errors.read(200, body))
    if told.predictions is None:
        raise no_reply()
    return Summary(_usage([each.embeddings.statistics if each.embeddings is not None else None for each in told.predictions]))


def _reply(body: bytes) -> Embeddings:
    whole = decoded(_decode_whole, body)
    if whole.error:
        raise errors.read(200, body)
    if whole.predictions is None:
        raise no_reply()
    found = [each.embeddings for each in whole.predictions]
    return Embeddings(model="", vectors=tuple(each.values for each in found), usage=_usage([each.statistics for each in found]), format=SHAPE)


def _said(reply: Embeddings, _: EmbeddingCall) -> Fields:
    """Tokens are told with each text there, and as a sum everywhere else: the first has them all."""
    total = 0 if reply.usage is None else reply.usage.input
    counts = [total] + [0] * (len(reply.vectors) - 1)
    return {
        "predictions": [
            {"embeddings": {"values": _vectors.numbers(vector), "statistics": {"truncated": False, "token_count": count}}}
            for vector, count in zip(reply.vectors, counts, strict=False)
        ]
    }
