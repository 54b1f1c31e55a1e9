"""Embeddings: every recorded one in its own shape and in all others, vectors exact, and what a crossing keeps, drops, refuses."""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from functools import cache
from typing import Any

import ollama
import pytest
from google.genai.types import EmbedContentResponse
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from formats.sampling import generated
from formats.shapes import NOW
from llm_gateway.core.embedding import EmbeddingCall, Embeddings, Input
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.types import Image, Media, Text, Usage
from llm_gateway.formats import (
    _vectors,
    embedding_crossings,
    embeddings_bedrock,
    embeddings_cohere,
    embeddings_gemini,
    embeddings_ollama,
    embeddings_openai,
    embeddings_vertex,
)
from llm_gateway.formats.contract import Outgoing, Peek
from replay.recordings import Interaction, Recordings, load

SHAPES = {
    shape.name: shape
    for shape in (
        embeddings_openai.shape(),
        *embeddings_gemini.shapes(),
        *embeddings_cohere.shapes(),
        *embeddings_ollama.shapes(),
        embeddings_bedrock.shape(),
        embeddings_vertex.shape(),
    )
}
OPENAI, GEMINI, BATCH = (SHAPES[name] for name in ("openai_embeddings", "gemini_embed", "gemini_embed_batch"))
COHERE, COHERE_OLD, COHERE_BEDROCK = (SHAPES[name] for name in ("cohere_embed", "cohere_embed_v1", "bedrock_cohere_embed"))
OLLAMA, OLLAMA_OLD, TITAN = (SHAPES[name] for name in ("ollama_embed", "ollama_embeddings", "bedrock_titan_embed"))
VERTEX = SHAPES["vertex_embed"]
PIXEL = "iVBORw0KGgo="
# What each recorded path is.
BY_PATH = {
    "/api/embeddings": OLLAMA_OLD,
    "/api/embed": OLLAMA,
    "/v2/embed": COHERE,
    ":batchEmbedContents": BATCH,
    ":embedContent": GEMINI,
    "/invoke": TITAN,
    ":predict": VERTEX,
    "/embeddings": OPENAI,
}
CALL = EmbeddingCall(model="m", inputs=(Input("hi", at="input"),))
BASE64 = EmbeddingCall(model="m", inputs=(Input("hi", at="input"),), encodings=("base64",), format="openai_embeddings")


@cache
def recorded() -> tuple[Interaction, ...]:
    try:
        recordings = load()
    except FileNotFoundError:
        recordings = Recordings(())
    wanted = (one for one in recordings.interactions if "embed" in one.row["api"] or "embeddings" in one.features)
    return tuple(wanted)


def shape_of(interaction):
    return next(shape for end, shape in BY_PATH.items() if interaction.url_path.endswith(end))


def each(interactions):
    return pytest.mark.parametrize("interaction", interactions, ids=[one.id for one in interactions])


WELL = [one for one in recorded() if one.status < 400]
ERRORS = [one for one in recorded() if one.status >= 400]


def peeked(interaction) -> Peek:
    return shape_of(interaction).peek(json.dumps(interaction.request).encode(), interaction.row["model"] or "m")


def asked(shape, **members: Any) -> EmbeddingCall:
    return shape.read_request(shape.peek(json.dumps(members).encode(), "m"))


def sent(shape, call: EmbeddingCall, model: str = "m") -> tuple[dict[str, Any], tuple[str, ...]]:
    told = shape.write_request(call, model)
    return json.loads(told.body), told.dropped


def call_of(*inputs: str, **more: Any) -> EmbeddingCall:
    return EmbeddingCall(model="m", inputs=tuple(Input(text, at=f"input[{at}]") for at, text in enumerate(inputs or ("hi",))), **more)


# -- recorded traffic -------------------------------------------------------------------------------------------------


def test_no_recorded_embedding_is_skipped_in_silence():
    assert len(recorded()) in {0, 26}


