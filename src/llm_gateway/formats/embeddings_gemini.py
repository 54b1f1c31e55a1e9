"""Gemini's embedContent, and batchEmbedContents, which is a list of the same. https://ai.google.dev/api/embeddings

Law: the path says the model; a batch says it again in each request, where it has to be the same. A batch whose requests differ in
what vectors are for, or in length, is nobody else's single request: refused elsewhere. Its API tells of usage seldom.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input, Piece, Task
from llm_gateway.core.types import Audio, Document, Image, Media, Text, Usage, Video
from llm_gateway.formats import _members, _typed, _vectors
from llm_gateway.formats._embedding import Embedding, Fields, decoded, no_reply, rest, unnamed
from llm_gateway.formats._members import invalid
from llm_gateway.formats.contract import Peek, Summary
from llm_gateway.formats.embedding_crossings import TASKS
from llm_gateway.formats.gemini import _casing, _reading, _usage, _writing, errors

ONE, BATCH = "gemini_embed", "gemini_embed_batch"
_NULL = Raw(b"null")
WORDS: dict[Task, str] = {
    "query": "RETRIEVAL_QUERY",
    "document": "RETRIEVAL_DOCUMENT",
    "similarity": "SEMANTIC_SIMILARITY",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
    "question": "QUESTION_ANSWERING",
    "fact": "FACT_VERIFICATION",
    "code": "CODE_RETRIEVAL_QUERY",
}
_UNSAID = frozenset({None, "", "TASK_TYPE_UNSPECIFIED"})


class _Content(Struct, gc=False):
    parts: Annotated[list[Raw], Meta(min_length=1)]


class _One(Struct, rename="camel", gc=False):
    content: _Content
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: Annotated[int, Meta(ge=1)] | None = None


class _Values(Struct, gc=False):
    values: list[float]


class _Whole(Struct, rename="camel", gc=False):
    embedding: _Values | None = None
    embeddings: list[_Values] | None = None
    usage_metadata: dict[str, Any] | None = None
    error: Any = None


class _Told(Struct, rename="camel", gc=False):
    embedding: Raw = _NULL
    embeddings: Raw = _NULL
    usage_metadata: dict[str, Any] | None = None
    error: Any = None


_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_one = msgspec.json.Decoder(_One).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_KNOWN = _typed.names(_One) | {"model"}


def shapes() -> tuple[Embedding, ...]:
    return (
        Embedding(
            name=BATCH, path="/models/{model}:batchEmbedContents", needs=("requests",), read=_read_batch, body=_batch_body, counted=_counted, reply=_reply,
            said=_said_batch, fault=errors.write, faulty=errors.read, placed=_placed,
        ),
        Embedding(
            name=ONE, path="/models/{model}:embedContent", needs=("content",), read=_read_one, body=_one_body, counted=_counted, reply=_reply,
            said=_said_one, fault=errors.write, faulty=errors.read, placed=unnamed,
        ),
    )  # fmt: skip


def _placed(body: Fields, model: str) -> Fields:
    """Each request of a batch names the model; so it does where it came as it is."""
    resource = {"model": f"models/{model.removeprefix('models/')}"}
    requests = body["requests"]
    if isinstance(requests, Raw):
        requests = [_members.object_({path: raw}, path) for path, raw in _requests(body)]
    return {**unnamed(body, model), "requests": [{**one, **resource} for one in requests]}


def _requests(members: dict[str, Raw]) -> list[tuple[str, Raw]]:
    _members.filled_array(members, "requests")
    return [(f"requests[{at}]", raw) for at, raw in enumerate(_typed.decode(_decode_list, members["requests"], "requests"))]


def _read_one(peek: Peek) -> EmbeddingCall:
    return _call(peek, [("", _members.written(peek.members))], ONE)


def _read_batch(peek: Peek) -> EmbeddingCall:
    return _call(peek, _requests(peek.members), BATCH)


def _call(peek: Peek, requests: list[tuple[str, Raw]], shape: str) -> EmbeddingCall:
    extras: dict[str, Raw] = {}
    inputs: list[Input] = []
    first: _One | None = None
    for path, raw in requests:
        members = _normal(path, raw)
        one = _typed.decode(_decode_one, _members.join(members), path)
        under = f"{path}." if path else ""
        extras |= {f"{under}{name}": value for name, value in rest(members, _KNOWN).items()}
        inputs.append(_input(one, f"{under}content", extras))
        first = first or one
        _agree(first, one, under)
    if first is None:
        raise _typed.missing("requests")
    return EmbeddingCall(
        model=peek.model,
        inputs=tuple(inputs),
        dimensions=first.output_dimensionality,
        task=_task(first.task_type, requests[0][0]),
        format=shape,
        extras=extras,
    )


def _normal(path: str, raw: Raw) -> dict[str, Raw]:
    """A request's members, in one of the two spellings that Gemini takes."""
    members = _members.object_({path: raw}, path)
    return {_casing.camel(name): Raw(_casing.normal(bytes(value))) for name, value in members.items()}


