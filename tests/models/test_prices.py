"""Costs against genai-prices' own calculation, for every model it prices, and the rules of rounding and overriding."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import data, types
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_gateway.core.types import Usage
from llm_gateway.models.catalogue import Catalogue, load_catalogue
from llm_gateway.models.prices import Rates, cost, femto, override

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
COUNTS = (0, 1, 7, 999, 32_001, 150_000, 199_999, 200_000, 200_001, 1_200_000)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


def usage_of(draw: random.Random) -> Usage:
    total, output = draw.choice(COUNTS), draw.choice(COUNTS)
    read, write, hour, audio, image = (draw.randint(0, total // 5) for _ in range(5))
    return Usage(
        input=total,
        output=output,
        cache_read=read,
        cache_write_5m=write,
        cache_write_1h=hour,
        audio_input=audio,
        image_input=image,
        reasoning=draw.randint(0, output // 3),
        audio_output=draw.randint(0, output // 3),
        image_output=draw.randint(0, output // 3),
        searches=draw.randint(0, 3),
        cache_audio=draw.randint(0, min(read, audio)),
    )


def theirs(model: types.ModelInfo, usage: Usage) -> int:
    """genai-prices' answer in nano-USD, rounded up."""
    reported = types.Usage(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write_5m + usage.cache_write_1h,
        cache_write_1h_tokens=usage.cache_write_1h,
        input_audio_tokens=usage.audio_input,
        output_audio_tokens=usage.audio_output,
        input_image_tokens=usage.image_input,
        output_reasoning_tokens=usage.reasoning,
        output_audio_reasoning_tokens=0,
        cache_audio_read_tokens=usage.cache_audio,
        cache_image_read_tokens=0,
        output_image_tokens=usage.image_output,
        input_video_tokens=0,
        output_video_tokens=0,
        output_citation_tokens=0,
        web_searches=usage.searches,
    )
    return math.ceil(model.get_prices(NOW).calc_price(reported)["total_price"] * 10**9)


def names_of(model: types.ModelInfo) -> list[str]:
    """Names that may lead to a model: its id (which need not), and the words of its patterns."""
    clauses = model.match.or_ if isinstance(model.match, types.ClauseOr) else [model.match]
    return [model.id, *(next(iter(vars(each).values())) for each in clauses if not isinstance(each, types.ClauseAnd))]


def endless(model: types.ModelInfo) -> bool:
    """Whether a price has more digits than a femto-USD can hold."""
    prices = vars(model.get_prices(NOW)).values()
    return any(isinstance(price, Decimal) and (price * 10**9) % 1 for price in prices)


@pytest.mark.parametrize("provider", data.providers, ids=lambda provider: provider.id)
def test_every_priced_model_costs_what_genai_prices_says(catalogue: Catalogue, provider: types.Provider) -> None:
    draw = random.Random(provider.id)
    compared = 0
    for name in (name for model in provider.models for name in names_of(model)):
        found = provider.find_model(name)
        rates = catalogue.price(provider.id, name, NOW.timestamp())
        if found is None or rates is None:
            continue
        for _ in range(3):
            usage = usage_of(draw)
            if rates.output is None:  # models that only read are sold by what they read
                usage = structs.replace(usage, output=0, reasoning=0, audio_output=0, image_output=0)
            ours, exact = cost(usage, rates), theirs(found, usage)
            assert ours is not None
            slack = (usage.input + usage.output) // 10**6 + 1 if endless(found) else 0
            assert exact <= ours <= exact + slack, (name, usage)
            compared += 1
    assert compared or provider.id == "elevenlabs", "nothing was compared"


def test_unpriced_is_none_and_free_is_zero() -> None:
    usage = Usage(input=1000, output=1000)
    assert cost(usage, None) is None
    assert cost(usage, Rates(input=0, output=0)) == 0