def numbers_in(body: bytes) -> list[list[float]]:
    """Vectors as anyone would read them, by recorded shape."""
    tree = json.loads(body)
    if "data" in tree:
        found = [one["embedding"] for one in tree["data"]]
        return [list(struct.unpack(f"<{len(b64decode(v)) // 4}f", b64decode(v))) if isinstance(v, str) else v for v in found]
    if "predictions" in tree:
        return [one["embeddings"]["values"] for one in tree["predictions"]]
    if "embeddings" in tree:
        vectors = tree["embeddings"]["float"] if isinstance(tree["embeddings"], dict) else tree["embeddings"]
        return [one["values"] if isinstance(one, dict) else one for one in vectors]
    vector = tree["embedding"]
    return [vector["values"] if isinstance(vector, dict) else vector]


@each(WELL)
def test_a_recorded_reply_is_summarised_and_read_alike_and_exactly(interaction):
    shape = shape_of(interaction)
    summary, reply = shape.summarise(interaction.body), shape.read_reply(interaction.body)
    assert (summary.fault, summary.finish, reply.finish) == (None, None, None)
    assert summary.usage == reply.usage
    tells = any(name in interaction.body for name in (b'"usage"', b"okenCount", b"billed_units", b"eval_count", b"token_count"))
    assert (reply.usage is not None and reply.usage.input > 0) is tells
    assert [_vectors.numbers(one) for one in reply.vectors] == numbers_in(interaction.body)


@each(WELL)
def test_a_recorded_reply_crosses_into_every_shape_with_its_vectors(interaction):
    reply = shape_of(interaction).read_reply(interaction.body)
    meant = [_vectors.numbers(one) for one in reply.vectors]
    for shape in SHAPES.values():
        told = shape.read_reply(shape.write_reply(reply, CALL, NOW).body)
        assert [_vectors.numbers(one) for one in told.vectors] == meant
        if reply.usage is not None and shape is not OLLAMA_OLD:
            assert told.usage is not None
            assert told.usage.input == reply.usage.input


@each(WELL)
def test_a_recorded_reply_is_one_to_the_real_clients(interaction):
    reply = shape_of(interaction).read_reply(interaction.body)
    meant = [_vectors.numbers(one) for one in reply.vectors]
    plain = CreateEmbeddingResponse.model_validate_json(OPENAI.write_reply(reply, CALL, NOW).body)
    assert [one.embedding for one in plain.data] == meant
    assert [one.index for one in plain.data] == list(range(len(meant)))
    packed = json.loads(OPENAI.write_reply(reply, BASE64, NOW).body)["data"]
    assert [list(struct.unpack(f"<{len(v)}f", b64decode(one["embedding"]))) for one, v in zip(packed, meant, strict=True)] == [
        [struct.unpack("<f", struct.pack("<f", number))[0] for number in vector] for vector in meant
    ]
    batch = EmbedContentResponse.model_validate_json(BATCH.write_reply(reply, CALL, NOW).body)
    assert [one.values for one in batch.embeddings or ()] == meant
    assert ollama.EmbedResponse.model_validate_json(OLLAMA.write_reply(reply, CALL, NOW).body).embeddings == meant
    assert ollama.EmbeddingsResponse.model_validate_json(OLLAMA_OLD.write_reply(reply, CALL, NOW).body).embedding == meant[0]


@each([one for one in recorded() if isinstance(one.request, dict)])
def test_a_recorded_request_goes_through_and_crosses_or_is_refused_by_name(interaction):
    shape, peek = shape_of(interaction), peeked(interaction)
    passed = shape.forward(peek, "other")
    body = json.loads(passed.body)
    assert interaction.url_path.endswith(passed.path.replace("other", "").rpartition("/")[2])
    if shape is BATCH:
        assert [one.pop("model") for one in body["requests"]] == ["models/other"] * len(body["requests"])
        assert body == {"requests": [{k: v for k, v in one.items() if k != "model"} for one in interaction.request["requests"]]}
    else:
        named = {"model": "other"} if "model" in body else {}
        assert body == interaction.request | named
    call = shape.read_request(peek)
    again = shape.read_request(shape.peek(shape.write_request(call, call.model).body, call.model))
    assert again.inputs == call.inputs or [one.text for one in again.inputs] == [one.text for one in call.inputs]
    assert (again.dimensions, again.encodings, again.task, again.truncate) == (
        call.dimensions, call.encodings, call.task, call.truncate
    )  # fmt: skip
    for target in SHAPES.values():
        crossed(target, call)


