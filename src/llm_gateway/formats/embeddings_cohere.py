"""Cohere's embed, of both versions, and the same behind Bedrock, whose path says the model.

Law: texts, or images, or inputs that mix them. Without `embedding_types` the first version answers with a plain list of vectors,
the second with vectors by type; both answers are read. Vectors of another type than float32 stay as they came (`extras`).
Sources: https://docs.cohere.com/reference/embed, https://docs.cohere.com/v1/reference/embed,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Encoding, Input, Piece, Task, Vector
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import Image, Text, Usage
from llm_gateway.formats import _faults, _members, _typed, _vectors, embedding_crossings
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, unnamed, words
from llm_gateway.formats._members import invalid
from llm_gateway.formats._numbers import section, tokens
from llm_gateway.formats._replies import error_headers
from llm_gateway.formats.bedrock_converse import errors as bedrock
from llm_gateway.formats.contract import Outgoing, Peek, Summary
from llm_gateway.formats.embedding_crossings import TASKS
from llm_gateway.formats.openai_chat import _media

SHAPE, OLD, BEDROCK = "cohere_embed", "cohere_embed_v1", "bedrock_cohere_embed"
_NULL = Raw(b"null")
_BY_TYPE = "embeddings."  # what extras with vectors of other types are called
_WORDS: dict[Task, str] = {
    "query": "search_query",
    "document": "search_document",
    "classification": "classification",
    "clustering": "clustering",
}
_NEAREST: dict[Task, str] = {
    "similarity": "clustering",
    "question": "search_query",
    "fact": "search_query",
    "code": "search_query",
}


class _TextPiece(Struct, tag="text", gc=False):
    text: str


class _Url(Struct, gc=False):
    url: str


class _ImagePiece(Struct, tag="image_url", gc=False):
    image_url: _Url


class _Mixed(Struct, gc=False):
    content: Annotated[list[_TextPiece | _ImagePiece], Meta(min_length=1)]


class _Request(Struct, gc=False):
    texts: list[str] | None = None
    images: list[str] | None = None
    inputs: list[_Mixed] | None = None
    input_type: str | None = None
    embedding_types: list[Encoding] | None = None
    output_dimension: Annotated[int, Meta(ge=1)] | None = None
    truncate: Literal["NONE", "START", "END", "LEFT", "RIGHT"] | None = None


class _ByType(Struct, rename={"numbers": "float", "texts": "base64"}, gc=False):
    numbers: list[list[float]] | None = None
    texts: list[str] | None = None


class _Told(Struct, gc=False):
    embeddings: Raw = _NULL
    id: str | None = None
    meta: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Request).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_plain = msgspec.json.Decoder(list[list[float]]).decode
_decode_by_type = msgspec.json.Decoder(_ByType).decode
_KNOWN = _typed.names(_Request) | {"model"}
_TRUNCATES: dict[str, Literal["none", "start", "end"]] = {
    "NONE": "none", "START": "start", "LEFT": "start", "END": "end", "RIGHT": "end",
}  # fmt: skip


def shapes() -> tuple[Embedding, ...]:
    needs = ("texts", "images", "inputs")
    return (
        Embedding(
            name=SHAPE, path="/v2/embed", needs=needs, read=_read, body=_body, counted=_counted, reply=_reply, said=_said,
            fault=_write_fault, faulty=_faults.read, lost=_lost,
        ),
        Embedding(
            name=OLD, path="/v1/embed", needs=needs, read=_read_old, body=_body, counted=_counted, reply=_reply, said=_said_old,
            fault=_write_fault, faulty=_faults.read, lost=_lost,
        ),
        Embedding(
            name=BEDROCK, path="/model/{model}/invoke", needs=needs, read=_read_bedrock, body=_body, counted=_counted, reply=_reply,
            said=_said_old, fault=bedrock.write, faulty=bedrock.read, lost=_lost, placed=unnamed,
        ),
    )  # fmt: skip


def _read(peek: Peek) -> EmbeddingCall:
    return _call(peek, SHAPE)


def _read_old(peek: Peek) -> EmbeddingCall:
    return _call(peek, OLD)


def _read_bedrock(peek: Peek) -> EmbeddingCall:
    return _call(peek, BEDROCK)


def _call(peek: Peek, shape: str) -> EmbeddingCall:
    asked = _typed.decode(_decode, _members.join(peek.members))
    extras = rest(peek.members, _KNOWN)
    task = TASKS.get((asked.input_type or "").lower())
    if task is None and asked.input_type:
        extras["input_type"] = _members.written(asked.input_type)
    return EmbeddingCall(
        model=peek.model,
        inputs=_inputs(asked),
        dimensions=asked.output_dimension,
        encodings=tuple(asked.embedding_types or ()),
        task=task,
        truncate=_TRUNCATES[asked.truncate] if asked.truncate else None,
        format=shape,
        extras=extras,
    )


def _inputs(asked: _Request) -> tuple[Input, ...]:
    given = [name for name in ("texts", "images", "inputs") if getattr(asked, name)]
    if len(given) != 1:
        raise invalid("One of 'texts', 'images' and 'inputs' is required.", (given or ["texts"])[-1])
    if asked.texts:
        return tuple(Input(text, at=f"texts[{at}]") for at, text in enumerate(asked.texts))
    if asked.images:
        return tuple(_picture(url, f"images[{at}]") for at, url in enumerate(asked.images))
    mixed = enumerate(asked.inputs or ())
    return tuple(Input(pieces=tuple(_pieces(one, f"inputs[{at}].content")), at=f"inputs[{at}]") for at, one in mixed)


def _picture(url: str, path: str) -> Input:
    return Input(pieces=(Image(_media.from_url(url, path)),), at=path)


def _pieces(one: _Mixed, path: str) -> list[Piece]:
    pieces: list[Piece] = []
    for at, piece in enumerate(one.content):
        if isinstance(piece, _TextPiece):
            pieces.append(Text(piece.text))
        else:
            pieces.append(Image(_media.from_url(piece.image_url.url, f"{path}[{at}].image_url.url")))
    return pieces


def _lost(call: EmbeddingCall) -> list[str]:
    return [embedding_crossings.name(call, "task")] if call.task in _NEAREST else []


def _body(call: EmbeddingCall) -> Fields:
    pictures = all(len(one.pieces) == 1 and isinstance(one.pieces[0], Image) for one in call.inputs)
    body: Fields
    if pictures:
        body = {"images": [_url(piece, one) for one in call.inputs for piece in one.pieces]}
    elif any(not isinstance(piece, Text) for one in call.inputs for piece in one.pieces):
        body = {"inputs": [{"content": _content(one)} for one in call.inputs]}
    else:
        body = {"texts": [words(one) for one in call.inputs]}
    body["input_type"] = "image" if pictures and call.task is None else _word(call.task)
    if call.encodings or call.format not in {OLD, BEDROCK}:
        body["embedding_types"] = call.encodings or ("float",)
    if call.dimensions is not None:
        body["output_dimension"] = call.dimensions
    if call.truncate is not None:
        body["truncate"] = call.truncate.upper()
    return body


def _word(task: Task | None) -> str:
    """What vectors are for; Cohere wants to know, and documents are what most vectors are of."""
    return _WORDS.get(task or "document") or _NEAREST[task or "document"]


def _content(one: Input) -> list[Fields]:
    if one.text is not None:
        return [{"type": "text", "text": one.text}]
    return [
        {"type": "text", "text": piece.text}
        if isinstance(piece, Text)
        else {"type": "image_url", "image_url": {"url": _url(piece, one)}}
        for piece in one.pieces
    ]


def _url(piece: Piece, one: Input) -> str:
    if not isinstance(piece, Image) or piece.media.data is None:
        raise invalid(f"'{one.at}': this model takes images by value, and text.", one.at)
    return _media.to_url(piece.media)


def _look(body: bytes) -> tuple[_Told, Fault | None]:
    told: _Told = decoded(_decode_told, body)
    written = bytes(told.embeddings)
    if told.error or (written == b"null" and b'"message"' in body):
        return told, _faults.read(200, body)
    if written[:1] not in {b"[", b"{"}:
        raise no_reply()
    return told, None


def _usage(meta: Fields | None) -> Usage | None:
    """Billed tokens: of text, and of images, which come on top."""
    billed = section(meta or {}, "billed_units")
    if not billed:
        return None
    images = tokens(billed, "image_tokens")
    return Usage(input=tokens(billed, "input_tokens") + images, image_input=images)


def _counted(body: bytes) -> Summary:
    told, fault = _look(body)
    return Summary(_usage(told.meta), fault=fault)


def _reply(body: bytes) -> Embeddings:
    told, fault = _look(body)
    if fault is not None:
        raise fault
    vectors: tuple[Vector, ...]
    extras: dict[str, Raw] = {}
    if bytes(told.embeddings).startswith(b"["):
        vectors = tuple(decoded(_decode_plain, bytes(told.embeddings)))
    else:
        by_type: _ByType = decoded(_decode_by_type, bytes(told.embeddings))
        vectors = tuple(by_type.numbers or by_type.texts or ())
        members = _decode_members(told.embeddings)
        extras = {_BY_TYPE + name: raw.copy() for name, raw in members.items() if name not in {"float", "base64"}}
    return Embeddings(model="", vectors=vectors, id=told.id or "", usage=_usage(told.meta), format=SHAPE, extras=extras)


def _said(reply: Embeddings, call: EmbeddingCall) -> Fields:
    return {**_about(reply, call), "embeddings": _by_type(reply, call), "response_type": "embeddings_by_type"}


def _said_old(reply: Embeddings, call: EmbeddingCall) -> Fields:
    if call.encodings:
        return _said(reply, call)
    vectors = [_vectors.numbers(one) for one in reply.vectors]
    return {**_about(reply, call), "embeddings": vectors, "response_type": "embeddings_floats"}


def _by_type(reply: Embeddings, call: EmbeddingCall) -> Fields:
    found: Fields = {}
    for encoding in call.encodings or ("float",):
        if encoding == "float":
            found["float"] = [_vectors.numbers(one) for one in reply.vectors]
        elif encoding == "base64":
            found["base64"] = [_vectors.text(one) for one in reply.vectors]
        elif (raw := reply.extras.get(_BY_TYPE + encoding)) is not None:
            found[encoding] = raw
    return found


def _about(reply: Embeddings, call: EmbeddingCall) -> Fields:
    """The version of Cohere's API that the client speaks, and the texts, which it gets back."""
    meta: Fields = {"api_version": {"version": "2" if call.format == SHAPE else "1"}}
    if reply.usage is not None:
        images = reply.usage.image_input
        meta["billed_units"] = {"input_tokens": reply.usage.input - images} | ({"image_tokens": images} if images else {})
    texts = [words(one) for one in call.inputs if one.text is not None]
    return {"id": reply.id, "texts": texts, "meta": meta}


def _write_fault(fault: Fault) -> Outgoing:
    """{"message": ...}, and the status. https://docs.cohere.com/reference/errors"""
    message = f"{fault.param}: {fault.message}" if fault.param and fault.param not in fault.message else fault.message
    return Outgoing(_members.join({"message": _members.written(message)}), status=fault.kind.status, headers=error_headers(fault))
