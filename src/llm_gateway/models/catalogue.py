"""Which models are known, who sells them, what they can do and what they cost.

Law: data in layers: `catalogue.json` (generated: prices, context windows) < `capabilities.json`, `retirements.json` and
`aliases.json` (kept by hand) < the caller's config, which `own.py` lays over this. No clock: prices that change with the date
or the hour take `now`. An unknown model is None, and an unknown price is None, never 0.

Matching is that of genai-prices: entries in order, by name or pattern, then those of the providers whose models a seller
resells; then once more with a compact date suffix (-20251211) written out, without what clouds put before a name
(`publishers/google/models/`, an ARN), and by the base of a fine-tune.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from importlib import resources

from msgspec import Raw, Struct, convert, json, structs

from llm_gateway.models.prices import UNITS, Rates, femto

DAY = 86_400
TIERS = ("service_tier", "processing", "speed")  # the data's words for a price that the reply's tier chooses
MEMO_LIMIT = 4096  # names come from clients, so what is remembered of them is bounded
VENDOR = re.compile(r"^(?:(?:us|eu|apac|global|regional|jp|au|ca|us-gov)\.)?(?:[a-z]+|ai21)\.(?=[a-z])")  # Bedrock's us.anthropic.claude-…
SPREAD = re.compile(r"^(us-gov|us|eu|apac|global|jp|au|ca)\.[a-z0-9]+\.")  # a profile that runs wherever in that part of the world there is room
PARTS = {"apac": "asia", "jp": "asia"}  # its words for what policies.regions calls otherwise
FINE_TUNE = re.compile(r"^ft:[^:]+(?=:[^:]*:)")  # ft:BASE:organization:suffix:id
COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Clause(Struct, frozen=True):
    """A pattern for model names; exactly one field is set."""

    starts: str | None = None
    ends: str | None = None
    contains: str | None = None
    equals: str | None = None
    regex: str | None = None
    any: tuple[Clause, ...] = ()
    all: tuple[Clause, ...] = ()

    def matches(self, name: str) -> bool:
        """`name` in lower case."""
        if self.starts is not None:
            return name.startswith(self.starts)
        if self.ends is not None:
            return name.endswith(self.ends)
        if self.contains is not None:
            return self.contains in name
        if self.equals is not None:
            return name == self.equals
        if self.regex is not None:
            return re.search(self.regex, name) is not None
        if self.any:
            return any(each.matches(name) for each in self.any)
        return all(each.matches(name) for each in self.all)


class Tiered(Struct, frozen=True):
    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...]


class Price(Struct, frozen=True):
    """Published rates, and when they hold: `since` Unix seconds, or `daily` (start, end) in seconds of the UTC day."""

    rates: dict[str, Decimal | Tiered]
    since: int | None = None
    daily: tuple[int, int] | None = None
    when: dict[str, str] = {}

    def serves(self, tier: str) -> bool:
        """Whether this is the price of a service tier: what the data files under several words is one word in replies."""
        return len(self.when) == 1 and any(self.when.get(word) == tier for word in TIERS)

    def holds(self, now: float) -> bool:
        if self.since is not None:
            return now >= self.since
        if self.daily is None:
            return True
        start, end = self.daily
        second = now % DAY
        return start <= second < end if start <= end else second >= start or second < end


_PRICES = json.Decoder(tuple[Price, ...])


class Entry(Struct, frozen=True):
    """One model as one seller lists it. Prices are decoded when first asked for."""

    id: str
    names: tuple[str, ...] = ()
    patterns: tuple[Clause, ...] = ()
    context: int | None = None
    deprecated: bool = False
    prices: Raw = Raw(b"[]")
    variants: Raw = Raw(b"[]")

    def matches(self, name: str) -> bool:
        return name in self.names or any(each.matches(name) for each in self.patterns)


class Seller(Struct, frozen=True):
    id: str
    name: str
    models: tuple[Entry, ...]
    fallbacks: tuple[str, ...] = ()


class Published(Struct, frozen=True):
    """`source`, `version`: of the package the data comes from; `date`: the newest day it says a price was checked."""

    source: str
    version: str
    date: str
    providers: tuple[Seller, ...]


class Known(Struct, frozen=True):
    """The hand-kept names. `sellers`: provider type -> the catalogue's word, where they differ. By seller: `wrappings`, a pattern
    of what its APIs put before a model's name; `spellings`, names -> those the catalogue lists."""

    aliases: dict[str, str]
    prefixes: tuple[tuple[str, str | None], ...]
    sellers: dict[str, str]
    wrappings: dict[str, str] = {}
    spellings: dict[str, dict[str, str]] = {}


class Facts(Struct, frozen=True, kw_only=True):
    """What is said of a model, None where nothing is. Modalities: text, image, audio, video, document. `retires`: the day, as
    2026-10-23, after which its provider serves it no more."""

    context: int | None = None
    max_output: int | None = None
    input: tuple[str, ...] | None = None
    output: tuple[str, ...] | None = None
    tools: bool | None = None
    schema: bool | None = None
    reasoning: bool | None = None
    deprecated: bool | None = None
    retires: str | None = None
    regions: tuple[str, ...] | None = None


