"""A stratified 140 of the recorded interactions through every shape; `make replay` takes all. And the proof itself: that it can fail."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import pytest

from replay import schemas, sdks, told
from replay.proof import NOW, Wrong, _agree, exists, prove, shapes
from replay.recordings import Interaction, load
from replay.report import PAGE, allowed, stratified, unexpected
from replay.served import CHAT, served
from replay.told import Told

COUNT = 140


@cache
def everything() -> tuple[Interaction, ...]:
    try:
        return load().interactions
    except FileNotFoundError:
        return ()


CHOSEN = stratified(everything(), COUNT)


@pytest.mark.parametrize("interaction", CHOSEN, ids=[one.id for one in CHOSEN])
def test_an_interaction_keeps_what_it_says(interaction):
    known = [key for key in allowed() if key[0] == interaction.id]
    assert unexpected(prove(interaction), known) == []


def test_the_sample_has_something_of_everything():
    if not everything():
        pytest.skip("no recorded traffic")
    assert len(CHOSEN) == COUNT
    strata = {(one.row["provider"], one.row["api"], one.row["streaming"]) for one in everything() if not isinstance(served(one), str)}
    assert {(one.row["provider"], one.row["api"], one.row["streaming"]) for one in CHOSEN} == strata


def test_every_interaction_is_served_or_stands_on_the_page_with_its_reason():
    page = PAGE.read_text(encoding="utf-8")
    for one in everything():
        where = served(one)
        if isinstance(where, str):
            line = next(line for line in page.splitlines() if line.startswith(f"- {where}:"))
            assert f"`{one.id}`" in line


def test_every_allowed_failure_stands_on_the_page():
    page = PAGE.read_text(encoding="utf-8")
    assert "not known" not in page
    for (name, aspect, shape), reason in allowed().items():
        assert f"| `{name}` | {aspect} | `{shape}` |" in page
        assert reason in page


# -- the proof can fail -----------------------------------------------------------------------------------------------


class Altered(Interaction):
    """A recording whose reply or request was changed afterwards."""

    @property
    def body(self) -> bytes:
        return self.record["response"]["body_text"].encode()


def altered(one: Interaction, change: Any) -> Altered:
    copy = Altered(one.row, one.path)
    record = json.loads(json.dumps(one.record))
    change(record)
    object.__setattr__(copy, "record", record)
    return copy


def first(**wanted: object) -> Interaction:
    found = next((one for one in everything() if one.status == 200 and all(one.row[key] == value for key, value in wanted.items())), None)
    if found is None:
        pytest.skip("no recorded traffic")
    return found


def test_a_reply_that_is_none_fails_in_every_shape():
    def spoil(record):
        record["response"]["body_text"] = "{}"

    one = altered(first(provider="anthropic", api="messages", streaming=False), spoil)
    assert {each.shape for each in prove(one) if each.aspect == "reply" and each.result == "failed"} == set(CHAT)


def test_a_stream_that_is_cut_fails_in_every_shape():
    def cut(record):
        text = record["response"]["body_text"]
        record["response"]["body_text"] = text[: len(text) // 2]

    one = altered(first(provider="openai", api="responses", streaming=True), cut)
    assert {each.shape for each in prove(one) if each.aspect == "reply" and each.result == "failed"} == set(CHAT)


@pytest.mark.parametrize(
    "heard",
    [
        Told("hell", (("f", {"a": 1}),), "done", (1, 2)), Told("hello", (), "done", (1, 2)),
        Told("hello", (("f", {"a": 2}),), "done", (1, 2)), Told("hello", (("f", {"a": 1}),), "length", (1, 2)),
        Told("hello", (("f", {"a": 1}),), "done", (1, 3)),
    ],
)  # fmt: skip
def test_what_an_sdk_hears_must_be_what_was_said(heard):
    meant = Told("hello", (("f", {"a": 1}),), "done", (1, 2))
    _agree(meant, meant, "openai_chat")
    with pytest.raises(Wrong):
        _agree(heard, meant, "openai_chat")


USER = {"role": "user", "content": "hi"}
PART = {"role": "user", "parts": [{"text": "hi"}]}
GOOD: dict[str, Any] = {
    "openai_chat": {"model": "m", "messages": [USER]},
    "openai_responses": {"model": "m", "input": [USER]},
    "openai_completions": {"model": "m", "prompt": "hi"},
    "openai_embeddings": {"model": "m", "input": ["hi"]},
    "anthropic_messages": {"model": "m", "max_tokens": 1, "messages": [USER]},
    "anthropic_count": {"model": "m", "messages": [USER]},
    "gemini": {"contents": [PART]},
    "gemini_count": {"generateContentRequest": {"model": "models/m", "contents": [PART]}},
    "gemini_embed": {"content": PART},
    "gemini_embed_batch": {"requests": [{"model": "models/m", "content": PART}]},
    "bedrock_converse": {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "ollama_chat": {"model": "m", "messages": [USER]},
    "ollama_generate": {"model": "m", "prompt": "hi", "images": ["aGk="]},
    "ollama_embed": {"model": "m", "input": ["hi"]},
}


@pytest.mark.parametrize("shape", GOOD)
def test_a_schema_takes_what_the_api_takes_and_nothing_else(shape):
    assert schemas.complaint(shape, json.dumps(GOOD[shape]).encode()) == ""
    for place in list(GOOD[shape]):
        if place not in {"requests", "generateContentRequest"}:  # looked into, not at
            assert schemas.complaint(shape, json.dumps({**GOOD[shape], place: True}).encode()) != "", place
    if shape not in {"gemini_count", "gemini_embed_batch"}:
        assert schemas.complaint(shape, json.dumps({**GOOD[shape], "brand_new": 1}).encode()) != ""


def test_what_is_deep_inside_is_looked_at():
    deep = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "txt": "hi"}]}]}
    assert schemas.complaint("openai_chat", json.dumps(deep).encode()).startswith(".messages[0].content[0]")
    deep = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url"}}]}]}
    assert ".source: " in schemas.complaint("anthropic_messages", json.dumps(deep).encode())


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("messages[0].content[1].text", True), ("messages[0].role", True), ("messages[2]", False), ("messages[0].parts", False),
        ("tools", False), ("messages[0].content[1].text.more", False), ("", False),
    ],
)  # fmt: skip
def test_a_path_is_one_of_the_request(path, found):
    body = {"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "text", "text": "x"}]}]}
    assert exists(body, path) is found


def test_a_path_that_is_said_to_be_missing_may_be():
    assert exists({"messages": [{}]}, "messages[0].role", "'role' is required.")
    assert not exists({"messages": []}, "messages[0].role", "'role' is required.")


def test_an_allowed_failure_that_is_none_any_more_is_told():
    one = first(provider="openai", api="chat_completions", streaming=False)
    assert unexpected(prove(one), [(one.id, "reply", "gemini")]) == [f"{one.id} reply gemini: allowed to fail, and does not"]


@pytest.mark.parametrize("shape", CHAT)
def test_an_error_in_made_up_words_is_seen(shape):
    fault = next(iter(shapes().values())).read_error(400, b'{"error":{"message":"no","type":"odd","code":"odd"}}')
    fault.body = None
    sent = shapes()[shape].write_error(fault, "req_1")
    headers = {name.decode().lower(): value.decode() for name, value in sent.headers}
    assert sdks.error(shape, sent.status, headers, sent.body) == ""
    assert sdks.error(shape, 200, headers, sent.body) != ""


def test_recordings_are_read_without_the_gateway():
    source = (PAGE.parents[1] / "tests/replay/told.py").read_text(encoding="utf-8")
    assert "llm_gateway" not in source
    assert told.whole("openai_chat", {"choices": []}) == Told()
    assert dataclasses.is_dataclass(Interaction)
    assert NOW > 0
