"""A request's own wishes, as OpenRouter's clients write them: `models` and `provider` beside `model`. Honoured, then stripped.

    "models": ["a", "b"]                    tried in order after `model`
    "provider": {"order": ["azure"], "only": [...], "ignore": [...], "sort": "price" | "latency" | "throughput",
                 "max_price": {"prompt": 1, "completion": 2}, "allow_fallbacks": false, "region": "eu" | ["eu", "us"]}

Law: wishes narrow and order what the configuration and the caller's key allow; they never add a provider. Prices are USD per million
tokens. What we do not know of them is reported as dropped. Source: openrouter.ai's pages "Provider Routing" and "Model Routing".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from llm_gateway.core.errors import Fault, Kind

MOST_MODELS = 8
MOST_NAMES = 64
LONGEST = 256  # letters of a name; plans made for wishes are kept, and clients write these
_KNOWN = frozenset({"order", "only", "ignore", "sort", "max_price", "allow_fallbacks", "region"})
_OBJECT = "an object of routing options"
_STRATEGIES = {"price": "cost", "latency": "latency", "throughput": "throughput"}


class MaxPrice(Struct, frozen=True):
    prompt: float | None = None
    completion: float | None = None


class _Sort(Struct, frozen=True):
    by: Literal["price", "latency", "throughput"]


class _Provider(Struct, frozen=True):
    order: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    sort: Literal["price", "latency", "throughput"] | _Sort | None = None
    max_price: MaxPrice | None = None
    allow_fallbacks: bool | None = None
    region: str | tuple[str, ...] | None = None


class Options(Struct, frozen=True):
    """`strategy` "": the plan's own."""

    models: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    strategy: str = ""
    max_prompt: float | None = None
    max_completion: float | None = None
    fallbacks: bool = True
    regions: tuple[str, ...] = ()

    @property
    def letters(self) -> int:
        """Of all its names."""
        return sum(map(len, (*self.models, *self.order, *self.only, *self.ignore, *self.regions)))


NONE = Options()
Said = TypeVar("Said")

_models = msgspec.json.Decoder(tuple[str, ...]).decode
_provider = msgspec.json.Decoder(_Provider).decode
_names = msgspec.json.Decoder(dict[str, Raw]).decode


def take(members: dict[str, Raw]) -> tuple[Options, tuple[str, ...]]:
    """The wishes, taken out of a body's members, and the dotted names of those that nobody here honours. Raises Fault INVALID."""
    models, provider = members.pop("models", None), members.pop("provider", None)
    asked = _read(_models, models, "models", "an array of model names") if models is not None and bytes(models) != b"null" else ()
    if len(asked) > MOST_MODELS:
        raise Fault(Kind.INVALID, f"'models' may name at most {MOST_MODELS} models.", param="models")
    _bounded("models", asked)
    if provider is None or bytes(provider) == b"null":
        return Options(models=asked), ()
    said = _read(_provider, provider, "provider", _OBJECT)
    names = _read(_names, provider, "provider", _OBJECT)
    unknown = tuple(f"provider.{name[:LONGEST]}" for name in names if name not in _KNOWN)[:MOST_NAMES]
    sort = said.sort.by if isinstance(said.sort, _Sort) else said.sort
    price = said.max_price or MaxPrice()
    region = said.region or ()
    regions = (region,) if isinstance(region, str) else region
    for name, values in (("order", said.order), ("only", said.only), ("ignore", said.ignore), ("region", regions)):
        _bounded(f"provider.{name}", values or ())
    return Options(
        models=asked,
        order=said.order or (),
        only=frozenset(said.only or ()),
        ignore=frozenset(said.ignore or ()),
        strategy=_STRATEGIES[sort] if sort else "",
        max_prompt=price.prompt,
        max_completion=price.completion,
        fallbacks=said.allow_fallbacks is not False,
        regions=regions,
    ), unknown


def _bounded(param: str, names: tuple[str, ...]) -> None:
    if len(names) > MOST_NAMES or any(len(name) > LONGEST for name in names):
        raise Fault(Kind.INVALID, f"'{param}' may have at most {MOST_NAMES} names of at most {LONGEST} letters.", param=param)


def _read(decode: Callable[[Raw], Said], raw: Raw, param: str, expected: str) -> Said:
    try:
        return decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        where = str(error).partition("at `$.")[2].rstrip("`")
        raise Fault(Kind.INVALID, f"'{param}' must be {expected}: {str(error)[:LONGEST]}.", param=f"{param}.{where}" if where else param) from None
    except RecursionError:  # less of the stack is left than when the whole body was read
        raise Fault(Kind.INVALID, f"'{param}' is nested too deeply.", param=param) from None