def crossed(target, call: EmbeddingCall) -> Outgoing | None:
    """What `target` makes of a call: all of its texts, or a refusal that names a field."""
    try:
        told = target.write_request(call, "m")
    except Fault as fault:
        assert (fault.kind, bool(fault.param)) == (Kind.INVALID, True)  # noqa: PT017
        return None
    read = target.read_request(target.peek(told.body, "m"))
    assert [one.text for one in read.inputs if one.text is not None] == [one.text for one in call.inputs if one.text is not None]
    return told


@each(ERRORS)
def test_a_recorded_error_is_of_its_kind(interaction):
    fault = shape_of(interaction).read_error(interaction.status, interaction.body)
    kinds = {400: {Kind.INVALID, Kind.UPSTREAM_NO_MODEL}, 401: {Kind.UPSTREAM_AUTH}, 404: {Kind.UPSTREAM_NO_MODEL}}
    assert fault.kind in kinds[interaction.status]
    for shape in SHAPES.values():
        told = shape.write_error(fault, "req_1")
        assert told.status >= 400
        assert json.loads(told.body)


# -- vectors ----------------------------------------------------------------------------------------------------------

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


@generated(100)
@given(FLOATS)
def test_base64_and_numbers_become_each_other_exactly(vector):
    text = _vectors.text(vector)
    assert b64decode(text) == struct.pack(f"<{len(vector)}f", *vector)
    assert _vectors.numbers(text) == vector
    body = json.dumps({"object": "list", "data": [{"index": 0, "embedding": text}], "model": "m"}).encode()
    told = json.loads(OLLAMA.write_reply(OPENAI.read_reply(body), CALL, NOW).body)
    assert told["embeddings"] == [vector]
    assert OPENAI.read_reply(OPENAI.write_reply(OPENAI.read_reply(body), BASE64, NOW).body).vectors == (text,)


@pytest.mark.parametrize("text", ["?", "AAA", "AAAAAAA=", b64encode(struct.pack("<f", float("nan"))).decode()])
def test_what_is_no_vector_is_the_upstreams_fault(text):
    body = json.dumps({"data": [{"index": 0, "embedding": text}]}).encode()
    with pytest.raises(Fault) as caught:
        OLLAMA.write_reply(OPENAI.read_reply(body), CALL, NOW)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN
    with pytest.raises(Fault):
        OPENAI.write_reply(Embeddings(model="m", vectors=([1e300],)), BASE64, NOW)


def test_vectors_come_in_the_order_of_their_indices():
    body = json.dumps({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}).encode()
    assert OPENAI.read_reply(body).vectors == ([1.0], [2.0])


# -- crossings --------------------------------------------------------------------------------------------------------


