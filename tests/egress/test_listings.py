"""What GET /v1/models says of a model: facts, prices, and which models are listed at all."""

from __future__ import annotations

from typing import Any

import pytest

from llm_gateway import wiring
from llm_gateway.config.compile import compile_snapshot
from llm_gateway.config.load import load
from llm_gateway.config.material import imagined
from llm_gateway.egress import listings
from llm_gateway.egress.local import Facts as Around
from llm_gateway.egress.local import Local
from llm_gateway.models.catalogue import Catalogue, Info, load_catalogue
from llm_gateway.models.prices import Rates
from llm_gateway.telemetry.metrics import Metrics
from llm_gateway.telemetry.vitals import Vitals
from llm_gateway.upstream.pool import Pool

CONFIG = """
providers:
  lab: {type: vllm, base_url: "http://127.0.0.1:8000"}
  anthropic: {api_key: sk-a}
  bedrock: {api_key: k, region: eu-central-1}
models: {smart: anthropic/claude-sonnet-4-5, ours: lab/m1}
default_provider: lab
prices: {lab/m1: {input: 1, search: 0.01}, lab/m2: {input: 2, output: 4}, anthropic/claude-opus-4-1: {output: 1}}
catalogue:
  lab/m1: {context: 8192, tools: true, structured_output: false, retires: 2027-03-31, regions: [eu]}
  bare: {context: 1024}
  smart: {deprecated: true}
  nobody/m9: {context: 5}
"""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture(scope="module")
def listed(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("listings") / "config.yaml"
    path.write_text(CONFIG)
    loaded = load(str(path), {})
    snapshot = compile_snapshot(loaded, {}, imagined(loaded.root), catalogue.resolve, 1).snapshot
    table = wiring.table(snapshot, catalogue, Metrics(), Pool(memoryview(bytearray(1024))))
    local = Local(table, Vitals(), Around("v", str(path.parent), 0.0, lambda: None, lambda: False))
    entries = list(local._making)
    assert len({entry["id"] for entry in entries}) == len(entries), "listed once each"
    return {entry["id"]: entry for entry in entries}


def test_a_model_only_the_configuration_knows_is_listed_whole(listed: dict[str, dict[str, Any]]) -> None:
    assert listed["lab/m1"] == {
        "id": "lab/m1", "object": "model", "created": 0, "owned_by": "lab", "context_window": 8192, "tools": True,
        "structured_output": False, "deprecated": False, "retires": "2027-03-31", "regions": ("eu",),
        "pricing": {"currency": "USD", "unit": "1M tokens", "input": 1.0, "search": 0.01},
    }  # fmt: skip
    assert listed["lab/m2"]["pricing"]["output"] == 4.0
    assert listed["bare"]["context_window"] == 1024, "the default provider takes it"


def test_a_name_that_leads_to_the_default_provider_is_listed_as_asked(listed: dict[str, dict[str, Any]]) -> None:
    assert listed["nobody/m9"]["owned_by"] == "lab"


def test_aliases_are_listed_with_what_their_target_is(listed: dict[str, dict[str, Any]]) -> None:
    assert listed["ours"]["context_window"] == 8192
    assert listed["smart"]["deprecated"] is True
    assert listed["anthropic/claude-sonnet-4-5"]["deprecated"] is False


def test_what_the_catalogue_knows_is_laid_under(listed: dict[str, dict[str, Any]]) -> None:
    opus = listed["anthropic/claude-opus-4-1"]
    assert (opus["pricing"]["input"], opus["pricing"]["output"]) == (15.0, 1.0)
    assert (opus["retires"], opus["deprecated"], opus["max_output_tokens"]) == ("2026-08-05", True, 32_000)


def test_where_a_provider_runs_is_where_its_models_do(listed: dict[str, dict[str, Any]]) -> None:
    assert listed["bedrock/amazon.nova-lite-v1:0"]["regions"] == ["eu-central-1"]
    assert "regions" not in listed["anthropic/claude-sonnet-4-5"]


def test_facts_nobody_knows_are_left_out() -> None:
    assert listings.facts(Info(id="m")) == {"deprecated": False}


def test_longer_prompts_have_their_own_prices() -> None:
    rates = Rates(input=10**9, image_output=3 * 10**10, request=10**13, tiers=((200_000, Rates(input=2 * 10**9)),))
    assert listings.pricing(rates) == {
        "pricing": {
            "currency": "USD", "unit": "1M tokens", "input": 1.0, "image_output": 30.0, "request": 0.01,
            "above": {"200000": {"input": 2.0}},
        }
    }  # fmt: skip
    assert listings.pricing(None) == {}
