"""What is known of models that are in use: those of the recorded traffic, and those the big sellers list now."""

from __future__ import annotations

import json
from datetime import date
from importlib import resources

import pytest

from llm_gateway.models.catalogue import Catalogue, Info, load_catalogue
from replay.recordings import folder

CHAT = {
    "chat_completions", "responses", "messages", "generateContent", "streamGenerateContent", "converse", "converse-stream", "ollama_chat",
    "cohere_chat_v2",
}  # fmt: skip
# Recorded names that lack facts: deployments by private names, and open weights whose context is the host's own choice.
LACKING = {
    "azure/azure-gpt-4o": "all", "azure/openllmetry-testing": "all", "bedrock/anthropic.claude-v2": "context", "gpustack/qwen3": "context",
    "groq/compound-beta": "reasoning", "groq/meta-llama/llama-4-scout-17b-16e-instruct": "context",
    "huggingface/Qwen/Qwen2.5-VL-72B-Instruct": "context tools", "huggingface/meta-llama/Llama-4-Scout-17B-16E-Instruct": "context",
    "ollama/qwen2.5:32b": "context", "ollama/qwen3": "context", "ollama/qwen3.6:latest": "context", "ollama/qwen3:0.6b": "context",
    "openrouter/minimax/minimax-m2:free": "context", "openrouter/openai/gpt-5-image-mini": "tools",
    "together/mistralai/Mixtral-8x7B-Instruct-v0.1": "tools",
}  # fmt: skip
MODALITIES = {"text", "image", "audio", "video", "document"}
FLAGSHIPS = {
    "openai": ("gpt-4o", "gpt-4.1-mini", "gpt-5", "gpt-5.4", "gpt-5.5", "gpt-5.6-sol", "gpt-6-astra", "gpt-6.1-sol", "o3", "o4-mini"),
    "anthropic": ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-fable-5-1", "claude-sonnet-4-5", "claude-haiku-4-5"),
    "google": ("gemini-2.5-pro", "gemini-3.1-pro-preview", "gemini-3.5-flash", "gemini-3.8-flash"),
    "bedrock": ("amazon.nova-pro-v1:0", "amazon.nova-micro-v1:0", "us.amazon.nova-2-lite-v1:0", "us.anthropic.claude-opus-5-5"),
    "cohere": ("command-a-03-2025", "command-a-plus-05-2026", "command-r-plus"),
    "deepseek": ("deepseek-v4-pro", "deepseek-v4-flash"),
    "groq": ("openai/gpt-oss-120b", "llama-3.3-70b-versatile"),
    "mistral": ("mistral-medium-3-5", "mistral-large-2512"),
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def lacks(info: Info | None) -> str:
    if info is None:
        return "all"
    facts = ("context", "input", "output", "tools", "reasoning")
    return " ".join(name for name in facts if getattr(info, name) in (None, ()))


def test_recorded_models_are_known_but_for_those_named_here(catalogue: Catalogue) -> None:
    manifest = folder() / "manifest.jsonl"
    if not manifest.exists():
        pytest.skip("no recorded traffic here")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    used = {(row["provider"], row["model"]) for row in rows if row["api"] in CHAT and row["status"] < 400 and row["model"]}
    found = {f"{provider}/{model}": lacks(catalogue.info(provider, model)) for provider, model in used}
    assert {name: lack for name, lack in found.items() if lack} == LACKING


@pytest.mark.parametrize(("provider", "model"), [(provider, model) for provider, models in FLAGSHIPS.items() for model in models])
def test_current_models_are_known_whole(catalogue: Catalogue, provider: str, model: str) -> None:
    info = catalogue.info(provider, model)
    assert info is not None
    assert (lacks(info), info.max_output is not None) == ("", True)


def test_facts_are_sane(catalogue: Catalogue) -> None:
    for prefix, can in catalogue._capabilities:
        assert prefix == prefix.lower()
        assert MODALITIES.issuperset((*can.input, *can.output)), prefix
        assert can.max_output is None or can.context is None or can.max_output <= max(can.context, 16_384), prefix


def test_days_are_days_and_no_name_has_two(catalogue: Catalogue) -> None:
    rows = json.loads((resources.files("llm_gateway.models") / "retirements.json").read_bytes())
    for row in rows:
        assert [date.fromisoformat(day).isoformat() for day in row["days"]] == list(row["days"])
        names = [name for each in row["days"].values() for name in each]
        assert len(names) == len(set(names))
        known = [catalogue.info(provider, name) for provider in row["providers"] for name in names]
        assert {info.retires for info in known if info is not None} == set(row["days"])
        assert None not in known


def test_no_prefix_is_said_twice(catalogue: Catalogue) -> None:
    prefixes = [prefix for prefix, _ in catalogue._capabilities]
    assert len(prefixes) == len(set(prefixes))


@pytest.mark.parametrize(
    ("provider", "model", "retires", "deprecated"),
    [
        ("anthropic", "claude-opus-4-1-20250805", "2026-08-05", True),
        ("bedrock", "us.anthropic.claude-opus-4-1-20250805-v1:0", None, False),
        ("openai", "gpt-5-codex", "2026-07-23", True),
        ("azure", "gpt-5-codex", None, False),
        ("gemini", "models/gemini-2.5-flash", "2026-12-01", True),
        ("vertex", "gemini-2.5-flash", None, False),
        ("anthropic", "claude-3-5-haiku-20241022", "2026-02-19", True),
        ("vertex", "claude-3-5-haiku@20241022", "2026-07-05", True),
        ("openai", "gpt-4o", None, False),
        ("xai", "grok-2-1212", None, True),
    ],
)
def test_who_retires_what_is_each_providers_own_word(
    catalogue: Catalogue, provider: str, model: str, retires: str | None, deprecated: bool
) -> None:
    info = catalogue.info(provider, model)
    assert info is not None
    assert (info.retires, info.deprecated) == (retires, deprecated)