def test_what_has_no_rate_is_unpriced_and_not_free() -> None:
    assert cost(Usage(input=1000), Rates(input=1_000_000)) == 1000
    assert cost(Usage(input=1000, output=1), Rates(input=1_000_000)) is None
    assert cost(Usage(input=1, image_output=7, output=7), Rates(image_output=1_000_000)) is None
    assert cost(Usage(image_output=7, output=7), Rates(image_output=1_000_000)) == 7


def test_images_made_have_a_rate_of_their_own() -> None:
    rates = Rates(input=0, output=1_000_000, image_output=30_000_000)
    assert cost(Usage(output=110, image_output=100), rates) == 3010


def test_sound_from_a_cache_is_paid_for_once_at_its_own_rate() -> None:
    """A recording that is asked about again and again: all of it cached, all of it sound."""
    rates = Rates(input=300_000_000, output=0, cache_read=30_000_000, audio_input=1_000_000_000, cache_audio=100_000_000)
    assert cost(Usage(input=10_000, cache_read=10_000, audio_input=10_000, cache_audio=10_000), rates) == 1_000_000
    assert cost(Usage(input=100, cache_read=40, audio_input=50, cache_audio=20), rates) == 20 * 100 + 20 * 30 + 30 * 1000 + 30 * 300
    same = structs.replace(rates, cache_audio=None)  # as the rest of the cache
    assert cost(Usage(input=100, cache_read=40, audio_input=50, cache_audio=20), same) == 40 * 30 + 30 * 1000 + 30 * 300
    none = Rates(input=300_000_000, output=0, audio_input=1_000_000_000)  # sound as sound, where nobody sells it cheaper
    assert cost(Usage(input=100, cache_read=40, audio_input=50, cache_audio=20), none) == 50 * 1000 + 50 * 300


def test_cost_is_rounded_up_once() -> None:
    tenth = femto(Decimal("0.0001"), 10**9)  # a tenth of a nano-USD per token
    assert cost(Usage(input=1, output=1), Rates(input=tenth, output=tenth)) == 1
    assert cost(Usage(input=10, output=10), Rates(input=tenth, output=tenth)) == 2
    assert cost(Usage(input=10, output=11), Rates(input=tenth, output=tenth)) == 3


def test_a_long_prompt_pays_the_long_rate_for_everything() -> None:
    rates = Rates(input=1_000_000, output=1_000_000, tiers=((100, Rates(input=2_000_000, output=3_000_000)),))
    assert cost(Usage(input=100, output=10), rates) == 110
    assert cost(Usage(input=101, output=10), rates) == 232


def test_details_without_a_rate_are_billed_as_what_they_are_part_of() -> None:
    usage = Usage(input=100, output=50, cache_read=80, cache_write_1h=10, reasoning=30)
    assert cost(usage, Rates(input=1_000_000, output=2_000_000)) == 200
    assert cost(usage, Rates(input=1_000_000, output=2_000_000, cache_write=3_000_000)) == 220


@given(
    st.builds(
        Usage,
        **{
            name: st.integers(0, 10**9)
            for name in ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "reasoning", "audio_input")
        },
    )
)
def test_a_bill_is_never_negative_however_odd_the_usage(usage: Usage) -> None:
    rates = Rates(input=5, output=7, cache_read=1, cache_write=9, cache_write_1h=11, reasoning=2, audio_input=3)
    assert (cost(usage, rates) or 0) >= 0


def test_own_prices_lie_over_the_published_ones_and_over_their_tiers() -> None:
    base = Rates(input=1, output=2, cache_read=3, tiers=((9, Rates(input=10, output=20, cache_read=30)),))
    mine = override(base, {"input": 0.15, "cache_read": 0.0})
    assert mine is not None
    assert (mine.input, mine.output, mine.cache_read) == (150_000_000, 2, 0)
    assert mine.tiers[0][1] == Rates(input=150_000_000, output=20, cache_read=0)
    assert override(base, {}) is base
    assert override(None, {}) is None
    assert override(None, {"input": 1.0, "output": 2.0}) == Rates(input=10**9, output=2 * 10**9)


def test_a_price_with_endless_digits_is_rounded_up() -> None:
    assert femto(Decimal("0.0833333333333333"), 10**9) == 83_333_334
