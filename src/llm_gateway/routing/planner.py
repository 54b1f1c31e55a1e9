"""From a model's name to its plan: aliases, `provider/model`, names the catalogue knows, the default provider.

Law: everything about a plan that does not change with the request is worked out here, once: who may (residency), who lacks what, how far
they are, whose conditions they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.headers import sendable
from llm_gateway.formats.needs import ABILITIES
from llm_gateway.models.catalogue import Info
from llm_gateway.models.own import Own, Place
from llm_gateway.policies import regions
from llm_gateway.policies.retry import Policy
from llm_gateway.providers.awaiting import Awaiting
from llm_gateway.providers.contract import Account
from llm_gateway.providers.table import sells
from llm_gateway.routing.alias import Alias, Goal
from llm_gateway.routing.choice import CONTEXT
from llm_gateway.routing.condition import Condition, Conditions
from llm_gateway.routing.group import Field
from llm_gateway.routing.plan import Plan, Rule, Shadow
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.target import Seat, Target
from llm_gateway.routing.wishes import astray, stranded
from llm_gateway.telemetry.metrics import Metrics

CHAT = "chat"
STORED = "response"
ESTIMATED = "count"  # for targets that do not do it themselves
NAMED = 5
LEARNING = frozenset({"latency", "throughput", "cost", "adaptive"})


class Vault(Protocol):
    """Opens what a tenant entrusted to the gateway (admission.vault)."""

    def open(self, tenant: str, provider: str, token: str) -> str | None: ...


class Owner(Struct, frozen=True):
    """Whose request it is, where that matters. `secrets`: by provider, sealed."""

    tenant: str
    secrets: tuple[tuple[str, str], ...] = ()


class Planner:
    def __init__(
        self, seats: dict[str, Seat], aliases: dict[str, Alias], own: Own, metrics: Metrics, default: str | None
    ) -> None:
        self.seats = seats
        self.aliases = aliases
        self._own = own
        self._catalogue = own.catalogue
        self._named = frozenset(own.names())
        self._meant = frozenset((goal.provider, goal.model) for alias in aliases.values() for goal in alias.goals())
        self._metrics = metrics
        self._default = default
        self._conditions = Conditions()
        self._here: tuple[str | None, str | None] = (None, None)
        self._policy = Policy()
        self._listed: dict[str, list[str]] = {}  # by provider type, longest first

    def settle(self, conditions: Conditions, here: tuple[str | None, str | None], policy: Policy) -> None:
        """What is known of targets, the region and zone we are in, and the retry policy of who has no other."""
        self._conditions, self._here, self._policy = conditions, here, policy

    def place(self, provider: str, model: str, asked: str) -> Place:
        """By which prices and facts of a model are looked up, asked for by that name."""
        return Place(provider, self.seats[provider].type, model, asked)

    def resolve(self, model: str) -> list[tuple[str, str]]:
        """(provider, model) pairs in order, empty if nobody is known for the name."""
        return [(goal.provider, goal.model) for goal in self._goals(model)]

    def plan(self, model: str, operation: str) -> Plan:
        """Raises Fault NO_MODEL, INVALID, FORBIDDEN."""
        kept = operation == STORED and model in self.seats  # what was stored is an account's, not a model's, nor an alias's of that name
        alias = None if kept else self.aliases.get(model)
        goals = (Goal(model, ""),) if kept else alias.targets if alias is not None else self._goals(model)
        if not goals:
            raise self._unknown(model)
        stops = self._stops(goals, model, operation)
        if alias is None:
            if not stops:
                raise _unable(model, operation)
            return self._sealed(_made(Plan(model, stops)), operation)
        return self._aliased(alias, stops, operation)

    def sees(self, tenant: str, name: str, provider: str) -> bool:
        """Whether there is such a model for this tenant. provider: the first that it leads to."""
        alias, seat = self.aliases.get(name), self.seats.get(provider)
        return not any(each is not None and each.tenants and tenant not in each.tenants for each in (alias, seat))

    def owned(self, plan: Plan, owner: Owner, vault: Vault) -> Plan:
        """What there is of a plan for one tenant, with its own keys where it has some. Raises Fault NO_MODEL where that is nothing."""
        if plan.tenants and owner.tenant not in plan.tenants:
            raise self._unknown(plan.model)

        def own(stops: tuple[Stop, ...]) -> tuple[Stop, ...]:
            return tuple(self._keyed(stop, owner, vault) for stop in stops if self.sees(owner.tenant, "", stop.keys[0].provider))

        stops, fallbacks = own(plan.stops), own(plan.fallbacks)
        if not stops:
            stops, fallbacks = fallbacks[:1], fallbacks[1:]
        if not stops:
            raise self._unknown(plan.model)
        elsewhere = {kind: kept for kind, some in plan.elsewhere.items() if (kept := own(some))}
        shadow = plan.shadow if plan.shadow is None or own((plan.shadow.stop,)) else None
        excluded = tuple(each for each in plan.excluded if self.sees(owner.tenant, "", each[0].keys[0].provider))
        return _made(replace(plan, stops=stops, fallbacks=fallbacks, elsewhere=elsewhere, shadow=shadow, excluded=excluded))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _keyed(self, stop: Stop, owner: Owner, vault: Vault) -> Stop:
        """With the tenant's own key in the place of all of ours, unless the file gives it one. Raises Fault UNAVAILABLE if it cannot be read: ours
        must not stand in."""
        first = stop.keys[0]
        sealed = dict(owner.secrets).get(first.provider)
        if sealed is None or self.seats[first.provider].owned(owner.tenant):
            return stop
        key = vault.open(owner.tenant, first.provider, sealed)
        if key is None or not sendable(key):
            raise Fault(Kind.UNAVAILABLE, "The tenant's own key for this provider cannot be read; entrust it again.", code="secret_unreadable")
        seat = self.seats[first.provider]
        if isinstance(seat.speaker, Awaiting):  # what the gateway waits for is not needed
            seat = replace(seat, speaker=seat.speaker.speaker)
        account = replace(first.account, key=key, key_id=f"own:{owner.tenant}", token=False, mark=b"")
        condition = self._condition(seat, account, first.model)
        target = Target(seat, account, first.place, first.meter, self._own, condition=condition, limits=first.limits)
        return replace(stop, keys=(target,), weights=())

    def _aliased(self, alias: Alias, stops: tuple[Stop, ...], operation: str) -> Plan:
        fallbacks = self._stops(alias.fallbacks, alias.name, operation)
        elsewhere = {
            Kind.CONTEXT_LENGTH: self._stops(alias.context_fallbacks, alias.name, operation),
            Kind.CONTENT_FILTER: self._stops(alias.content_filter_fallbacks, alias.name, operation),
        }
        if not stops and not fallbacks:
            raise _unable(alias.name, operation)
        excluded = [(stop, why) for stop in (*stops, *fallbacks) if (why := astray(stop, alias.residency))]
        stops, fallbacks = _resident(stops, alias), _resident(fallbacks, alias)
        if not stops:
            stops, fallbacks = fallbacks[:1], fallbacks[1:]
        if not stops:
            raise stranded(alias.name, alias.residency)
        plan = Plan(
            alias.name, stops, alias.timeout, fallbacks=fallbacks, strategy=alias.strategy, sticky=alias.sticky,
            weights=alias.weights, rules=tuple(rule for rule in alias.rules if self._is_here(rule)), retries=alias.retries, excluded=tuple(excluded),
            elsewhere={kind: kept for kind, some in elsewhere.items() if (kept := _resident(some, alias))},
            hedge=alias.hedge, shadow=self._shadow(alias, operation),
            cascade=alias.cascade if operation == CHAT else None,  # only of conversations is known whether they will do
            policy=replace(self._policy, max_attempts=alias.attempts) if alias.attempts is not None else None,
            tenants=alias.tenants,
        )  # fmt: skip
        return self._sealed(_made(plan), operation)

    def _is_here(self, rule: Rule) -> bool:
        """Whether a rule is for gateways where this one runs."""
        wanted = rule.when.regions
        return not wanted or (self._here[0] is not None and regions.within(self._here[0], wanted))

    def _shadow(self, alias: Alias, operation: str) -> Shadow | None:
        """None for what its target does not do, and where the data must not go."""
        stops = self._stops((alias.shadow[0],), alias.name, operation) if alias.shadow is not None else ()
        return Shadow(stops[0], alias.shadow[1]) if alias.shadow is not None and stops and not astray(stops[0], alias.residency) else None

    def _goals(self, model: str) -> Sequence[Goal]:
        alias = self.aliases.get(model)
        if alias is not None:
            return (*alias.targets, *alias.fallbacks)
        provider, slash, rest = model.partition("/")
        if slash and rest and provider in self.seats:
            return (Goal(provider, rest),)
        known = self._catalogue.resolve(model)
        if known is not None:
            kind, name = known
            seat = self.seats.get(kind) or next((s for s in self.seats.values() if sells(s.type, kind)), None)
            if seat is not None:
                return (Goal(seat.name, name),)
        return (Goal(self._default, model),) if self._default is not None else ()

    def _stops(self, goals: Sequence[Goal], asked: str, operation: str) -> tuple[Stop, ...]:
        """Those that do the operation at all."""
        stops = (self._stop(goal, asked) for goal in goals)
        return tuple(stop for stop in stops if operation == ESTIMATED or stop.keys[0].forms[operation])

    def _sealed(self, plan: Plan, operation: str) -> Plan:
        """What only one account can read is told apart where there are several."""
        targets = [target for stop in plan.all() for target in stop.keys]
        if operation == STORED or len({(one.provider, one.key_id) for one in targets}) > 1:
            for target in targets:
                target.seals = self.seats[target.provider].seals
        return plan

    def _stop(self, goal: Goal, asked: str) -> Stop:
        seat = self.seats[goal.provider]
        meter = self._metrics.target(goal.provider, self._label(seat, goal.model))
        place = self.place(goal.provider, goal.model, asked)
        info = self._own.info(place)
        alias = self.aliases.get(asked)
        limits = seat.limits.within(alias.attempt, alias.silence, alias.first_chunk) if alias is not None else None
        keys = tuple(
            Target(seat, account, place, meter, self._own, condition=self._condition(seat, account, goal.model), limits=limits)
            for account in seat.accounts
        )
        region = goal.region or seat.region
        spread = info.regions if info is not None and goal.region is None else ()  # a model may run in more places than it is asked in
        where = spread or ((region,) if region else ())
        return Stop(
            keys,
            weight=goal.weight,
            weights=seat.weights if len(set(seat.weights)) > 1 else (),
            lacks=_lacking(info),
            context=info.context if info is not None else None,
            regions=where,
            distance=regions.distance(self._here, (region, goal.zone or seat.zone)),
            mark=f"{goal.provider}/{goal.model}".encode(),
        )

    def _condition(self, seat: Seat, account: Account, model: str) -> Condition:
        key = "" if account.token else account.key
        who = (account.provider, account.key_id, model)
        condition = self._conditions.of(who, (key, account.authority, account.root), seat.terms, seat.bounds)
        limits = [((seat.name,), seat.rate), ((seat.name, account.key_id), seat.rates.get(account.key_id))]
        limits.append((who, seat.models.get(model)))
        condition.named, condition.label = self._known(seat, model), self._label(seat, model)
        rated = [(of, rate) for of, rate in limits if rate is not None]
        lines = self._conditions.lines
        if lines is not None and rated:
            condition.allowances = ()
            condition.line = lines(seat.name, tuple(of for of, _ in rated), tuple(rate for _, rate in rated))
        else:
            condition.allowances = tuple(self._conditions.allowance(of, rate) for of, rate in rated)
            condition.line = None
        return condition

    def _label(self, seat: Seat, model: str) -> str:
        """The model's name in metrics: the configuration's, or that of the catalogue's entry (`gpt-4o` for `gpt-4o-2024-08-06`).
        Clients choose names, so any other is "other"."""
        if self._written(seat, model):
            return model
        name = model.lower()
        return next((listed for listed in self._listing(seat.type) if name.startswith(listed.lower())), "other")

    def _known(self, seat: Seat, model: str) -> bool:
        """Whether the configuration or the catalogue has this very name."""
        return self._written(seat, model) or model in self._listing(seat.type)

    def _written(self, seat: Seat, model: str) -> bool:
        if (seat.name, model) in self._meant or f"{seat.name}/{model}" in self._named:
            return True
        return any(model in account.deployments for account in seat.accounts)

    def _listing(self, kind: str) -> list[str]:
        if kind not in self._listed:
            self._listed[kind] = sorted(self._catalogue.names(kind), key=len, reverse=True)
        return self._listed[kind]

    def _unknown(self, model: str) -> Fault:
        known = self._catalogue.resolve(model)
        shown = model[:100]
        if known is not None:
            hint = f"It belongs to provider type {known[0]!r}, which is not configured here."
        else:
            names = [name for name, each in self.aliases.items() if not each.tenants][:NAMED]
            names = names or [f"{name}/MODEL" for name, each in self.seats.items() if not each.tenants][:NAMED]
            hint = f"Known here are, among others: {', '.join(names)}. See GET /v1/models."
        return Fault(
            Kind.NO_MODEL, f"The model {shown!r} does not exist or is not available to you. {hint}", param="model"
        )


def _unable(model: str, operation: str) -> Fault:
    message = f"The model {model[:100]!r} does not do this: none of its providers offers {operation}."
    return Fault(Kind.INVALID, message, param="model")


def _resident(stops: tuple[Stop, ...], alias: Alias) -> tuple[Stop, ...]:
    return tuple(stop for stop in stops if not astray(stop, alias.residency))


def _lacking(info: Info | None) -> frozenset[str]:
    """Abilities a model is known not to have; of what nobody says anything, it may have all."""
    if info is None:
        return frozenset()
    media = ABILITIES[:4] if info.input else ()
    lacking = {name for name in media if name not in info.input}
    if info.tools is False:
        lacking.add("tools")
    if info.schema is False:
        lacking.add("schema")
    return frozenset(lacking)


def _made(plan: Plan) -> Plan:
    """With what choosing among its targets has to look at."""
    some = (*plan.stops, *plan.fallbacks)
    lacks = [stop.lacks for stop in some]
    checks = frozenset().union(*lacks) - frozenset.intersection(*lacks)  # what all lack is no reason to choose
    if len({stop.context for stop in some}) > 1:
        checks |= {CONTEXT}
    conditions = [key.condition for stop in plan.all() for key in stop.keys]
    single = all(len(stop.keys) == 1 for stop in some)
    near = plan.strategy != "priority"
    settled = single and not checks and (len(some) == 1 or not near)
    return replace(
        plan,
        checks=checks,
        only=[stop.keys[0] for stop in some] if settled else None,
        field=None if settled else Field(plan.stops, plan.fallbacks, plan.strategy, plan.weights, near=near),
        measured=plan.strategy in LEARNING or plan.hedge is not None,
        limited=any(each.gradient is not None or each.allowances or each.line is not None for each in conditions),
    )
