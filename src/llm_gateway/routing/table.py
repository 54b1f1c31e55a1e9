"""From a model's name to its plan: aliases, `provider/model`, names the catalogue knows, the default provider.

Built whole from one configuration and then only read, but for plans made on demand and kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Pin
from llm_gateway.models.own import Own, Place
from llm_gateway.policies.retry import Policy
from llm_gateway.providers.contract import OPERATIONS
from llm_gateway.providers.table import sells
from llm_gateway.routing.plan import Course, Plan, Stop, Tally
from llm_gateway.routing.target import Seat, Target
from llm_gateway.telemetry.metrics import Metrics

MOST_PLANS = 4096
STORED = "response"
ESTIMATED = "count"  # for targets that do not do it themselves
NAMED = 5


class Alias(Struct, frozen=True):
    """`targets`, `fallbacks`: (provider name, model)."""

    name: str
    targets: tuple[tuple[str, str], ...]
    fallbacks: tuple[tuple[str, str], ...] = ()
    first_chunk: float | None = None
    timeout: float | None = None


class Table:
    def __init__(
        self,
        seats: Iterable[Seat],
        aliases: Iterable[Alias],
        own: Own,
        metrics: Metrics,
        *,
        policy: Policy,
        default: str | None = None,
    ) -> None:
        self.seats = {seat.name: seat for seat in seats}
        self.aliases = {alias.name: alias for alias in aliases}
        self.catalogue = own.catalogue
        self.own = own
        self._named = frozenset(own.names())
        self.tally = Tally()
        self._metrics = metrics
        self._policy = policy
        self._default = default
        self._plans: dict[str, dict[str, Plan]] = {operation: {} for operation in OPERATIONS}
        self._turn = 0
        self._listed: dict[str, list[str]] = {}  # by provider type, longest first

    def course(self, model: str, operation: str = "chat", pin: Pin | None = None) -> tuple[Plan, Course]:
        """The plan for a model and a fresh walk along it. Raises Fault NO_MODEL, INVALID, and NOT_FOUND for a pin elsewhere."""
        plans = self._plans[operation]
        plan = plans.get(model)
        if plan is None:
            plan = self._plan(model, operation)
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[model] = plan
        self._turn += 1
        targets = plan.only or plan.targets(self._turn)
        if pin is not None:
            targets = _pinned(targets, pin)
        self.tally.active += 1
        return plan, Course(targets, self._policy, self.tally, targets[0])

    def place(self, provider: str, model: str, asked: str) -> Place:
        """By which prices and facts of a model are looked up, asked for by that name."""
        return Place(provider, self.seats[provider].type, model, asked)

    def resolve(self, model: str) -> list[tuple[str, str]]:
        """(provider, model) pairs in order, empty if nobody is known for the name."""
        alias = self.aliases.get(model)
        if alias is not None:
            return [*alias.targets, *alias.fallbacks]
        provider, slash, rest = model.partition("/")
        if slash and rest and provider in self.seats:
            return [(provider, rest)]
        known = self.catalogue.resolve(model)
        if known is not None:
            kind, name = known
            seat = self.seats.get(kind) or next((s for s in self.seats.values() if sells(s.type, kind)), None)
            if seat is not None:
                return [(seat.name, name)]
        return [(self._default, model)] if self._default is not None else []

    def _plan(self, model: str, operation: str) -> Plan:
        alias = self.aliases.get(model)
        places = self.resolve(model)
        if operation == STORED and model in self.seats:  # what was stored is an account's, not a model's
            places = [(model, "")]
        if not places:
            raise self._unknown(model)
        able = [targets for targets in (self._targets(*place, asked=model) for place in places) if operation == ESTIMATED or targets[0].forms[operation]]
        if not able:
            raise Fault(
                Kind.INVALID, f"The model {model[:100]!r} does not do this: none of its providers offers {operation}.", param="model"
            )
        stops = tuple(map(Stop, able))
        if operation == STORED or len({(one.provider, one.key_id) for targets in able for one in targets}) > 1:
            for target in (one for targets in able for one in targets):
                target.seals = self.seats[target.provider].seals
        only = list(stops[0].keys) if len(stops) == 1 and len(stops[0].keys) == 1 else None
        if alias is None:
            return Plan(model, stops, only=only)
        return Plan(model, stops, alias.first_chunk, alias.timeout, only)

    def _targets(self, provider: str, model: str, asked: str) -> tuple[Target, ...]:
        seat = self.seats[provider]
        meter = self._metrics.target(provider, self._label(seat, model))
        place = self.place(provider, model, asked)
        return tuple(Target(seat, account, place, meter, self.own) for account in seat.accounts)

    def _label(self, seat: Seat, model: str) -> str:
        """The model's name in metrics: the configuration's, or that of the catalogue's entry (`gpt-4o` for `gpt-4o-2024-08-06`).
        Clients choose names, so any other is "other"."""
        if any((seat.name, model) in (*alias.targets, *alias.fallbacks) for alias in self.aliases.values()):
            return model
        if f"{seat.name}/{model}" in self._named or any(model in account.deployments for account in seat.accounts):
            return model
        if seat.type not in self._listed:
            self._listed[seat.type] = sorted(self.catalogue.names(seat.type), key=len, reverse=True)
        name = model.lower()
        return next((listed for listed in self._listed[seat.type] if name.startswith(listed.lower())), "other")

    def _unknown(self, model: str) -> Fault:
        known = self.catalogue.resolve(model)
        shown = model[:100]
        if known is not None:
            hint = f"It belongs to provider type {known[0]!r}, which is not configured here."
        else:
            names = [*self.aliases][:NAMED] or [f"{name}/MODEL" for name in self.seats][:NAMED]
            hint = f"Known here are, among others: {', '.join(names)}. See GET /v1/models."
        return Fault(
            Kind.NO_MODEL, f"The model {shown!r} does not exist or is not available to you. {hint}", param="model"
        )


def _pinned(targets: list[Target], pin: Pin) -> list[Target]:
    """Those of the account that made what the request refers to. Raises Fault NOT_FOUND. Where it only sealed thoughts, it goes
    first and the others stay: they answer without."""
    if pin.mark:
        return sorted(targets, key=lambda target: target.account.mark != pin.mark)
    own = [target for target in targets if (target.provider, target.key_id) == (pin.provider, pin.key_id)]
    if not own:
        raise Fault(
            Kind.NOT_FOUND,
            "What this request refers to was made by another model's provider or account; send its content instead.",
            param=pin.param,
        )
    return own