def test_openais_list_is_one_batch_for_gemini():
    call = asked(OPENAI, model="m", input=["a", "b"], dimensions=256, input_type="query", encoding_format="base64")
    told = BATCH.write_request(call, "gemini-embedding-001")
    request = {"model": "models/gemini-embedding-001", "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 256}
    assert told.path == "/models/gemini-embedding-001:batchEmbedContents"
    assert json.loads(told.body) == {"requests": [{"content": {"parts": [{"text": text}]}, **request} for text in "ab"]}
    assert told.dropped == ()
    reply = BATCH.read_reply(b'{"embeddings":[{"values":[0.5]},{"values":[0.25]}]}')
    body = json.loads(OPENAI.write_reply(reply, call, NOW).body)
    assert [one["embedding"] for one in body["data"]] == [_vectors.text([0.5]), _vectors.text([0.25])]
    assert (body["model"], body["usage"]) == ("m", {"prompt_tokens": 0, "total_tokens": 0})


def test_openais_call_in_everyones_words():
    call = asked(OPENAI, model="m", input="a", dimensions=256, user="me", new=1)
    wanted = {
        "gemini_embed": ({"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 256}, {"user", "new"}),
        "cohere_embed": (
            {
                "model": "m", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 256,
            },
            {"user", "new"},
        ),
        "bedrock_cohere_embed": (
            {"texts": ["a"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 256},
            {"user", "new"},
        ),
        "ollama_embed": ({"model": "m", "input": ["a"], "dimensions": 256}, {"user", "new"}),
        "bedrock_titan_embed": ({"inputText": "a", "dimensions": 256}, {"user", "new"}),
        "vertex_embed": ({"instances": [{"content": "a"}], "parameters": {"outputDimensionality": 256}}, {"user", "new"}),
        "openai_embeddings": ({"model": "m", "input": ["a"], "dimensions": 256, "user": "me", "new": 1}, set()),
    }  # fmt: skip
    for name, (body, dropped) in wanted.items():
        told = sent(SHAPES[name], call)
        assert (told[0], set(told[1])) == (body, dropped)
    paths = {name: SHAPES[name].write_request(call_of("a"), "amazon.titan-embed-text-v2:0").path for name in ("bedrock_titan_embed", "cohere_embed")}
    assert paths == {"bedrock_titan_embed": "/model/amazon.titan-embed-text-v2%3A0/invoke", "cohere_embed": "/v2/embed"}


@pytest.mark.parametrize(
    ("task", "cohere", "gemini", "exact"),
    [
        ("query", "search_query", "RETRIEVAL_QUERY", True),
        ("document", "search_document", "RETRIEVAL_DOCUMENT", True),
        ("classification", "classification", "CLASSIFICATION", True),
        ("clustering", "clustering", "CLUSTERING", True),
        ("similarity", "clustering", "SEMANTIC_SIMILARITY", False),
        ("code", "search_query", "CODE_RETRIEVAL_QUERY", False),
    ],
)
def test_what_vectors_are_for_has_a_word_in_each_api(task, cohere, gemini, exact):
    call = call_of(task=task)
    body, dropped = sent(COHERE, call)
    assert (body["input_type"], dropped) == (cohere, () if exact else ("task",))
    body, dropped = sent(GEMINI, call)
    assert (body["taskType"], dropped) == (gemini, ())
    assert sent(OPENAI, call)[1] == ("task",)


@pytest.mark.parametrize(
    ("word", "task"),
    [("query", "query"), ("passage", "document"), ("search_document", "document"), ("RETRIEVAL_QUERY", "query"), ("text-matching", "similarity")],
)
def test_openais_followers_words_are_understood(word, task):
    assert asked(OPENAI, model="m", input="a", input_type=word).task == task
    assert asked(OPENAI, model="m", input="a", task=word).task == task


def test_a_word_nobody_else_has_is_reported():
    call = asked(OPENAI, model="m", input="a", input_type="poetry")
    assert call.task is None
    assert sent(GEMINI, call)[1] == ("input_type",)


@pytest.mark.parametrize(("truncate", "ollamas", "cohere"), [("none", False, "NONE"), ("end", True, "END"), ("start", True, "START")])
def test_truncation(truncate, ollamas, cohere):
    call = call_of(truncate=truncate)
    body, dropped = sent(OLLAMA, call)
    assert (body["truncate"], "truncate" in dropped) == (ollamas, truncate == "start")
    assert sent(COHERE, call)[0]["truncate"] == cohere
    assert sent(GEMINI, call)[1] == ("truncate",)
    assert asked(OPENAI, model="m", input="a", truncation=truncate != "none").truncate == ("none" if truncate == "none" else "end")


PICTURE = Input(pieces=(Image(Media("image/png", PIXEL)),), at="images[0]")
MIXED = Input(pieces=(Text("a"), Image(Media("image/png", PIXEL))), at="inputs[0]")


def test_images_cross_between_those_who_take_them():
    url = f"data:image/png;base64,{PIXEL}"
    call = EmbeddingCall(model="m", inputs=(PICTURE,))
    assert sent(COHERE, call)[0]["images"] == [url]
    assert sent(COHERE, call)[0]["input_type"] == "image"
    content = {"parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]}
    assert sent(GEMINI, call)[0]["content"] == content
    mixed = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": url}}]
    call = asked(COHERE, model="m", inputs=[{"content": mixed}], input_type="search_query")
    assert call.inputs == (MIXED,)
    assert sent(COHERE, call)[0]["inputs"] == [{"content": mixed}]
    assert sent(BATCH, call)[0]["requests"][0]["content"]["parts"] == [{"text": "a"}, *content["parts"]]
    for target in (OPENAI, OLLAMA, TITAN):
        with pytest.raises(Fault) as caught:
            target.write_request(call, "m")
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "inputs")


@pytest.mark.parametrize(
    ("target", "call", "param"),
    [
        (TITAN, asked(OPENAI, model="m", input=["a", "b"]), "input"),
        (GEMINI, asked(OPENAI, model="m", input=["a", "b"]), "input"),
        (OLLAMA_OLD, asked(COHERE, model="m", texts=["a", "b"]), "texts"),
        (COHERE, asked(OPENAI, model="m", input=[1, 2, 3]), "input"),
        (BATCH, asked(OPENAI, model="m", input=[[1, 2], [3]]), "input"),
        (OPENAI, asked(COHERE, model="m", texts=["a"], embedding_types=["float", "int8"]), "embedding_types"),
        (OLLAMA_OLD, asked(OPENAI, model="m", input="a", dimensions=8), "dimensions"),
        (COHERE, EmbeddingCall(model="m", inputs=(Input(pieces=(Image(Media(url="https://example.com/a.png")),), at="images[0]"),)), "images[0]"),
    ],
)
def test_what_would_be_another_answer_is_refused(target, call, param):
    with pytest.raises(Fault) as caught:
        target.write_request(call, "m")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_token_numbers_go_to_openais_followers_as_they_are():
    for given_input, told in (([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]), (["a", "b"], ["a", "b"])):
        assert sent(OPENAI, asked(OPENAI, model="m", input=given_input))[0]["input"] == told


def test_coheres_first_version_answers_with_a_plain_list():
    plain = b'{"id":"x","texts":["hi"],"embeddings":[[0.5,0.25]],"meta":{"billed_units":{"input_tokens":3}},"response_type":"embeddings_floats"}'
    reply = COHERE.read_reply(plain)
    assert (reply.vectors, reply.usage, COHERE.summarise(plain).usage) == (([0.5, 0.25],), Usage(input=3), Usage(input=3))
    old = asked(COHERE_OLD, model="m", texts=["hi"], input_type="search_query")
    told = json.loads(COHERE_OLD.write_reply(reply, old, NOW).body)
    assert (told["embeddings"], told["response_type"], told["texts"]) == ([[0.5, 0.25]], "embeddings_floats", ["hi"])
    typed = asked(COHERE_OLD, model="m", texts=["hi"], embedding_types=["float", "base64"])
    told = json.loads(COHERE_OLD.write_reply(reply, typed, NOW).body)
    assert told["embeddings"] == {"float": [[0.5, 0.25]], "base64": [_vectors.text([0.5, 0.25])]}
    told = json.loads(COHERE.write_reply(reply, asked(COHERE, model="m", texts=["hi"]), NOW).body)
    assert told["embeddings"] == {"float": [[0.5, 0.25]]}
    assert told["meta"] == {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 3}}
    assert COHERE_OLD.forward(COHERE_OLD.peek(b'{"model":"a","texts":["x"]}'), "m").path == "/v1/embed"


def test_coheres_whole_numbers_reach_its_own_clients():
    body = b'{"id":"x","embeddings":{"int8":[[1,-2]],"ubinary":[[7]]},"meta":{"billed_units":{"input_tokens":1,"image_tokens":4}}}'
    reply = COHERE.read_reply(body)
    assert (reply.vectors, reply.usage) == ((), Usage(input=5, image_input=4))
    call = asked(COHERE_OLD, model="m", texts=["hi"], embedding_types=["int8", "ubinary"])
    told = json.loads(COHERE_OLD.write_reply(reply, call, NOW).body)
    assert told["embeddings"] == {"int8": [[1, -2]], "ubinary": [[7]]}
    assert told["meta"]["billed_units"] == {"input_tokens": 1, "image_tokens": 4}
    with pytest.raises(Fault) as caught:
        OPENAI.write_reply(reply, CALL, NOW)
    assert caught.value.kind is Kind.UPSTREAM_BROKEN


def test_titans_bits_come_with_its_vectors():
    body = b'{"embedding":[0.5],"embeddingsByType":{"float":[0.5],"binary":[1,0]},"inputTextTokenCount":4}'
    call = asked(TITAN, inputText="hi", dimensions=256, normalize=True, embeddingTypes=["float", "binary"])
    assert sent(TITAN, call)[0] == {"inputText": "hi", "dimensions": 256, "normalize": True, "embeddingTypes": ["float", "binary"]}
    assert json.loads(TITAN.write_reply(TITAN.read_reply(body), call, NOW).body) == json.loads(body)


def test_a_gemini_batch_of_unlike_requests_is_refused_elsewhere_and_passes_at_home():
    def batch(**second: Any) -> Peek:
        one = {"content": {"parts": [{"text": "a"}]}, "taskType": "CLUSTERING", "outputDimensionality": 8, "title": "T"}
        return BATCH.peek(json.dumps({"requests": [one, {**one, **second}]}).encode(), "m")

    assert len(BATCH.read_request(batch(title="U")).inputs) == 2
    for second, param in (
        ({"taskType": "CLASSIFICATION"}, "requests[1].taskType"),
        ({"outputDimensionality": 9}, "requests[1].outputDimensionality"),
    ):
        assert len(json.loads(BATCH.forward(batch(**second), "n").body)["requests"]) == 2
        with pytest.raises(Fault) as caught:
            BATCH.read_request(batch(**second))
        assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


def test_both_of_geminis_spellings_mean_the_same():
    camel = asked(GEMINI, content={"parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]}, taskType="CLUSTERING", outputDimensionality=8)
    snake = asked(
        GEMINI, content={"parts": [{"inline_data": {"mime_type": "image/png", "data": PIXEL}}]}, task_type="CLUSTERING", output_dimensionality=8
    )  # fmt: skip
    assert camel == snake
    assert (camel.task, camel.dimensions) == ("clustering", 8)
    assert sent(OPENAI, asked(GEMINI, content={"parts": [{"text": "a"}]}, title="T"))[1] == ("title",)


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "members", "param"),
    [
        (OPENAI, {}, "input"),
        (OPENAI, {"input": None}, "input"),
        (OPENAI, {"input": []}, "input"),
        (OPENAI, {"input": 5}, "input"),
        (OPENAI, {"input": ["a", 5]}, "input[1]"),
        (OPENAI, {"input": [1, "a"]}, "input[1]"),
        (OPENAI, {"input": [[1], [-1]]}, "input[1][0]"),
        (OPENAI, {"input": [[]]}, "input[0]"),
        (OPENAI, {"input": [{"text": "a"}]}, "input[0]"),
        (OPENAI, {"input": "a", "dimensions": 0}, "dimensions"),
        (OPENAI, {"input": "a", "dimensions": "8"}, "dimensions"),
        (OPENAI, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
        (OPENAI, {"input": "a", "truncate": "MIDDLE"}, "truncate"),
        (GEMINI, {}, "content"),
        (GEMINI, {"content": {"parts": []}}, "content.parts"),
        (GEMINI, {"content": "a"}, "content"),
        (GEMINI, {"content": {"parts": [{"text": 5}]}}, "content.parts[0].text"),
        (GEMINI, {"content": {"parts": [{"functionCall": {"name": "f"}}]}}, "content.parts[0]"),
        (GEMINI, {"content": {"parts": [{"text": "a"}]}, "taskType": "POETRY"}, "taskType"),
        (BATCH, {"requests": []}, "requests"),
        (BATCH, {"requests": {}}, "requests"),
        (BATCH, {"requests": [5]}, "requests[0]"),
        (BATCH, {"requests": [{"content": {"parts": [{"text": 5}]}}]}, "requests[0].content.parts[0].text"),
        (BATCH, {"requests": [{"content": {}}]}, "requests[0].content"),
        (COHERE, {}, "texts"),
        (COHERE, {"texts": [5]}, "texts[0]"),
        (COHERE, {"texts": ["a"], "images": ["b"]}, "images"),
        (COHERE, {"images": ["data:image/png,xx"]}, "images[0]"),
        (COHERE, {"inputs": [{"content": [{"type": "film"}]}]}, "inputs[0].content[0].type"),
        (COHERE, {"texts": ["a"], "embedding_types": ["float64"]}, "embedding_types[0]"),
        (COHERE, {"texts": ["a"], "truncate": "MIDDLE"}, "truncate"),
        (OLLAMA, {}, "input"),
        (OLLAMA, {"input": ""}, None),
        (OLLAMA, {"input": []}, "input"),
        (OLLAMA, {"input": [5]}, "input[0]"),
        (OLLAMA_OLD, {"prompt": ""}, "prompt"),
        (OLLAMA_OLD, {"prompt": 5}, "prompt"),
        (TITAN, {}, "inputText"),
        (TITAN, {"inputText": ["a"]}, "inputText"),
        (TITAN, {"inputText": "a", "normalize": 1}, "normalize"),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(shape, members, param):
    if param is None:  # one empty text is Ollama's own business
        assert asked(shape, **members).inputs[0].text == ""
        return
    with pytest.raises(Fault) as caught:
        asked(shape, **members)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_nothing_streams_and_no_model_is_named_where_it_is_missing(shape):
    for ask in (shape.stream_reader, lambda: shape.stream_writer(CALL), lambda: shape.splice(Peek({}, "m"))):
        with pytest.raises(Fault) as caught:
            ask()
        assert (caught.value.kind, caught.value.message) == (Kind.INVALID, "Embeddings do not stream.")
    with pytest.raises(Fault) as caught:
        shape.peek(b"{}")
    assert caught.value.param == "model"


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"data":5}', b'{"embeddings":5}', b'{"embedding":"x"}', b"<html>"])
def test_what_is_no_reply_is_the_upstreams_fault(shape, body):
    for look in (shape.summarise, shape.read_reply):
        with pytest.raises(Fault) as caught:
            look(body)
        assert caught.value.kind is Kind.UPSTREAM_BROKEN


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        (OPENAI, b'{"error":{"message":"Overloaded","type":"overloaded_error"}}'),
        (OLLAMA, b'{"error":"Overloaded"}'),
        (BATCH, b'{"error":{"code":503,"message":"Overloaded","status":"UNAVAILABLE"}}'),
        (COHERE, b'{"message":"Overloaded"}'),
        (TITAN, b'{"message":"Overloaded"}'),
    ],
)
def test_an_error_in_a_good_reply_is_one(shape, body):
    fault = shape.summarise(body).fault
    assert fault is not None
    assert "Overloaded" in fault.message
    with pytest.raises(Fault):
        shape.read_reply(body)


WORDS = [
    "model", "input", "inputs", "texts", "images", "content", "parts", "text", "requests", "inputText", "prompt", "dimensions", "user",
    "encoding_format", "embedding_types", "taskType", "task_type", "input_type", "truncate", "inlineData", "data", "type", "image_url", "url",
    "embeddings", "embedding", "values", "float", "base64", "usage", "usageMetadata", "meta", "billed_units", "error", "message", "index",
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["text", "a", "CLUSTERING", PIXEL, 1.5])
ODD = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6), max_leaves=20
)


@generated(100)
@given(st.dictionaries(st.sampled_from(WORDS), ODD, max_size=8), st.sampled_from(list(SHAPES.values())))
def test_an_odd_request_is_read_or_refused(members, shape):
    body = json.dumps({"model": "m", **members}).encode()
    try:
        peek = shape.peek(body, "m")
        shape.forward(peek, "n")
        call = shape.read_request(peek)
    except Fault as fault:
        assert fault.kind is Kind.INVALID  # noqa: PT017
        return
    for target in SHAPES.values():
        try:
            target.write_request(call, "m")
        except Fault as fault:
            assert fault.kind is Kind.INVALID  # noqa: PT017


@generated(100)
@given(st.binary(max_size=60) | st.builds(lambda tree: json.dumps(tree).encode(), ODD), st.sampled_from(list(SHAPES.values())))
def test_an_odd_reply_is_read_or_a_fault(body, shape):
    assert isinstance(shape.read_error(500, body), Fault)
    for look in (shape.summarise, shape.read_reply):
        try:
            look(body)
        except Fault as fault:
            assert fault.kind is not Kind.INTERNAL  # noqa: PT017


def test_the_table_knows_every_shape_and_its_own_rows_only():
    fields = {row.field for row in embedding_crossings.TABLE}
    assert embedding_crossings.COLUMNS.keys() == SHAPES.keys()
    for column in embedding_crossings.COLUMNS.values():
        assert column.keys() <= fields
    for row in embedding_crossings.TABLE:
        refused = any(embedding_crossings.fate(row, shape) is embedding_crossings.Fate.REFUSE for shape in SHAPES)
        assert bool(row.why) is refused
