"""OpenAI's shapes for what is no conversation: images, speech, transcription, moderation; and ranking, in Cohere's and Jina's shape.

Sources: https://platform.openai.com/docs/api-reference/{images,audio,moderations}, https://docs.cohere.com/reference/rerank,
https://jina.ai/reranker. Their bodies pass as they are (`_passing`); here stands what accounting and routing need to know of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from llm_gateway.core.types import Usage
from llm_gateway.formats._numbers import section, tokens
from llm_gateway.formats._passing import Passing, asks_to_stream


def shapes() -> tuple[Passing, ...]:
    return (
        Passing(
            name="openai_images", path="/images/generations", needs=("prompt",), default="dall-e-2", usage=_tokens,
            streams=asks_to_stream, closing=frozenset({"image_generation.completed"}),
        ),
        Passing(
            name="openai_image_edits", path="/images/edits", needs=("prompt",), default="dall-e-2", usage=_tokens, multipart=True,
            either=True, streams=asks_to_stream, closing=frozenset({"image_edit.completed"}),
        ),
        Passing(
            name="openai_speech", path="/audio/speech", needs=("input", "voice"), usage=_tokens, streams=_always,
            binary=_unframed, closing=frozenset({"speech.audio.done"}),
        ),
        Passing(
            name="openai_transcription", path="/audio/transcriptions", needs=("file",), usage=_tokens, multipart=True, plain=True,
            streams=asks_to_stream, closing=frozenset({"transcript.text.done"}),
        ),
        Passing(
            name="openai_translation", path="/audio/translations", needs=("file",), usage=_tokens, multipart=True, plain=True,
        ),
        Passing(
            name="openai_moderation", path="/moderations", needs=("input",), default="omni-moderation-latest", usage=_tokens,
        ),
        Passing(name="rerank", path="/rerank", needs=("query", "documents"), usage=_ranked),
    )  # fmt: skip


_IMAGES = frozenset({"data", "b64_json"})  # of a reply, of the event that ends a stream


def _always(_: Mapping[str, Raw]) -> bool:
    return True


def _unframed(members: Mapping[str, Raw]) -> bool:
    """Speech comes as bare sound unless events are asked for."""
    return bytes(members.get("stream_format", b"")) != b'"sse"'


def _tokens(reply: dict[str, Any]) -> Usage | None:
    """`usage` by tokens; one by seconds ({"type": "duration"}) tells of none. What came with images, unless it says more, is
    images."""
    usage = section(reply, "usage")
    if not usage or "seconds" in usage:
        return None
    details = section(usage, "input_tokens_details") or section(usage, "input_token_details")
    output = tokens(usage, "output_tokens", "completion_tokens")
    made = section(usage, "output_tokens_details")
    return Usage(
        input=tokens(usage, "input_tokens", "prompt_tokens"),
        output=output,
        cache_read=tokens(details, "cached_tokens"),
        audio_input=tokens(details, "audio_tokens"),
        image_input=tokens(details, "image_tokens"),
        image_output=tokens(made, "image_tokens") if made or _IMAGES.isdisjoint(reply) else output,
    )


def _ranked(reply: dict[str, Any]) -> Usage | None:
    """Jina, Voyage, Together tell tokens in `usage`; Cohere what it bills in `meta`: search units, or tokens."""
    usage = section(reply, "usage")
    if usage:
        return Usage(input=tokens(usage, "total_tokens", "prompt_tokens"))
    meta = section(reply, "meta")
    billed, counted = section(meta, "billed_units"), section(meta, "tokens")
    if not billed and not counted:
        return None
    return Usage(input=tokens(counted, "input_tokens"), searches=tokens(billed, "search_units"))
