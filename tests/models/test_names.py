"""Names as clouds and clients write them, against the price they stand for: a table. What nobody lists is unpriced, never 0."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_gateway.models.catalogue import Catalogue, load_catalogue

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()

# (provider type, name, input and output in USD per million tokens, None where unpriced)
PRICED: list[tuple[str, str, float | None, float | None]] = [
    ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
    ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
    ("bedrock", "jp.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
    ("bedrock", "apac.anthropic.claude-sonnet-4-20250514-v1:0", 3.0, 15.0),
    ("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.0, 15.0),
    ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0", 0.25, 1.25),
    ("bedrock", "us.anthropic.claude-sonnet-4-6", 3.3, 16.5),
    ("bedrock", "us.amazon.nova-lite-v1:0", 0.06, 0.24),
    ("bedrock", "us.meta.llama4-maverick-17b-instruct-v1:0", 0.24, 0.97),
    ("bedrock", "openai.gpt-oss-120b-1:0", 0.15, 0.6),
    ("bedrock", "openai.gpt-oss-120b", 0.15, 0.6),
    ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
    ("bedrock", "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0", 0.06, 0.24),
    ("bedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", 0.06, 0.24),
    ("bedrock", "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0", 0.25, 1.25),
    ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3", None, None),
    ("bedrock", "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3", None, None),
    ("vertex", "gemini-2.5-flash", 0.3, 2.5),
    ("vertex", "google/gemini-2.5-flash", 0.3, 2.5),
    ("vertex", "publishers/google/models/gemini-2.5-flash", 0.3, 2.5),
    ("vertex", "projects/p-1/locations/global/publishers/google/models/gemini-2.5-flash", 0.3, 2.5),
    ("vertex", "claude-sonnet-4-5@20250929", 3.0, 15.0),
    ("vertex", "anthropic/claude-sonnet-4-5@20250929", 3.0, 15.0),
    ("vertex", "publishers/anthropic/models/claude-haiku-4-5@20251001", 1.0, 5.0),
    ("gemini", "models/gemini-2.5-flash", 0.3, 2.5),
    ("gemini", "tunedModels/ours", None, None),
    ("azure", "gpt-4o", 2.5, 10.0),
    ("azure", "gpt-4o-2024-08-06", 2.5, 10.0),
    ("azure", "gpt-35-turbo", 0.5, 1.5),
    ("azure", "Kimi-K2.5", 0.6, 3.0),
    ("azure", "our-deployment", None, None),
    ("openai", "gpt-4o-2024-11-20", 2.5, 10.0),
    ("openai", "chatgpt-4o-latest", 5.0, 15.0),
    ("openai", "gpt-5-chat-latest", 1.25, 10.0),
    ("openai", "ft:gpt-4o-mini:org::id", 0.3, 1.2),
    ("openai", "ft:gpt-4o-mini-2024-07-18:org:suffix:id", 0.3, 1.2),
    ("openai", "ft:gpt-4o-2024-08-06:org::id", 3.75, 15.0),
    ("openai", "ft:gpt-3.5-turbo-0125:org::id", 3.0, 6.0),
    ("openai", "ft:gpt-4.1-2025-04-14:org::id", None, None),
    ("openai", "ft:gpt-4o-mini-tts:org::id", None, None),
    ("openai", "ft:", None, None),
    ("openai", "ft::", None, None),
    ("anthropic", "claude-sonnet-4-5-20250929", 3.0, 15.0),
    ("anthropic", "claude-3-5-haiku-latest", 0.8, 4.0),
    ("anthropic", "claude-3-7-sonnet-latest", 3.0, 15.0),
    ("mistral", "mistral-large-latest", 2.0, 6.0),
    ("mistral", "codestral-latest", 0.3, 0.9),
    ("xai", "grok-4-latest", 3.0, 15.0),
    ("groq", "openai/gpt-oss-120b", 0.15, 0.6),
    ("openrouter", "anthropic/claude-sonnet-4", 3.0, 15.0),
    # Sold by other units than tokens: images, minutes, characters.
    ("openai", "dall-e-3", None, None),
    ("openai", "whisper-1", None, None),
    ("openai", "tts-1", None, None),
]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.mark.parametrize(("provider", "name", "asked", "told"), PRICED)
def test_names_lead_to_their_price(catalogue: Catalogue, provider: str, name: str, asked: float | None, told: float | None) -> None:
    rates = catalogue.price(provider, name, NOW)
    if rates is None:
        assert (asked, told) == (None, None), name
        return
    assert (rates.input, rates.output) == (round((asked or -1) * 10**9), round((told or -1) * 10**9))


@pytest.mark.parametrize(
    ("provider", "name", "context", "most"),
    [
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000, 64_000),
        ("bedrock", "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.amazon.nova-lite-v1:0", 300_000, 10_000),
        ("openrouter", "anthropic/claude-sonnet-4.6", 1_000_000, 128_000),
        ("openai", "ft:gpt-4o-mini-2024-07-18:org:suffix:id", 128_000, 16_384),
        ("vllm", "meta/llama-3.1-8b-instruct", 131_072, 8192),
        ("vllm", "meta-llama/Llama-3.3-70B-Instruct", 131_072, 32_768),
        ("openai", "gpt-4.1", 1_000_000, 32_768),
    ],
)
def test_names_lead_to_what_their_model_can(catalogue: Catalogue, provider: str, name: str, context: int, most: int) -> None:
    info = catalogue.info(provider, name)
    assert info is not None
    assert (info.context, info.max_output) == (context, most)


def test_a_seller_may_give_less_context_than_the_model_can_take_and_not_more(catalogue: Catalogue) -> None:
    less, own = catalogue.info("cerebras", "llama3.1-8b"), catalogue.info("openai", "gpt-5-chat-latest")
    assert less is not None
    assert own is not None
    assert (less.context, own.context) == (32_768, 128_000), "the latter is listed with gpt-5's 400,000"


@pytest.mark.parametrize(
    ("model", "tier", "asked"),
    [
        ("openai/gpt-6-sol", None, 2.0), ("openai/gpt-6-sol", "flex", 1.0), ("openai/gpt-6-sol", "priority", 4.0),
        ("openai/gpt-6-sol", "fast", 4.0), ("openai/gpt-6-sol", "batch", 1.0), ("anthropic/claude-opus-5", "batch", 2.5),
        ("anthropic/claude-opus-5", "fast", 10.0), ("anthropic/claude-opus-5", "priority", 5.0),
        ("google/gemini-2.5-flash", "batch", 0.15), ("mistral/mistral-large-2512", "batch", 0.25),
    ],
)  # fmt: skip
def test_tiers_of_every_word_are_found(catalogue: Catalogue, model: str, tier: str | None, asked: float) -> None:
    rates = catalogue.price(*model.split("/"), NOW, tier)
    assert rates is not None
    assert rates.input == round(asked * 10**9)
