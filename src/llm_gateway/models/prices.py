"""What a reply costs: rates x usage, in integer nano-USD, rounded up once.

Law: pure, never a guess. Rates are integers in femto-USD (1e-15) per unit, in which all but a handful of published prices
are whole numbers; no sum is done in floats. A detail without a rate of its own is billed at the rate of what it is part of
(cached tokens as input, reasoning as output). No rates, or none for tokens that were used, is None, "unpriced"; that is
never the same as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct, structs

from llm_gateway.core.types import Usage

FEMTO_PER_NANO = 1_000_000
FEMTO_PER_TOKEN = 10**9  # 1 USD per million tokens, in femto-USD per token
FEMTO_PER_USD = 10**15
FEMTO_PER_THOUSANDTH = 10**12  # 1 USD per thousand searches or requests, in femto-USD each

# Field of Rates -> (genai-prices' name of the unit, femto-USD per unit at a price of 1)
UNITS: dict[str, tuple[str, int]] = {
    "input": ("input_mtok", FEMTO_PER_TOKEN),
    "output": ("output_mtok", FEMTO_PER_TOKEN),
    "cache_read": ("cache_read_mtok", FEMTO_PER_TOKEN),
    "cache_write": ("cache_write_mtok", FEMTO_PER_TOKEN),
    "cache_write_1h": ("cache_write_1h_mtok", FEMTO_PER_TOKEN),
    "cache_audio": ("cache_audio_read_mtok", FEMTO_PER_TOKEN),
    "audio_input": ("input_audio_mtok", FEMTO_PER_TOKEN),
    "audio_output": ("output_audio_mtok", FEMTO_PER_TOKEN),
    "image_input": ("input_image_mtok", FEMTO_PER_TOKEN),
    "image_output": ("output_image_mtok", FEMTO_PER_TOKEN),
    "reasoning": ("output_reasoning_mtok", FEMTO_PER_TOKEN),
    "search": ("web_searches_kcount", FEMTO_PER_THOUSANDTH),
    "request": ("requests_kcount", FEMTO_PER_THOUSANDTH),
}

_OWN_UNITS = {"search": FEMTO_PER_USD, "request": FEMTO_PER_USD}


class Rates(Struct, frozen=True, kw_only=True, gc=False):
    """Femto-USD per token, search and request; None: no rate of its own.

    `tiers`: (more input tokens than this, these rates for the whole request), ascending; the published "cliff".
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    cache_audio: int | None = None
    audio_input: int | None = None
    audio_output: int | None = None
    image_input: int | None = None
    image_output: int | None = None
    reasoning: int | None = None
    search: int | None = None
    request: int | None = None
    tiers: tuple[tuple[int, Rates], ...] = ()


def femto(price: Decimal, unit: int) -> int:
    """A price in USD as whole femto-USD per unit. The few published with endless digits (0.08333...) are rounded up."""
    return math.ceil(price * unit)


def override(base: Rates | None, prices: Mapping[str, float]) -> Rates | None:
    """`base` with the operator's own prices in place of the published ones: by field of Rates, USD per million tokens, `search`
    and `request` USD each.

    An own price holds whatever the prompt's length: it removes the tiers of that rate.
    """
    if not prices:
        return base
    own = {name: femto(Decimal(repr(price)), _OWN_UNITS.get(name, FEMTO_PER_TOKEN)) for name, price in prices.items()}
    plain = base or Rates()
    tiers = tuple((above, structs.replace(rates, **own)) for above, rates in plain.tiers)
    return structs.replace(plain, **own, tiers=tiers)


def cost(usage: Usage, rates: Rates | None) -> int | None:
    """Nano-USD for one reply, rounded up; None if unpriced. Details that exceed their whole never make a bill negative."""
    if rates is None:
        return None
    for above, tier in reversed(rates.tiers):
        if usage.input > above:
            rates = tier
            break
    prompt, generated, femtos = usage.input, usage.output, rates.request or 0
    # Written out: most replies have none of these, and a loop over pairs costs five times the tests.
    if usage.cache_read and (rate := rates.cache_read) is not None:
        prompt -= usage.cache_read
        femtos += usage.cache_read * rate
    if usage.cache_write_5m and (rate := rates.cache_write) is not None:
        prompt -= usage.cache_write_5m
        femtos += usage.cache_write_5m * rate
    if usage.reasoning and (rate := rates.reasoning) is not None:
        generated -= usage.reasoning
        femtos += usage.reasoning * rate
    if usage.cache_write_1h or usage.searches or usage.audio_input or usage.image_input or usage.audio_output or usage.image_output:
        apart = _rare(usage, rates)
        prompt, generated, femtos = prompt - apart[0], generated - apart[1], femtos + apart[2]
    if (prompt > 0 and rates.input is None) or (generated > 0 and rates.output is None):
        return None
    if prompt > 0:
        femtos += prompt * (rates.input or 0)
    if generated > 0:
        femtos += generated * (rates.output or 0)
    return -(-femtos // FEMTO_PER_NANO)


def flat(rates: Rates | None) -> tuple[int, int, int] | None:
    """Femto-USD of a token read, of one written and of a request, where that is all that a request and reply of text can cost; None else."""
    if rates is None or rates.input is None or rates.output is None or rates.tiers:
        return None
    others = (rates.cache_write, rates.cache_write_1h, rates.audio_input, rates.audio_output)
    return (rates.input, rates.output, rates.request or 0) if others == (None,) * len(others) else None


def _rare(usage: Usage, rates: Rates) -> tuple[int, int, int]:
    """Prompt tokens and generated ones that have rates of their own and few replies have, and what those cost in femto-USD."""
    hour = rates.cache_write if rates.cache_write_1h is None else rates.cache_write_1h
    cached = 0 if rates.cache_read is None else min(usage.cache_audio, usage.cache_read, usage.audio_input)
    asked = ((usage.cache_write_1h, hour), (usage.audio_input - cached, rates.audio_input), (usage.image_input, rates.image_input))
    told = ((usage.audio_output, rates.audio_output), (usage.image_output, rates.image_output))
    prompt = sum(count for count, rate in asked if rate is not None)
    generated = sum(count for count, rate in told if rate is not None)
    femtos = sum(count * rate for count, rate in (*asked, *told) if rate is not None)
    if cached and rates.cache_audio is not None:  # paid for with the rest of the cache: what it is dearer
        femtos += cached * (rates.cache_audio - (rates.cache_read or 0))
    return prompt, generated, femtos + usage.searches * (rates.search or 0)
