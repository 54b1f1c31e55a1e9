"""Writes src/llm_gateway/models/catalogue.json from the pinned genai-prices package: what models cost and how much they read.

Law: a dump, not an opinion. Rates are copied as given (USD per the unit in their name); what we believe beyond that
(aliases, capabilities) is kept by hand in the files beside it. Run after raising the pin: `python scripts/catalogue.py`.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import data, types

TARGET = Path(__file__).parent.parent / "src/llm_gateway/models/catalogue.json"

Json = dict[str, Any]


def number(value: Decimal) -> Any:
    """A JSON number that reads back as the same Decimal: rates have few digits, which the check makes sure of."""
    plain = int(value) if value == value.to_integral_value() else float(value)
    if Decimal(repr(plain)) != value:
        message = f"{value} does not survive as a JSON number"
        raise ValueError(message)
    return plain


def price(value: Decimal | types.TieredPrices) -> Any:
    if isinstance(value, types.TieredPrices):
        return {"base": number(value.base), "tiers": [[tier.start, number(tier.price)] for tier in value.tiers]}
    return number(value)


def rates(prices: types.ModelPrice) -> Json:
    return {key: price(value) for key, value in vars(prices).items() if value is not None}


def period(constraint: types.StartDateConstraint | types.TimeOfDateConstraint | None) -> Json:
    """When a price holds: `since` in Unix seconds, or `daily` in seconds of the UTC day (end before start: over midnight)."""
    if constraint is None:
        return {}
    if isinstance(constraint, types.StartDateConstraint):
        day = constraint.start_date
        return {"since": int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())}
    ends = (constraint.start_time, constraint.end_time)
    return {"daily": [end.hour * 3600 + end.minute * 60 + end.second for end in ends]}


def clause(match: Any) -> Json:
    if isinstance(match, types.ClauseOr):
        return {"any": [clause(each) for each in match.or_]}
    if isinstance(match, types.ClauseAnd):
        return {"all": [clause(each) for each in match.and_]}
    if isinstance(match, types.ClauseRegex):
        return {"regex": match.regex}
    for kind, cls in (
        ("starts", types.ClauseStartsWith),
        ("ends", types.ClauseEndsWith),
        ("contains", types.ClauseContains),
        ("equals", types.ClauseEquals),
    ):
        if isinstance(match, cls):
            return {kind: next(iter(vars(match).values())).lower()}
    raise TypeError(match)


def model(entry: types.ModelInfo) -> Json:
    alternatives = entry.match.or_ if isinstance(entry.match, types.ClauseOr) else [entry.match]
    names = [each.equals.lower() for each in alternatives if isinstance(each, types.ClauseEquals)]
    patterns = [clause(each) for each in alternatives if not isinstance(each, types.ClauseEquals)]
    conditional = entry.prices if isinstance(entry.prices, list) else [types.ConditionalPrice(prices=entry.prices)]
    out: Json = {"id": entry.id, "names": names}
    if patterns:
        out["patterns"] = patterns
    if entry.context_window is not None:
        out["context"] = entry.context_window
    if entry.deprecated:
        out["deprecated"] = True
    out["prices"] = [{**period(each.constraint), "rates": rates(each.prices)} for each in conditional]
    if entry.price_variants:
        out["variants"] = [
            {**period(each.constraint), "when": each.when, "rates": rates(each.prices)} for each in entry.price_variants
        ]
    return out


def provider(entry: types.Provider) -> str:
    head = json.dumps({"id": entry.id, "name": entry.name, "fallbacks": entry.fallback_model_providers or []})
    lines = ",\n".join(json.dumps(model(each), ensure_ascii=False, separators=(",", ":")) for each in entry.models)
    return f'{head[:-1]}, "models": [\n{lines}\n]}}'


def checked() -> str:
    """The newest day on which the data says a price was looked at: the package itself carries no date."""
    notes = [entry.price_comments or "" for entry in data.providers]
    notes += [each.price_comments or "" for entry in data.providers for each in entry.models]
    stated = r"(?:verified|checked|as of) (?:on )?(20\d\d-[01]\d-[0-3]\d)"
    return max(day for note in notes for day in re.findall(stated, note))


def main(target: Path) -> None:
    head = json.dumps({"source": "genai-prices", "version": version("genai-prices"), "date": checked()})
    providers = ",\n".join(provider(each) for each in data.providers)
    target.write_text(f'{head[:-1]}, "providers": [\n{providers}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
