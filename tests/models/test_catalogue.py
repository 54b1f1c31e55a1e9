"""The catalogue against genai-prices itself: the same entry for every name, the same rates at every moment."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from genai_prices import data
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, Provider

from llm_gateway.models.catalogue import Catalogue, Clause, Price, load_catalogue
from llm_gateway.models.prices import Rates

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
SUFFIXES = ("", "-20251211", "-2025-12-11", "-latest", ":free", "-preview", "@20250929")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def published(provider: Provider, name: str) -> ModelInfo | None:
    return provider.find_model(name, all_providers=get_snapshot().providers)


@pytest.mark.parametrize("provider", data.providers, ids=lambda provider: provider.id)
def test_every_name_finds_the_entry_that_genai_prices_finds(catalogue: Catalogue, provider: Provider) -> None:
    names = sorted({model.id for model in provider.models})
    for name in names[:: 1 + len(names) // 150]:  # each look-up of theirs takes milliseconds
        for suffix in SUFFIXES:
            theirs = published(provider, name + suffix)
            ours = catalogue._entry(provider.id, name + suffix)
            assert (ours.id if ours else None) == (theirs.id if theirs else None), name + suffix


def test_azure_finds_the_models_it_resells(catalogue: Catalogue) -> None:
    assert catalogue.price("azure", "claude-sonnet-4-5", NOW) == catalogue.price("anthropic", "claude-sonnet-4-5", NOW)


def test_our_provider_types_reach_the_sellers_that_go_by_another_name(catalogue: Catalogue) -> None:
    for provider, model in (
        ("google", "gemini-2.5-flash"),
        ("vertex", "gemini-2.5-flash"),
        ("bedrock", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("xai", "grok-4"),
    ):
        assert catalogue.price(provider, model, NOW) is not None, provider


def test_a_model_nobody_lists_is_unpriced_and_not_free(catalogue: Catalogue) -> None:
    assert catalogue.price("openai", "never-heard-of", NOW) is None
    assert catalogue.price("vllm", "gpt-4o", NOW) is None


def test_a_model_sold_by_the_hour_is_unpriced_by_the_token(catalogue: Catalogue) -> None:
    assert catalogue.price("groq", "whisper-large-v3", NOW) is None


def test_prices_change_on_their_day(catalogue: Catalogue) -> None:
    before = catalogue.price("openai", "o3", datetime(2025, 6, 9, 23, 59, tzinfo=UTC).timestamp())
    after = catalogue.price("openai", "o3", datetime(2025, 6, 10, tzinfo=UTC).timestamp())
    assert before is not None
    assert after is not None
    assert (before.input, after.input) == (10_000_000_000, 2_000_000_000)


def test_prices_change_at_their_hour_of_the_day(catalogue: Catalogue) -> None:
    def at(hour: int) -> Rates | None:
        return catalogue.price("deepseek", "deepseek-v4-pro", datetime(2026, 11, 20, hour, tzinfo=UTC).timestamp())

    quiet, peak = at(0), at(2)
    assert quiet is not None
    assert peak is not None
    assert (peak.input, quiet.input) == (1_320_000_000, 660_000_000)


def test_a_daily_period_may_span_midnight() -> None:
    night = Price(rates={}, daily=(22 * 3600, 2 * 3600))
    assert [night.holds(hour * 3600) for hour in (21, 22, 1, 2)] == [False, True, True, False]


def test_service_tiers_replace_only_the_rates_they_name(catalogue: Catalogue) -> None:
    standard = catalogue.price("openai", "gpt-4o", NOW)
    priority = catalogue.price("openai", "gpt-4o", NOW, "priority")
    assert standard is not None
    assert priority is not None
    assert (standard.input, priority.input) == (2_500_000_000, 4_250_000_000)
    assert standard.search == priority.search
    assert catalogue.price("openai", "gpt-4o", NOW, "default") == standard
    assert catalogue.price("openai", "gpt-4o", NOW, "no-such-tier") == standard


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gpt-4", ("openai", "gpt-4.1")),
        ("gpt-4-vision", ("openai", "gpt-4o")),
        ("claude-3-sonnet", ("anthropic", "claude-sonnet-4-5")),
        ("gpt-4o", ("openai", "gpt-4o")),
        ("o4-mini", ("openai", "o4-mini")),
        ("chatgpt-4o-latest", ("openai", "chatgpt-4o-latest")),
        ("text-embedding-3-small", ("openai", "text-embedding-3-small")),
        ("claude-sonnet-4-5-20250929", ("anthropic", "claude-sonnet-4-5-20250929")),
        ("gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("grok-4", ("xai", "grok-4")),
        ("gpt-oss-20b", None),
        ("llama", None),
        ("openai/gpt-4o", None),
        ("", None),
    ],
)
def test_bare_names_resolve(catalogue: Catalogue, name: str, target: tuple[str, str] | None) -> None:
    assert catalogue.resolve(name) == target


def test_every_alias_leads_to_a_priced_model(catalogue: Catalogue) -> None:
    for name, target in catalogue.aliases().items():
        provider, model = target.split("/")
        assert catalogue.price(provider, model, NOW) is not None, name


def test_info_joins_the_layers(catalogue: Catalogue) -> None:
    info = catalogue.info("openai", "gpt-4o")
    assert info is not None
    assert (info.context, info.max_output, info.tools) == (128_000, 16_384, True)
    assert "image" in info.input
    assert catalogue.info("vllm", "never-heard-of") is None
    hosted = catalogue.info("vllm", "meta/llama-3.1-8b-instruct")
    assert hosted is not None
    assert hosted.tools is True


def test_the_longest_prefix_says_what_a_model_can_do(catalogue: Catalogue) -> None:
    mini, full = catalogue.info("openai", "o3-mini"), catalogue.info("openai", "o3")
    assert mini is not None
    assert full is not None
    assert (mini.input, "image" in full.input) == (("text",), True)


def test_models_lists_what_a_provider_sells(catalogue: Catalogue) -> None:
    assert "claude-sonnet-4-5" in [info.id for info in catalogue.models("anthropic")]
    assert catalogue.models("vllm") == []


def test_names_are_of_the_list_and_of_whom_it_resells(catalogue: Catalogue) -> None:
    listed = {info.id for info in catalogue.models("azure")}
    assert "gpt-4o" not in listed
    assert {"gpt-4o", *listed} <= catalogue.names("azure")
    assert catalogue.names("vllm") == set()


def test_many_unknown_names_are_not_remembered_for_ever(catalogue: Catalogue) -> None:
    for number in range(5000):
        catalogue.price("anthropic", f"made-up-{number}", NOW)
    assert len(catalogue._tariffs) <= 4096
    assert len(catalogue._entries) <= 4096


def test_clauses_match_as_published() -> None:
    both = Clause(all=(Clause(starts="gpt"), Clause(ends="x")))
    assert both.matches("gpt-x")
    assert not both.matches("gpt-y")
    assert Clause(any=(Clause(equals="a"), Clause(contains="bc"))).matches("abcd")
    assert Clause(regex=r"^v\d$").matches("v7")


def test_loading_is_quick() -> None:
    best = min(_timed_load() for _ in range(5))
    assert best < 0.030  # 6 ms alone; a shared machine gets five times that


def test_the_data_is_what_the_pinned_package_gives(tmp_path: Path) -> None:
    fresh = tmp_path / "catalogue.json"
    subprocess.run([sys.executable, "scripts/catalogue.py", str(fresh)], cwd=ROOT, check=True)
    assert fresh.read_bytes() == (ROOT / "src/llm_gateway/models/catalogue.json").read_bytes()


def _timed_load() -> float:
    start = time.perf_counter()
    load_catalogue()
    return time.perf_counter() - start