def _agree(first: _One, one: _One, under: str) -> None:
    for name, wanted, given in (
        ("taskType", first.task_type, one.task_type),
        ("outputDimensionality", first.output_dimensionality, one.output_dimensionality),
    ):
        if wanted != given:
            raise invalid(f"'{under}{name}' must be the same for all requests with this model.", f"{under}{name}")


def _task(word: str | None, path: str) -> Task | None:
    if word in _UNSAID or word is None:
        return None
    if word.lower() not in TASKS:
        at = f"{path}.taskType" if path else "taskType"
        raise invalid(f"'{at}' is none of Gemini's task types.", at)
    return TASKS[word.lower()]


def _input(one: _One, path: str, extras: dict[str, Raw]) -> Input:
    pieces: list[Piece] = []
    for at, raw in enumerate(one.content.parts):
        where = f"{path}.parts[{at}]"
        part = _reading.part(raw, where, "", extras)
        if not isinstance(part, Text | Image | Audio | Video | Document):
            raise invalid(f"'{where}' is nothing to embed: text, an image, a sound, a film or a file is.", where)
        pieces.append(part)
    if len(pieces) == 1 and isinstance(pieces[0], Text):
        return Input(pieces[0].text, title=one.title, at=path)
    return Input(pieces=tuple(pieces), title=one.title, at=path)


def _one_body(call: EmbeddingCall) -> Fields:
    return _request(call, call.inputs[0])


def _batch_body(call: EmbeddingCall) -> Fields:
    return {"requests": [_request(call, one) for one in call.inputs]}


def _request(call: EmbeddingCall, one: Input) -> Fields:
    parts = [{"text": one.text}] if one.text is not None else [_piece(each, one.at) for each in one.pieces]
    body: Fields = {"content": {"parts": parts}}
    if call.task is not None:
        body["taskType"] = WORDS[call.task]
    if one.title:
        body["title"] = one.title
    if call.dimensions is not None:
        body["outputDimensionality"] = call.dimensions
    return body


def _piece(piece: Piece, at: str) -> Fields:
    match piece:
        case Text(text=text):
            return {"text": text}
        case Document(text=str() as text):
            return {"text": text}
        case Document(media=file):
            return _writing.source(file or Media(), "application/pdf", at)
        case Image(media=media):
            return _writing.source(media, "image/jpeg", at)
        case Audio(media=media):
            return _writing.source(media, "audio/wav", at)
        case Video(media=media):
            return _writing.source(media, "video/mp4", at)


def _counts(fields: Fields | None) -> Usage | None:
    return _usage.read(fields or {}, 0)


def _counted(body: bytes) -> Summary:
    told = decoded(_decode_told, body)
    if told.error:
        return Summary(None, fault=errors.read(200, body))
    if not (bytes(told.embedding).startswith(b"{") or bytes(told.embeddings).startswith(b"[")):
        raise no_reply()
    return Summary(_counts(told.usage_metadata))


def _reply(body: bytes) -> Embeddings:
    whole = decoded(_decode_whole, body)
    if whole.error:
        raise errors.read(200, body)
    found = whole.embeddings if whole.embedding is None else [whole.embedding]
    if found is None:
        raise no_reply()
    vectors = tuple(one.values for one in found)
    return Embeddings(model="", vectors=vectors, usage=_counts(whole.usage_metadata), format=BATCH)


def _said_one(reply: Embeddings, _: EmbeddingCall) -> Fields:
    if not reply.vectors:
        raise no_reply()
    return {"embedding": {"values": _vectors.numbers(reply.vectors[0])}, **_said_usage(reply)}


def _said_batch(reply: Embeddings, _: EmbeddingCall) -> Fields:
    return {"embeddings": [{"values": _vectors.numbers(one)} for one in reply.vectors], **_said_usage(reply)}


def _said_usage(reply: Embeddings) -> Fields:
    if reply.usage is None:
        return {}
    return {"usageMetadata": {"promptTokenCount": reply.usage.input, "totalTokenCount": reply.usage.input}}
