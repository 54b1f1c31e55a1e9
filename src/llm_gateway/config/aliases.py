"""What each alias leads to: targets and fallbacks, followed to the end.

Law: names in, names out. A fallback that is an alias stands for its targets and then its own fallbacks; a circle is an
error. Where a provider is configured but left out, its targets are dropped with a warning; where it is unknown, that is
an error. A bare name is looked up in the catalogue, and dropped with a warning if nobody here sells it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_gateway.config import schema_routing as schema
from llm_gateway.config.load import Loaded
from llm_gateway.config.problems import Path, Problem, dotted, nearest, place
from llm_gateway.config.schema_cache import AliasCache, Cache
from llm_gateway.config.snapshot import Alias, Caching, Cascade, Hedge, Rule, Shadow, Target
from llm_gateway.config.upstreams import Upstreams
from llm_gateway.config.values import parse_seconds
from llm_gateway.providers.table import sells

Lookup = Callable[[str], tuple[str, str] | None]


class Resolver:
    """`lookup`: the catalogue's resolve, (provider type, model) of a well-known name."""

    def __init__(self, loaded: Loaded, upstreams: Upstreams, lookup: Lookup) -> None:
        self._loaded = loaded
        self._aliases = loaded.root.models
        self._lookup = lookup
        self._left_out = upstreams.left_out
        self._by_name = {provider.name: provider for provider in upstreams.providers}
        said = loaded.data.get("providers")
        said = said if isinstance(said, dict) else {}
        # A broken section is complained about once, not by every alias that names it.
        self._named = {*self._by_name, *self._left_out, *said}
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def all(self) -> tuple[Alias, ...]:
        resolved = (self._alias(name, alias) for name, alias in self._aliases.items())
        return tuple(alias for alias in resolved if alias is not None)

    def _alias(self, name: str, alias: schema.Alias) -> Alias | None:
        targets = self._targets(name, alias, complain=True)
        fallbacks = self._list(name, "fallbacks", without=targets)
        if not targets:
            targets, fallbacks = fallbacks, []
        if not targets:
            self.warnings.append(f"model {name} is left out: none of its targets can be called")
            return None
        weights = alias.weights
        return Alias(
            name=name,
            strategy=alias.strategy,
            targets=tuple(targets),
            fallbacks=tuple(fallbacks),
            context_fallbacks=tuple(self._list(name, "context_fallbacks")),
            content_filter_fallbacks=tuple(self._list(name, "content_filter_fallbacks")),
            first_chunk=alias.timeout.first_chunk,
            timeout=alias.timeout.total,
            sticky=alias.sticky,
            weights=(weights.latency, weights.cost, weights.errors),
            residency=alias.residency,
            rules=self._rules(name, alias),
            attempts=alias.retry.max_attempts,
            retries=alias.retry.max_retries,
            silence=alias.timeout.silence,
            attempt=alias.timeout.attempt,
            hedge=_hedge(alias.hedge),
            shadow=self._shadow(name, alias.shadow),
            cascade=_cascade(alias.cascade),
            cache=_caching(self._loaded.root.cache, alias.cache),
            tenants=alias.tenants,
        )

    def _shadow(self, name: str, said: schema.Shadow | None) -> Shadow | None:
        target = self._target(said.target, ("models", name, "shadow", "target"), complain=True) if said is not None else None
        return Shadow(target, said.share) if said is not None and target is not None else None

    def _list(self, name: str, option: str, without: Sequence[Target] = ()) -> list[Target]:
        """A list of fallbacks, resolved; each target once."""
        places = {(each.provider, each.model) for each in without}
        found = []
        for target in self._fallbacks(name, (name,), option, complain=True):
            if (target.provider, target.model) not in places:
                places.add((target.provider, target.model))
                found.append(target)
        return found

    def _rules(self, name: str, alias: schema.Alias) -> tuple[Rule, ...]:
        """Rules lead to other aliases, one step: the rules of those are not asked."""
        made = []
        for position, rule in enumerate(alias.rules):
            if rule.use not in self._aliases or rule.use == name:
                hint = nearest(rule.use, self._aliases)
                why = "is this alias itself" if rule.use == name else f"`{rule.use}` is no alias"
                self._complain(("models", name, "rules", position, "use"), why, hint)
                continue
            said = rule.when
            when = {name: getattr(said, name) for name in ("tags", "tenants", "keys", "needs", "stream", "regions")}
            made.append(Rule(use=rule.use, over=said.prompt_over, under=said.prompt_under, **when))
        return tuple(made)

    def _targets(self, name: str, alias: schema.Alias, *, complain: bool) -> list[Target]:
        found = []
        for position, each in enumerate(alias.targets):
            target = self._target(each.target, ("models", name, "targets", position), complain=complain)
            if target is not None:
                found.append(Target(target.provider, target.model, each.weight, each.region, each.zone))
        return found

    def _fallbacks(self, name: str, trail: tuple[str, ...], option: str = "fallbacks", *, complain: bool) -> list[Target]:
        """`trail`: the aliases that led here. Only the alias that wrote something is told about it."""
        found: list[Target] = []
        for position, fallback in enumerate(getattr(self._aliases[name], option)):
            path: Path = ("models", name, option, position)
            if fallback in trail:
                if fallback == trail[0] and complain:
                    self._complain(path, f"goes in a circle: {' -> '.join((*trail, fallback))}")
                elif fallback == trail[0]:
                    self._complain(
                        ("models", trail[0], option), f"go in a circle: {' -> '.join((*trail, fallback))}"
                    )
            elif fallback in self._aliases:
                found += self._targets(fallback, self._aliases[fallback], complain=False)
                found += self._fallbacks(fallback, (*trail, fallback), complain=False)
            else:
                target = self._outside(fallback, path, complain=complain)
                found += [target] if target is not None else []
        return found

    def _outside(self, fallback: str, path: Path, *, complain: bool) -> Target | None:
        """A fallback that is no alias: `provider/model`, or a well-known name."""
        if "/" in fallback:
            return self._target(fallback, path, complain=complain)
        known = self._lookup(fallback)
        if known is None:
            if complain:
                self._complain(path, f"`{fallback}` is no alias and no known model", nearest(fallback, self._aliases))
            return None
        kind, model = known
        for provider in self._by_name.values():
            if kind == provider.name or sells(provider.type, kind):
                return Target(provider.name, model)
        if complain:
            self._warn(path, f"`{fallback}` is dropped: it is {kind}/{model}, and no such provider can be called")
        return None

    def _target(self, text: str, path: Path, *, complain: bool) -> Target | None:
        provider, _, model = text.partition("/")
        if provider in self._by_name:
            return Target(provider, model)
        if not complain:
            return None
        if provider in self._left_out:
            self._warn(path, f"`{text}` is dropped: provider {provider} {self._left_out[provider]}")
        elif provider not in self._named:
            self._complain(path, f"there is no provider `{provider}`", nearest(provider, self._named))
        return None

    def _complain(self, path: Path, message: str, hint: str = "") -> None:
        self.problems.append(Problem(place(path, self._loaded.where), dotted(path), message, hint))

    def _warn(self, path: Path, message: str) -> None:
        self.warnings.append(f"{place(path, self._loaded.where)}: {message}")


def _hedge(said: schema.Hedge | None) -> Hedge | None:
    if said is None:
        return None
    if said.after.startswith("p"):
        return Hedge(None, int(said.after[1:]) / 100, said.budget)
    return Hedge(parse_seconds(said.after), budget=said.budget)


def _caching(everybody: Cache, own: AliasCache) -> Caching | None:
    """None where the alias says nothing of its own."""
    if own == AliasCache():
        return None
    return Caching(
        everybody.enabled if own.enabled is None else own.enabled,
        everybody.ttl_seconds if own.ttl is None else own.ttl,
        everybody.sampling if own.sampling is None else own.sampling,
        everybody.ignore if own.ignore is None else own.ignore,
    )


def _cascade(said: schema.Cascade | None) -> Cascade | None:
    return Cascade(said.finish, said.output_under, said.matches, said.invalid_json) if said is not None else None
