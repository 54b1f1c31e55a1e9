"""What the configuration says of models, over the catalogue: prices, and facts of models that nobody publishes.

Law: the narrowest name wins, rate by rate and fact by fact: `provider/model`, then the name it was asked for by (an alias),
then the model's bare name, then the catalogue. What nobody says stays None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct, structs

from llm_gateway.models.catalogue import Catalogue, Facts, Info
from llm_gateway.models.prices import Rates, override

Said = TypeVar("Said")
_NO_PRICES: Mapping[str, Mapping[str, float]] = {}
_NO_FACTS: Mapping[str, Facts] = {}


class Place(Struct, frozen=True):
    """Where a name leads. `provider`: as configured; `asked`: the name a client uses, the model's own or an alias."""

    provider: str
    type: str
    model: str
    asked: str

    def names(self) -> tuple[str, str, str]:
        """What the configuration may call it, the widest first."""
        return self.model, self.asked, f"{self.provider}/{self.model}"


class Own:
    """`prices`: by field of Rates, in USD as `override` takes them."""

    def __init__(
        self,
        catalogue: Catalogue,
        prices: Mapping[str, Mapping[str, float]] = _NO_PRICES,
        facts: Mapping[str, Facts] = _NO_FACTS,
    ) -> None:
        self.catalogue = catalogue
        self._prices = prices
        self._facts = facts

    def names(self) -> list[str]:
        """Every name the configuration says something of, in its order."""
        return list(dict.fromkeys((*self._facts, *self._prices)))

    def rates(self, place: Place, now: float, tier: str | None = None) -> Rates | None:
        """At `now` (Unix seconds), for the service tier the reply names; an own price holds for every tier. None: unpriced."""
        published = self.catalogue.price(place.type, place.model, now, tier)
        return override(published, {name: price for said in _of(self._prices, place) for name, price in said.items()})

    def source(self, place: Place) -> str:
        """Whose prices those are: `config` as soon as one rate is the operator's own, else the catalogue's package and version."""
        return "config" if _of(self._prices, place) else self.catalogue.source

    def info(self, place: Place) -> Info | None:
        """None if neither catalogue nor configuration knows it."""
        published = self.catalogue.info(place.type, place.model)
        said = [structs.asdict(each) for each in _of(self._facts, place)]
        if not said:
            return published or (Info(id=place.model) if any(_of(self._prices, place)) else None)
        own: dict[str, Any] = {name: value for each in said for name, value in each.items() if value is not None}
        return structs.replace(published or Info(id=place.model), **own)


def _of(section: Mapping[str, Said], place: Place) -> list[Said]:
    return [section[name] for name in place.names() if name in section]
