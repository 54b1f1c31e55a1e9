"""What a path means: Gemini's, whose paths name the model and the verb."""

from __future__ import annotations

import pytest

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Route
from llm_gateway.ingress.routes import match, unknown, voiced


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
        (b"/v1/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
        (b"/v1beta/models/openai/gpt-4o:generateContent", "openai/gpt-4o"),
        (b"/v1beta/models/openai%2Fgpt-4o:generateContent", "openai/gpt-4o"),
        (b"/v1beta/models/llama3:8b:generateContent", "llama3:8b"),
        (b"/v1beta/models/llama3%3A8b%3AgenerateContent", "llama3:8b"),
    ],
)
def test_a_path_names_the_model_and_the_verb(path: bytes, model: str) -> None:
    route, params = match(b"POST", path)
    assert (route.operation, route.format, route.stream, params) == ("chat", "gemini", False, (model,))


def test_a_stream_is_framed_as_it_was_asked_for() -> None:
    route, _ = match(b"POST", b"/v1beta/models/m:streamGenerateContent")
    assert route.stream is True
    assert voiced(route, {}, b"key=x&alt=sse").format == "gemini"
    assert voiced(route, {}, b"").format == "gemini_array"
    assert voiced(route, {}, b"alt=json").format == "gemini_array"


@pytest.mark.parametrize(
    ("path", "headers", "query", "shape"),
    [
        (b"/v1/models", {}, b"", "openai_chat"),
        (b"/v1/models", {b"x-goog-api-key": b"k"}, b"", "gemini"),
        (b"/v1/models", {}, b"pageSize=5&key=k", "gemini"),
        (b"/v1/models/m", {}, b"key=k", "gemini"),
        (b"/v1/models/m", {b"authorization": b"Bearer k"}, b"", "openai_chat"),
        (b"/v1beta/models/m", {b"authorization": b"Bearer k"}, b"", "gemini"),
        (b"/health", {b"x-goog-api-key": b"k"}, b"", "openai_chat"),
    ],
)
def test_lists_are_told_in_the_shape_of_who_asks(path: bytes, headers: dict[bytes, bytes], query: bytes, shape: str) -> None:
    route, _ = match(b"GET", path)
    assert voiced(route, headers, query) == Route(route.operation, shape, route.label, open=route.open)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        (b"GET", b"/v1beta/models/m:generateContent", Kind.METHOD),
        (b"POST", b"/v1beta/models/m:unheardOf", Kind.METHOD),
        (b"POST", b"/v1beta/models/", Kind.NOT_FOUND),
        (b"POST", b"/v1beta/models/%zz:generateContent", Kind.NOT_FOUND),
        (b"POST", b"/v1beta/other", Kind.NOT_FOUND),
    ],
)
def test_what_is_not_there_is_refused_in_the_shape_of_its_path(method: bytes, path: bytes, kind: Kind) -> None:
    with pytest.raises(Fault) as caught:
        match(method, path)
    assert caught.value.kind is kind
    assert unknown(path).format == "gemini"
