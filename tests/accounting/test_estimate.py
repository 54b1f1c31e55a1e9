"""What a cut stream is billed by: about right for text, not by their bytes for images, and never long on the loop."""

from __future__ import annotations

import base64
import os
import time

import msgspec
import pytest

from llm_gateway.accounting.estimate import IMAGE_TOKENS, LARGE, estimate, prompt_tokens
from llm_gateway.core.types import Usage

PICTURE = base64.b64encode(os.urandom(30_000)).decode()


def chat(*contents: object) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": each} for each in contents]})


def test_text_is_a_token_per_four_characters() -> None:
    usage = estimate(prompt_tokens(chat("word " * 400)), 41)
    assert abs(usage.input - 500) < 10
    assert (usage.output, usage.estimated) == (11, True)


def test_what_a_broken_stream_said_of_itself_counts_for_more() -> None:
    partial = Usage(input=2000, output=1, cache_read=1500)
    usage = estimate(300, 41, partial)
    assert (usage.input, usage.output, usage.cache_read, usage.estimated) == (2000, 11, 1500, True)


def test_a_prompt_that_a_broken_stream_did_not_tell_of_is_billed_all_the_same() -> None:
    usage = estimate(300, 41, Usage(output=50))
    assert (usage.input, usage.output, usage.estimated) == (300, 50, True)


def test_a_small_image_counts_as_one_and_a_short_word_of_data_as_none() -> None:
    small = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE[:4000]}"}}
    assert IMAGE_TOKENS * 2 <= prompt_tokens(chat([small], [small])) < (IMAGE_TOKENS + 60) * 2
    large = chat("many words " * 20_000, [{"type": "input", "source": {"data": "a word"}}])
    assert prompt_tokens(large) == -(-len(large) // 4)


@pytest.mark.parametrize("copies", [1, 4], ids=["counted", "measured"])
def test_an_image_is_not_its_bytes(copies: int) -> None:
    by_url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    by_source = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    body = chat(*[[by_url if number % 2 else by_source] for number in range(copies)])
    if copies > 1:
        assert len(body) > LARGE
    assert IMAGE_TOKENS * copies <= prompt_tokens(body) < (IMAGE_TOKENS + 60) * copies


def test_large_and_small_bodies_are_judged_alike() -> None:
    small = prompt_tokens(chat("many words " * 2_000))
    large = prompt_tokens(chat("many words " * 20_000))
    assert 9 < large / small < 11


@pytest.mark.parametrize("body", [b"", b"no json", b"[" * 3000 + b"]" * 3000, b'{"a":' * 5000], ids=["none", "text", "deep", "open"])
def test_nothing_is_raised_whatever_the_body(body: bytes) -> None:
    assert prompt_tokens(body) >= 0


@pytest.mark.parametrize(
    "body",
    [
        chat(*["hi"] * 30_000),
        b'{"x":"' + b";base64," * 150_000 + b'"}',
        b'{"x":"' + b';base64,"' * 150_000 + b'"}',
        b"[" + b"[]," * 10_000 + b"[]]",
    ],
    ids=["short messages", "marks", "marks and quotes", "nodes"],
)
def test_a_megabyte_holds_the_loop_for_milliseconds(body: bytes) -> None:
    best = min(_seconds(body) for _ in range(5))
    assert best < 0.01


def _seconds(body: bytes) -> float:
    begun = time.perf_counter()
    prompt_tokens(body)
    return time.perf_counter() - begun
