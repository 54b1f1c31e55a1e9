"""Which parts have to come as bytes, per shape: the table is what the writers do."""

from __future__ import annotations

import pytest

from llm_gateway import wiring
from llm_gateway.core.errors import Fault
from llm_gateway.core.types import (
    Audio,
    Conversation,
    Document,
    Image,
    Media,
    Message,
    Text,
    ToolCall,
    ToolResult,
    Video,
)
from llm_gateway.formats.by_value import TABLE, Named, filled, named
from llm_gateway.providers import registry
from llm_gateway.providers.table import SERVICES

URL = "https://pictures.example/a"
CHAT = ("openai_chat", "openai_responses", "anthropic_messages", "gemini", "bedrock_converse", "ollama_chat", "ollama_generate")
PARTS = {
    "image": Image(Media(url=URL)),
    "audio": Audio(Media(url=URL)),
    "video": Video(Media(url=URL)),
    "document": Document(Media(url=URL)),
}


def asking(*parts, role="user", **more) -> Conversation:
    return Conversation(model="m", messages=(Message(role, parts, at="messages[0]"),), max_tokens=9, **more)


@pytest.mark.parametrize("shape", CHAT)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_the_table_names_what_a_writer_refuses_by_address_and_takes_by_value(shape, part):
    """Gemini's writer passes addresses on for Google's own; its API fetches no others."""
    form = wiring.formats()[shape]
    values = {
        Image: Media("image/png", "AAAA"), Audio: Media("audio/wav", "AAAA"), Video: Media("video/mp4", "AAAA"), Document: "words",
    }  # fmt: skip
    wanted = named(asking(part), shape)
    by_url = writes(form, asking(part))
    by_data = writes(form, filled(asking(part), {Named(type(part), URL): values[type(part)]}))
    if wanted:
        assert wanted == {Named(type(part), URL): "messages[0].content"}
        assert by_data
        assert not by_url or shape == "gemini"
    else:
        assert by_url or not by_data, "a part that only bytes could tell is not in the table"


def writes(form, call: Conversation) -> bool:
    try:
        form.write_request(call, "m")
    except Fault:
        return False
    return True


def test_every_row_is_a_shape() -> None:
    assert TABLE.keys() <= wiring.formats().keys()


@pytest.mark.parametrize(
    ("shape", "url"),
    [("bedrock_converse", "s3://bucket/a.png"), ("gemini", "gs://bucket/a.png"), ("gemini", "https://www.youtube.com/watch?v=1"),
     ("gemini", "https://generativelanguage.googleapis.com/v1beta/files/abc")],
)  # fmt: skip
def test_what_a_service_reads_itself_is_left_to_it(shape: str, url: str) -> None:
    assert named(asking(Image(Media(url=url))), shape) == {}
    assert named(asking(Image(Media(url=url))), "ollama_chat") != {}


def test_each_address_is_named_once_and_found_inside_results() -> None:
    image = Image(Media(url=URL), detail="low")
    result = ToolResult("1", (Text("see"), image, Document(Media(url=URL))))
    call = Conversation(model="m", messages=(Message("user", (image, image), at="a"), Message("tool", (result,), at="b")))
    assert named(call, "bedrock_converse") == {Named(Image, URL): "a.content", Named(Document, URL): "b.content"}
    value = Media("image/png", "AAAA")
    got = filled(call, {Named(Image, URL): value, Named(Document, URL): "words"})
    assert got.messages[0].parts == (Image(value, detail="low"),) * 2
    assert got.messages[1].parts == (ToolResult("1", (Text("see"), Image(value, detail="low"), Document(text="words"))),)


def test_a_spoken_reply_is_not_fetched_and_a_sound_gets_its_short_name() -> None:
    sound = Audio(Media(url=URL), transcript="hi")
    assert named(asking(sound, role="assistant"), "bedrock_converse") == {}
    assert named(asking(sound), "bedrock_converse") == {Named(Audio, URL): "messages[0].content"}
    for mime, name in (("audio/mpeg", "mp3"), ("audio/x-wav", "wav"), ("audio/wav", "wav"), ("audio/ogg", "ogg")):
        (part,) = filled(asking(sound), {Named(Audio, URL): Media(mime, "AAAA")}).messages[0].parts
        assert isinstance(part, Audio)
        assert part.format == name


def test_what_is_there_by_value_costs_nothing() -> None:
    parts = (Text("x"), Image(Media("image/png", "AAAA")), Document(text="x"), Document(Media(file_id="f")), ToolCall("1", "f", "{}"))
    assert named(asking(*parts), "bedrock_converse") == {}
    assert named(object(), "bedrock_converse") == {}


def test_a_service_that_follows_no_addresses_gets_bytes_in_a_shape_that_has_them() -> None:
    image, paper, film = Image(Media(url=URL)), Document(Media(url=URL)), Video(Media(url=URL))
    assert named(asking(image, paper), "anthropic_messages", follows=False).keys() == {Named(Image, URL), Named(Document, URL)}
    assert named(asking(image, film), "openai_chat", follows=False).keys() == {Named(Image, URL), Named(Video, URL)}
    assert named(asking(image, paper), "anthropic_messages") == {}
    assert named(asking(image), "openai_responses", follows=False) == {}


def test_what_providers_say_they_do_not_follow_is_what_the_table_can_say() -> None:
    said = {shape for kind in SERVICES for shape in registry.provider(kind).by_value}
    assert said == {"openai_chat", "anthropic_messages", "anthropic_count"}
    assert all(TABLE[shape].followed for shape in said)
