"""The configuration's prices and facts over the catalogue's: which name wins, and what nobody says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_gateway.models.catalogue import Catalogue, Facts, load_catalogue
from llm_gateway.models.own import Own, Place
from llm_gateway.models.prices import UNITS, Rates

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
GPT = Place("eu", "openai", "gpt-4o", "smart")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def test_whose_prices_those_are(catalogue: Catalogue) -> None:
    own = Own(catalogue, {"eu/gpt-4o": {"input": 3}})
    assert own.source(GPT) == "config"
    assert own.source(Place("us", "openai", "gpt-4o", "gpt-4o")) == catalogue.source
    assert catalogue.source.startswith("genai-prices ")


def test_the_narrowest_name_wins_rate_by_rate(catalogue: Catalogue) -> None:
    own = Own(catalogue, {"gpt-4o": {"input": 1, "output": 1, "cache_read": 1}, "smart": {"input": 2, "output": 2}, "eu/gpt-4o": {"input": 3}})
    rates = own.rates(GPT, NOW)
    assert rates is not None
    assert (rates.input, rates.output, rates.cache_read) == (3 * 10**9, 2 * 10**9, 10**9)
    other = own.rates(Place("us", "openai", "gpt-4o", "us/gpt-4o"), NOW)
    assert other is not None
    assert other.input == 10**9, "an alias and another provider's prices are not this one's"


def test_every_rate_can_be_said(catalogue: Catalogue) -> None:
    own = Own(catalogue, {"ours": dict.fromkeys(UNITS, 2.5)})
    units = {"search": 10**15, "request": 10**15}
    expected = Rates(**{name: int(2.5 * units.get(name, 10**9)) for name in UNITS})
    assert own.rates(Place("vllm", "vllm", "ours", "ours"), NOW) == expected


def test_an_own_price_holds_for_every_service_tier(catalogue: Catalogue) -> None:
    own = Own(catalogue, {"gpt-4o": {"input": 1}})
    rates = own.rates(GPT, NOW, "priority")
    assert rates is not None
    assert (rates.input, rates.output) == (10**9, 17 * 10**9)


def test_facts_are_laid_over_facts(catalogue: Catalogue) -> None:
    own = Own(catalogue, facts={"gpt-4o": Facts(context=1000, tools=False), "eu/gpt-4o": Facts(context=2000, retires="2027-01-01")})
    info = own.info(GPT)
    assert info is not None
    assert (info.context, info.tools, info.max_output, info.retires) == (2000, False, 16_384, "2027-01-01")


def test_a_model_only_the_configuration_knows(catalogue: Catalogue) -> None:
    own = Own(catalogue, {"lab/m1": {"input": 1}}, {"lab/m2": Facts(context=4096, input=("text",), regions=("eu",))})
    assert own.names() == ["lab/m2", "lab/m1"]
    priced, told = own.info(Place("lab", "vllm", "m1", "lab/m1")), own.info(Place("lab", "vllm", "m2", "lab/m2"))
    assert priced is not None
    assert told is not None
    assert (told.id, told.context, told.input, told.regions, told.tools) == ("m2", 4096, ("text",), ("eu",), None)
    assert own.info(Place("lab", "vllm", "m3", "lab/m3")) is None
    assert own.rates(Place("lab", "vllm", "m2", "lab/m2"), NOW) is None, "unpriced, not free"
