"""URLs of media in a request that stays in its own shape: found where the shape has them, replaced there, and nothing else touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from formats.sampling import generated
from llm_gateway.core.types import Document, Image, Media, Video
from llm_gateway.formats.addressed import MOST, filled, named
from llm_gateway.formats.by_value import Named

URL = "https://pictures.example/a.png"
VALUE = Media("image/png", "AAAA")
NUMBERS = '{"type": "text", "text": "\\u00e9 http://x", "n": 1.0, "big": 123456789012345678901234567890, "x":  1e5}'


def members(*content: Any) -> dict[str, Raw]:
    written = [each if isinstance(each, str) else json.dumps(each) for each in content]
    messages = f'[{{"role": "user", "content": [{", ".join(written)}], "extra":  2.50}}]'
    return {"model": Raw(b'"m"'), "messages": Raw(messages.encode()), "metadata": Raw(b'{"url": "http://x"}')}


def test_openais_images_and_videos_become_data_urls():
    given = members(
        NUMBERS, {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}, {"type": "image_url", "image_url": URL},
        {"type": "video_url", "video_url": {"url": URL}}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}},
    )  # fmt: skip
    assert named(given, "openai_chat") == {
        Named(Image, URL): "messages[0].content[1]", Named(Video, URL): "messages[0].content[3]",
    }  # fmt: skip
    got = filled(given, "openai_chat", {Named(Image, URL): VALUE, Named(Video, URL): Media("video/mp4", "CCCC")})
    assert got["model"] == given["model"]
    assert got["metadata"] == given["metadata"]
    text = bytes(got["messages"]).decode()
    assert NUMBERS in text
    assert '"extra":2.50' in text
    content = json.loads(text)[0]["content"]
    assert content[1:] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": "data:image/png;base64,AAAA"},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,CCCC"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}},
    ]


def test_anthropics_images_and_documents_also_within_results():
    source = {"type": "url", "url": URL}
    mark = {"type": "ephemeral"}
    given = members(
        {"type": "image", "source": source, "cache_control": mark},
        {"type": "document", "source": source, "title": "t"},
        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "x"}, {"type": "image", "source": source}]},
        {"type": "tool_result", "tool_use_id": "2", "content": 'it says "url": "http://x"'},
        {"type": "tool_use", "id": "3", "name": "f", "input": {"type": "image", "source": source}},
    )
    assert named(given, "anthropic_messages") == {
        Named(Image, URL): "messages[0].content[0]", Named(Document, URL): "messages[0].content[1]",
    }  # fmt: skip
    got = filled(given, "anthropic_messages", {Named(Image, URL): VALUE, Named(Document, URL): "words"})
    content = json.loads(bytes(got["messages"]))[0]["content"]
    block = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert content[0] == {"type": "image", "source": block, "cache_control": mark}
    assert content[1] == {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}, "title": "t"}
    assert content[2]["content"] == [{"type": "text", "text": "x"}, {"type": "image", "source": block}]
    assert content[3:] == json.loads(bytes(given["messages"]))[0]["content"][3:]


@pytest.mark.parametrize(
    "part",
    [{"type": "image_url", "image_url": {"url": 3}}, {"type": "image_url", "image_url": None}, {"type": "image_url"}, {"image_url": URL},
     {"type": ["image_url"], "image_url": URL}, {"type": "image_url", "image_url": {"url": "gs://bucket/a"}}, [URL], 7, URL,
     {"type": "text", "text": URL, "url": URL}],
)  # fmt: skip
def test_what_is_no_url_of_the_web_in_its_place_is_left_alone(part: Any):
    for shape in ("openai_chat", "anthropic_messages"):
        assert named(members(part), shape) == {}


def test_nothing_is_decoded_where_no_url_can_be():
    given = members({"type": "text", "text": "see http://x"})
    assert filled(given, "openai_chat", {})["messages"] is given["messages"]
    assert named({}, "openai_chat") == {}


def test_a_flood_of_urls_is_left_to_the_service():
    """So that no request holds the loop for long: looking at each costs."""
    urls = [{"type": "image_url", "image_url": {"url": f"{URL}?{at}"}} for at in range(MOST + 1)]
    assert len(named(members(*urls[:MOST]), "openai_chat")) == MOST
    assert named(members(*urls), "openai_chat") == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([URL, "image_url", "image", "url", "tool_result"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "url", "image_url", "source", "content", "role"]), inner, max_size=4),
    max_leaves=20,
)


@generated(100)
@given(JSON, st.sampled_from(["openai_chat", "anthropic_messages"]))
def test_whatever_the_messages_are_nothing_is_raised_and_without_values_nothing_changes(value: Any, shape: str):
    given = {"messages": Raw(json.dumps(value).encode())}
    named(given, shape)
    assert json.loads(bytes(filled(given, shape, {})["messages"])) == value
