"""From a request to its course: rules, the plan of its model, its caller's wishes, then one order of targets.

Built whole from one configuration and then only read, but for plans made on demand and kept. What is known of targets (`Conditions`)
outlives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter

from msgspec.structs import replace

from llm_gateway.core.changes import Change
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Exchange, Pin, Principal
from llm_gateway.models.own import Own
from llm_gateway.policies.retry import Policy
from llm_gateway.providers.contract import OPERATIONS
from llm_gateway.routing import ask, choice, options, wishes
from llm_gateway.routing.alias import Alias
from llm_gateway.routing.condition import Conditions
from llm_gateway.routing.plan import Course, Plan, Tally
from llm_gateway.routing.planner import Owner, Planner, Vault
from llm_gateway.routing.queue import Patience, Queue
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.target import Seat, Target
from llm_gateway.telemetry.metrics import Metrics, escape

MOST_PLANS = 4096
MOST_CALLERS = 4096
LONGEST_WISH = 1000  # letters of names in one whose plan is kept
HIT_WEIGHT = 1 / 8
CHAT = "chat"


class Table:
    """`residency`: by tenant ("" for all others), where its requests may be answered."""

    def __init__(
        self,
        seats: Iterable[Seat],
        aliases: Iterable[Alias],
        own: Own,
        metrics: Metrics,
        *,
        policy: Policy,
        default: str | None = None,
        conditions: Conditions | None = None,
        here: tuple[str | None, str | None] = (None, None),
        residency: Mapping[str, tuple[str, ...]] | None = None,
        queue: Queue | None = None,
        vault: Vault | None = None,
    ) -> None:
        self.queue = queue if queue is not None else Queue(Patience())
        self.conditions = conditions if conditions is not None else Conditions()
        self.planner = Planner({seat.name: seat for seat in seats}, {alias.name: alias for alias in aliases}, own, metrics, default)
        self.planner.settle(self.conditions, here, policy)
        self.seats = self.planner.seats
        self.aliases = self.planner.aliases
        self.catalogue = own.catalogue
        self.own = own
        self.tally = Tally()
        self.resolve = self.planner.resolve
        self.place = self.planner.place
        self.sees = self.planner.sees
        self._policy = policy
        self._vault = vault
        self._private = any(seat.tenants for seat in self.planner.seats.values()) or any(alias.tenants for alias in self.planner.aliases.values())
        self._residency = residency or {}
        self._plans: dict[str, dict[str, Plan]] = {operation: {} for operation in OPERATIONS}
        self._wished: dict[tuple[object, ...], Plan] = {}
        self._hits: dict[str, float] = {}
        self._forgotten = self.conditions.forgotten
        self._turn = 0
        self.active: dict[str, tuple[bool, float | None]] = {}

    def hear(self, changes: list[Change]) -> None:
        """What other workers found out, and the operator's probes."""
        now = perf_counter()
        for change in changes:
            self.conditions.hear(change, now)

    def probed(self, providers: dict[str, tuple[bool, float | None]]) -> None:
        """What the operator's probes found, by provider, for /health."""
        self.active = providers

    def course(self, x: Exchange) -> tuple[Plan, Course]:
        """The plan for a request and a fresh walk along it. Raises Fault NO_MODEL, INVALID, NOT_FOUND for a pin elsewhere, FORBIDDEN
        where nobody may, UNAVAILABLE, UPSTREAM_RATE_LIMIT or UPSTREAM_AUTH where nobody can be asked now."""
        plan = self._plans[x.route.operation].get(x.model) or self.plan(x.model, x.route.operation)
        members = x.peek.members
        principal = x.principal
        if (
            plan.rules or self._residency or self._private or "models" in members or "provider" in members
            or (principal is not None and (principal.regions or principal.secrets))
        ):  # fmt: skip
            plan = self._narrowed(plan, x)
        self._turn += 1
        targets = plan.only
        if targets is None:
            hit = self._hits.get(principal.key, 0.0) if plan.measured and principal is not None else 0.0
            targets = choice.order(plan, x, self._turn, hit)
        elsewhere = plan.elsewhere
        if x.pin is not None:
            targets, elsewhere = _pinned(targets, x.pin), _known(elsewhere, x.pin)
        course = Course(targets, plan.policy or self._policy, self.tally, targets[0], retries=plan.retries, elsewhere=elsewhere)
        if plan.limited:
            course.limited = True
            course.tokens = ask.size(x) + ask.output(x, targets[0].condition.meter.output.value)
        if plan.limited or targets[0].condition.until:
            self._enter(course)
        self.tally.active += 1
        return plan, course

    async def secure(self, x: Exchange, course: Course) -> None:
        """Where `course.asks`: room as all workers count it; waits for some where nothing was tried yet and waiting is worth it. Raises
        what `Course.secure` raises."""
        try:
            await course.secure()
        except Fault as fault:
            if course.why is not None or not self.queue.takes(fault):
                raise
            await self.queue.wait(x, course)
        x.fallbacks = course.fallbacks

    def chosen(self, x: Exchange) -> tuple[Plan, str | None]:
        """The plan a request would go by, and the alias that a rule sent it to; takes nothing out of it. Raises what `course` raises."""
        plan = self.plan(x.model, x.route.operation)
        members, principal = x.peek.members, x.principal
        if not (
            plan.rules or self._residency or self._private or "models" in members or "provider" in members
            or (principal is not None and (principal.regions or principal.secrets))
        ):  # fmt: skip
            return plan, None
        said = {name: members[name] for name in ("models", "provider") if name in members}
        narrowed = self._narrowed(plan, x)
        members.update(said)  # it was only asked: they are for whoever sends it
        return narrowed, narrowed.model if narrowed.model != plan.model else None

    def ordered(self, plan: Plan, x: Exchange) -> list[Target]:
        hit = self._hits.get(x.principal.key, 0.0) if x.principal is not None else 0.0
        targets = choice.order(plan, x, self._turn, hit)
        return targets if x.pin is None else _pinned(targets, x.pin)

    def plan(self, model: str, operation: str = CHAT) -> Plan:
        """Of a model's name, as made before. Raises Fault NO_MODEL, INVALID."""
        plans = self._plans[operation]
        plan = plans.get(model)
        if plan is None:
            plan = self.planner.plan(model, operation)
            if self.conditions.forgotten != self._forgotten:
                self._renew()
                plan = self.planner.plan(model, operation)
            if len(plans) >= MOST_PLANS:
                plans.clear()
            plans[model] = plan
        return plan

    def learn(self, x: Exchange, course: Course) -> None:
        """What a request took, where later choices depend on it: its times, its tokens, and how much of its caller's prompt a cache
        had."""
        usage, target = x.usage, course.target
        if course.taken and usage is not None:
            target.condition.correct(usage.input + usage.output - course.taken)
            course.taken = 0
        if len(self.queue):
            self.queue.poke()
        first = x.first_byte - x.upstream_started if x.first_byte else None
        target.condition.measured(perf_counter(), first, x.upstream_ms / 1e3, usage.output if usage is not None else 0)
        if usage is None or not usage.input or x.principal is None:
            return
        caller = x.principal.key
        if caller not in self._hits and len(self._hits) >= MOST_CALLERS:
            self._hits.clear()
        share = min(1.0, usage.cache_read / usage.input)
        known = self._hits.get(caller, share)
        self._hits[caller] = known + HIT_WEIGHT * (share - known)

    def gauges(self) -> dict[str, dict[str, float]]:
        """For /metrics, once a second."""
        held: dict[str, float] = {}
        now = perf_counter()
        for each in self.conditions.all():
            for reason in each.held(now) if each.until else ():
                labels = f'provider="{escape(each.provider)}",model="{escape(each.label)}",key="{escape(each.key)}",by="{reason}"'
                held[labels] = held.get(labels, 0) + 1
        waiting = {"llm_gateway_queue_depth": {"": float(len(self.queue))}, "llm_gateway_queue_refused_total": {"": float(self.queue.refused)}}
        return {"llm_gateway_target_held": held, **waiting}

    # -- inside ------------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """No plan keeps a condition that was dropped and that nothing would be told of."""
        self._forgotten = self.conditions.forgotten
        self._wished.clear()
        for plans in self._plans.values():
            plans.clear()

    def _enter(self, course: Course) -> None:
        try:
            course.enter()
        except Fault as fault:
            if not self.queue.takes(fault):
                raise
            course.waits = True

    def _narrowed(self, plan: Plan, x: Exchange) -> Plan:
        """By the alias's rules, by what the caller wishes, by where its data may be."""
        operation, owner = x.route.operation, self._owner(x.principal)
        if owner is not None and plan.tenants:
            plan = self._owned(plan, owner)  # who may not have the alias must not come by its rules either
        if plan.rules:
            said = ask.tags(x)
            use = next((rule.use for rule in plan.rules if choice.matches(rule.when, x, said)), None)
            if use is not None:
                plan = self.plan(use, operation)
        members = x.peek.members
        wish = options.NONE
        if operation == CHAT and ("models" in members or "provider" in members):
            wish, unknown = options.take(members)
            x.unheard = (*x.unheard, *unknown)
        residency = self._residency.get(x.principal.tenant if x.principal is not None else "", self._residency.get("", ()))
        regions = tuple(sorted(x.principal.regions)) if x.principal is not None else ()
        if wish is options.NONE and not residency and not regions and owner is None:
            return plan
        priced = wish.max_prompt is not None or wish.max_completion is not None
        hour = int(x.wall // 3600) if priced else 0  # prices change by date, some by hour
        key = (plan.model, operation, wish, residency, regions, owner, x.principal.models if x.principal is not None else (), hour)
        narrowed = self._wished.get(key)
        if narrowed is None:
            more = [self.plan(name, operation) for name in wish.models if wishes.may(x.principal, name) and self._there(owner, name)]
            narrowed = wishes.narrowed(wishes.joined(plan, more), wish, residency, x.wall)
            if regions:
                narrowed = wishes.narrowed(narrowed, options.NONE, regions, x.wall)
            if owner is not None and (narrowed.stops or narrowed.fallbacks):
                narrowed = self._owned(narrowed, owner)
            if len(self._wished) >= MOST_PLANS:
                self._wished.clear()
            if wish.letters <= LONGEST_WISH:
                self._wished[key] = narrowed
        if not narrowed.stops and not narrowed.fallbacks:
            raise wishes.nobody(narrowed, residency or regions)
        return narrowed

    def _there(self, owner: Owner | None, name: str) -> bool:
        return owner is None or self.planner.sees(owner.tenant, name, "")

    def _owner(self, principal: Principal | None) -> Owner | None:
        """None where it makes no difference whose request it is."""
        tenant, secrets = (principal.tenant, principal.secrets) if principal is not None else ("", ())
        return Owner(tenant, secrets) if self._private or secrets else None

    def _owned(self, plan: Plan, owner: Owner) -> Plan:
        return plan if self._vault is None else self.planner.owned(plan, owner, self._vault)


def _pinned(targets: list[Target], pin: Pin) -> list[Target]:
    """Those of the account that made what the request refers to. Raises Fault NOT_FOUND. Where it only sealed thoughts, it goes
    first and the others stay: they answer without."""
    if pin.mark:
        return sorted(targets, key=lambda target: target.account.mark != pin.mark)
    own = _own(targets, pin)
    if not own:
        raise Fault(
            Kind.NOT_FOUND,
            "What this request refers to was made by another model's provider or account; send its content instead.",
            param=pin.param,
        )
    return own


def _known(elsewhere: Mapping[Kind, tuple[Stop, ...]], pin: Pin) -> Mapping[Kind, tuple[Stop, ...]]:
    """Of where requests go for one kind of reason, those of that account: others do not know the ids in this one."""
    if pin.mark or not elsewhere:
        return elsewhere
    known = {kind: tuple(replace(stop, keys=tuple(_own(stop.keys, pin)), weights=()) for stop in stops) for kind, stops in elsewhere.items()}
    return {kind: kept for kind, stops in known.items() if (kept := tuple(stop for stop in stops if stop.keys))}


def _own(targets: Iterable[Target], pin: Pin) -> list[Target]:
    return [target for target in targets if (target.provider, target.key_id) == (pin.provider, pin.key_id)]