class Schedule(Struct, frozen=True):
    """Which names stop being served when, by those providers' own announcement: clouds that resell a model keep their own days."""

    providers: tuple[str, ...]
    source: str
    days: dict[str, tuple[str, ...]]


class Capability(Struct, frozen=True):
    """What models can do whose name begins with one of `prefixes`, whoever sells them; the longest prefix decides."""

    prefixes: tuple[str, ...] = ()
    max_output: int | None = None
    context: int | None = None
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    tools: bool | None = None
    schema: bool | None = None
    reasoning: bool | None = None


class Info(Struct, frozen=True, kw_only=True):
    """What is known of one model; None and () where nothing is."""

    id: str
    context: int | None = None
    max_output: int | None = None
    deprecated: bool = False
    retires: str | None = None
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    tools: bool | None = None
    schema: bool | None = None
    reasoning: bool | None = None
    regions: tuple[str, ...] = ()


class Tariff:
    """The prices of one entry, compiled. `rates` at a moment; compiled rates are kept, there are few per entry."""

    def __init__(self, entry: Entry) -> None:
        self._prices = _PRICES.decode(entry.prices)
        self._variants = _PRICES.decode(entry.variants)
        self._compiled: dict[tuple[int, tuple[int, ...]], Rates | None] = {}

    def rates(self, now: float, tier: str | None) -> Rates | None:
        """The last price that holds now, else the first; over it, rate by rate, the first variant of the service tier."""
        if not self._prices:
            return None
        base = next((i for i in range(len(self._prices) - 1, 0, -1) if self._prices[i].holds(now)), 0)
        variants: tuple[int, ...] = ()
        if tier is not None and self._variants:
            variants = tuple(i for i, each in enumerate(self._variants) if each.serves(tier) and each.holds(now))
        key = (base, variants)
        if key not in self._compiled:
            merged: dict[str, Decimal | Tiered] = {}
            for i in variants:
                merged = self._variants[i].rates | merged
            self._compiled[key] = compile_rates(self._prices[base].rates | merged)
        return self._compiled[key]


class Catalogue:
    """Looks names up. Holds only data; what it remembers of earlier look-ups changes no answer."""

    def __init__(
        self, published: Published, known: Known, capabilities: tuple[Capability, ...], schedules: tuple[Schedule, ...] = ()
    ) -> None:
        self.source = f"{published.source} {published.version}"
        self.date = published.date
        self._known = known
        self._sellers = {seller.id: seller for seller in published.providers}
        prefixed = [(prefix, each) for each in capabilities for prefix in each.prefixes]
        self._capabilities = sorted(prefixed, key=lambda pair: -len(pair[0]))
        self._wrappings = {seller: re.compile(pattern) for seller, pattern in known.wrappings.items()}
        self._retires = {
            (provider, name): day
            for schedule in schedules
            for provider in schedule.providers
            for day, names in schedule.days.items()
            for name in names
        }
        self._entries: dict[tuple[str, str], Entry | None] = {}
        self._tariffs: dict[tuple[str, str], Tariff | None] = {}

    def resolve(self, name: str) -> tuple[str, str] | None:
        """(provider type, model) for a bare model name; None if nobody is known for it, or it holds a `/`."""
        alias = self._known.aliases.get(name)
        if alias is not None:
            provider, _, model = alias.partition("/")
            return provider, model
        if "/" in name:
            return None
        lower = name.lower()
        for prefix, provider_or_none in self._known.prefixes:
            if lower.startswith(prefix):
                return (provider_or_none, name) if provider_or_none is not None else None
        return None

    def aliases(self) -> dict[str, str]:
        """Names that stand for another model: name -> `provider/model`."""
        return dict(self._known.aliases)

    def price(self, provider: str, model: str, now: float, tier: str | None = None) -> Rates | None:
        """Rates at `now` (Unix seconds), for the service tier the reply names; None: unpriced."""
        key = (provider, model)
        try:
            tariff = self._tariffs[key]
        except KeyError:
            entry = self._entry(provider, model)
            tariff = Tariff(entry) if entry is not None else None
            if len(self._tariffs) >= MEMO_LIMIT:
                self._tariffs.clear()
            self._tariffs[key] = tariff
        return tariff.rates(now, tier) if tariff is not None else None

    def info(self, provider: str, model: str) -> Info | None:
        """None if neither layer knows the model."""
        return self._describe(provider, model, self._entry(provider, model))

    def models(self, provider: str) -> list[Info]:
        """What the catalogue lists for a provider type, in its order; empty for types nobody publishes a list for."""
        seller = self._sellers.get(self._known.sellers.get(provider, provider))
        described = (self._describe(provider, entry.id, entry) for entry in (seller.models if seller else ()))
        return [info for info in described if info is not None]

    def names(self, provider: str) -> set[str]:
        """Ids of what can be looked up for a provider type: its own list, and those of whom it resells."""
        seller = self._sellers.get(self._known.sellers.get(provider, provider))
        listers = [seller, *(self._sellers.get(each) for each in seller.fallbacks)] if seller is not None else []
        return {entry.id for lister in listers if lister is not None for entry in lister.models}

    def _describe(self, provider: str, model: str, entry: Entry | None) -> Info | None:
        name = model.lower().rpartition("/")[2]
        bare = VENDOR.sub("", name.removeprefix("ft:"))
        can = next((each for prefix, each in self._capabilities if bare.startswith(prefix)), None)
        retires = self._retires.get((provider, name))
        spread = SPREAD.match(name)
        if entry is None and can is None and retires is None and spread is None:
            return None
        can = can or Capability()
        return Info(
            id=model,
            context=_least(entry.context if entry is not None else None, can.context),
            max_output=can.max_output,
            deprecated=retires is not None or (entry is not None and entry.deprecated),
            retires=retires,
            input=can.input,
            output=can.output,
            tools=can.tools,
            schema=can.schema,
            reasoning=can.reasoning,
            regions=(PARTS.get(spread[1], spread[1]),) if spread is not None else (),
        )

    def _entry(self, provider: str, model: str) -> Entry | None:
        seller = self._known.sellers.get(provider, provider)
        name = model.lower()
        key = (seller, name)
        if key not in self._entries:
            if len(self._entries) >= MEMO_LIMIT:
                self._entries.clear()
            found = (self._find(seller, spelt) for spelt in self._spellings(seller, name))
            self._entries[key] = next((entry for entry in found if entry is not None), None) or self._tuned(seller, name)
        return self._entries[key]

    def _spellings(self, seller: str, name: str) -> Iterator[str]:
        """The name as it is, then as the catalogue may list it."""
        yield name
        dated = COMPACT_DATE.sub(r"-\1-\2-\3", name)
        if dated != name:
            yield dated
        if seller in self._wrappings:
            bare = self._wrappings[seller].sub("", name, count=1)
            if bare != name:
                yield bare
                name = bare
        spelt = self._known.spellings.get(seller, {}).get(name)
        if spelt is not None:
            yield spelt

    def _find(self, seller_id: str, name: str) -> Entry | None:
        return next((entry for entry in self._listed(seller_id) if entry.matches(name)), None)

    def _tuned(self, seller_id: str, name: str) -> Entry | None:
        """A fine-tune of ours is sold at the price of its base's fine-tunes, which the list names by the base alone."""
        base = FINE_TUNE.match(name)
        return next((entry for entry in self._listed(seller_id) if entry.id == base[0]), None) if base else None

    def _listed(self, seller_id: str) -> Iterator[Entry]:
        """What a seller lists, then what those list whose models it resells."""
        seller = self._sellers.get(seller_id)
        if seller is not None:
            yield from seller.models
            for each in seller.fallbacks:
                if each in self._sellers:
                    yield from self._sellers[each].models


def compile_rates(published: dict[str, Decimal | Tiered]) -> Rates | None:
    """Flat rates from published ones; None if none of them is per token, search or request (hours, pages, pixels)."""
    known = {name: (published[key], unit) for name, (key, unit) in UNITS.items() if key in published}
    if not known:
        return None
    starts = {start for price, _ in known.values() if isinstance(price, Tiered) for start, _ in price.tiers}
    tiers = tuple((start, _flat(known, start)) for start in sorted(starts))
    return structs.replace(_flat(known, -1), tiers=tiers)


def load_catalogue() -> Catalogue:
    """Reads the data packaged beside this module: about half a megabyte."""
    folder = resources.files("llm_gateway.models")
    published = json.decode((folder / "catalogue.json").read_bytes(), type=Published)
    known = json.decode((folder / "aliases.json").read_bytes(), type=Known)
    capabilities = json.decode((folder / "capabilities.json").read_bytes(), type=tuple[Capability, ...])
    schedules = json.decode((folder / "retirements.json").read_bytes(), type=tuple[Schedule, ...])
    return Catalogue(published, known, capabilities, schedules)


def _least(sold: int | None, own: int | None) -> int | None:
    """A seller may give less context than the model can take, but not more."""
    return min(sold, own) if sold is not None and own is not None else sold or own


def _flat(known: dict[str, tuple[Decimal | Tiered, int]], start: int) -> Rates:
    """The rates that hold for prompts just longer than `start`."""
    flat: dict[str, int] = {}
    for name, (price, unit) in known.items():
        chosen = price
        if isinstance(price, Tiered):
            passed = [rate for tier_start, rate in price.tiers if tier_start <= start]
            chosen = passed[-1] if passed else price.base
        if isinstance(chosen, Decimal):
            flat[name] = femto(chosen, unit)
    return convert(flat, Rates)
