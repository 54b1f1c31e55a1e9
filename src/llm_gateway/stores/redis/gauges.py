"""Limits and budgets that workers and replicas share: core.gauges on Redis, and what holds while it is away.

Law: one script, one round trip, for all claims of a request, and nothing else is awaited. Without Redis, rates are this worker's share of
theirs, counted in memory; hard budgets refuse (`closed`) or grant and book later (`open`). What Redis may have counted though nobody heard of
it is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llm_gateway.core.gauges import Ask, Bound, Gauges, Seeds, Verdict
from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.client import Client, Turn
from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.outbox import Outbox, Settlement
from llm_gateway.stores.redis.resp import Command, Failure
from llm_gateway.stores.redis.scripts import GRANTED, HELD, UNKNOWN, UNSEEDED, Scripts, keys
from llm_gateway.stores.redis.slots import slot as slot_of
from llm_gateway.stores.redis.template import Template
from llm_gateway.stores.redis.terms import Loss, Terms
from llm_gateway.telemetry.metrics import Families

AGAIN = 1.0  # seconds until it makes sense to ask again where Redis is away
SETTLING = frozenset({"tokens", "concurrent", "budget"})
LASTING = frozenset({"concurrent", "budget"})

Alert = Callable[[str, Claim, float, int], None]


class Policy(Struct):
    """What holds while Redis is away; may be changed at any time. `shares`: workers of all replicas, by which limits are divided;
    `loss`: of a tenant's hard budgets."""

    shares: int = 1
    loss: Callable[[str], Loss] = lambda _: "closed"


class Ties(Struct):
    """What all accounts of one Redis share."""

    client: Client
    outbox: Outbox
    meter: Meter
    scripts: Scripts
    fallback: Gauges
    policy: Policy
    seeds: Seeds | None = None
    alert: Alert | None = None


class Account:
    """One tenant's claims; core.gauges.Bound. `lasting`: what it reserves has to be given back; `slot`: of its keys."""

    __slots__ = (
        "_budgets",
        "_correcting",
        "_extend",
        "_hard",
        "_known",
        "_loop",
        "_marks",
        "_reserve",
        "_settle",
        "_shares",
        "_stand_in",
        "_strays",
        "_ties",
        "claims",
        "lasting",
        "slot",
        "tenant",
        "urgent",
    )  # fmt: skip

    def __init__(self, ties: Ties, tenant: str, claims: tuple[Claim, ...]) -> None:
        self.tenant = tenant
        self.claims = claims
        self.lasting = any(claim.measure in LASTING for claim in claims)
        self.urgent = any(claim.measure == "concurrent" for claim in claims)
        self._ties = ties
        self._loop = asyncio.get_running_loop()
        self._budgets = tuple(claim for claim in claims if claim.measure == "budget")
        self._marks = tuple(tuple(max(1, share * claim.limit) for share in claim.alerts) for claim in self._budgets)
        self._hard = next((claim for claim in self._budgets if claim.hard), None)
        settling = tuple(claim for claim in claims if claim.measure in SETTLING)
        self._correcting = bool(settling)
        scripts = ties.scripts
        self._reserve = Template(scripts.reserve, tenant, claims)
        self._extend = Template(scripts.extend, tenant, self._budgets, marker=True)
        self._settle = Template(scripts.settle, tenant, settling, marker=bool(self._budgets))
        self.slot = slot_of(keys(tenant, claims[0])[0]) if claims else 0
        self._known = tuple(claim.limit for claim in claims)  # what was left when Redis was last heard of
        self._strays: dict[str, Bound] = {}  # granted without Redis
        self._stand_in: Bound | None = None
        self._shares = 0

    def __repr__(self) -> str:
        return f"<Account of {self.tenant}: {', '.join(claim.name for claim in self.claims)}>"

    async def reserve(self, ask: Ask) -> Verdict:
        numbers = b"%d %d %d %d" % (ask.tokens, ask.cost, ask.least, ask.seconds * 1000)
        try:
            reply = await self._call(self._reserve, ask.request, numbers)
            if type(reply) is not Failure and reply[0] == UNSEEDED:
                reply = await self._call(self._reserve, ask.request, numbers, self.seeds(ask.wall))
        except asyncio.CancelledError:
            ask.tokens = 0  # whether they were taken is not known, so that settling gives none back
            raise
        if isinstance(reply, Failure):
            return await self._without(ask, reply)
        if reply[0] == GRANTED:
            self._known = left = tuple(reply[2:])
            return Verdict(cost=reply[1], left=left)
        return _refusal(reply, self.claims)

    async def extend(self, ask: Ask) -> Verdict:
        if not self._budgets:
            return Verdict(cost=ask.cost)
        numbers = b"%d %d" % (ask.cost, ask.seconds * 1000)
        reply = await self._call(self._extend, ask.request, numbers)
        if type(reply) is not Failure and reply[0] == UNSEEDED:
            reply = await self._call(self._extend, ask.request, numbers, self.seeds(ask.wall))
        if isinstance(reply, Failure):
            return Verdict(self._hard, AGAIN, unknown=True) if self._closed() else Verdict(cost=ask.cost)
        return Verdict(cost=ask.cost) if reply[0] == GRANTED else _refusal(reply, self._budgets)

    def settle(self, ask: Ask, tokens: int, cost: int) -> None:
        more = tokens - ask.tokens
        if self._strays and (local := self._strays.pop(ask.request, None)) is not None:
            local.settle(ask, tokens, cost)
            more = 0
        if self.lasting or (more and self._correcting):
            self._ties.outbox.settle(self, ask.request, more, cost, ask.wall)

    # -- for the outbox ----------------------------------------------------------------------------------------------

    def write(self, settlement: Settlement, age: int, seeds: bytes | None) -> Command:
        numbers = b"%d %d %d" % (settlement.tokens, settlement.cost, age)
        return Command(self._settle.fill(settlement.request.encode(), numbers, seeds), settlement, self.slot, self._settle.script)

    def seeds(self, wall: float) -> bytes:
        """What was spent before, of each budget, as the scripts read it."""
        known = self._ties.seeds
        words = []
        for claim in self._budgets:
            spent = known.spent(claim, wall) if known is not None else 0
            words.append(b"%d@%d" % (spent, wall) if spent is not None else b"?")
        return b" ".join(words)

    def settled(self, spent: list[int]) -> None:
        """spent: before and after, of each budget. Whoever brings one over a share of its amount tells of it; nobody else does."""
        alert = self._ties.alert
        if alert is None or not self._due(spent):
            return
        for claim, before, after in zip(self._budgets, spent[::2], spent[1::2], strict=False):
            passed = max((share for share in claim.alerts if before < max(1, share * claim.limit) <= after), default=0.0)
            if passed:
                alert(self.tenant, claim, passed, after)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _due(self, spent: list[int]) -> bool:
        """Whether any budget may have passed a share of its amount: most settlements bring none there."""
        for marks, before, after in zip(self._marks, spent[::2], spent[1::2], strict=False):
            for mark in marks:
                if before < mark <= after:
                    return True
        return False

    def _call(self, template: Template, request: str, numbers: bytes, seeds: bytes | None = None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._ties.client.send(Command(template.fill(request.encode(), numbers, seeds), future, self.slot, template.script))
        return future

    def _closed(self) -> bool:
        return self._hard is not None and self._ties.policy.loss(self.tenant) == "closed"

    async def _without(self, ask: Ask, failure: Failure) -> Verdict:
        """What holds where Redis says nothing."""
        meter = self._ties.meter
        if self._closed():
            meter.stand_in("closed")
            self._take_back(ask, failure)
            return Verdict(self._hard, AGAIN, unknown=True, left=self._known)
        local = self._share()
        verdict = local.reserve(ask)
        if not isinstance(verdict, Verdict):
            verdict = await verdict
        left = self._merged(local, verdict.left)
        if verdict.refused is not None:
            meter.stand_in("refused")
            self._take_back(ask, failure)
            name = verdict.refused.name
            return Verdict(next(claim for claim in self.claims if claim.name == name), verdict.wait, left=left)
        meter.stand_in("granted")
        self._strays[ask.request] = local
        return Verdict(cost=ask.cost, left=left)

    def _share(self) -> Bound:
        """Of the rates this worker's part of the rates, in memory."""
        shares = self._ties.policy.shares
        if self._stand_in is None or self._shares != shares:
            rates = [claim for claim in self.claims if claim.measure != "budget"]
            own = tuple(replace(claim, limit=max(1, claim.limit // shares) if claim.limit else 0) for claim in rates)
            self._stand_in, self._shares = self._ties.fallback.bind(self.tenant, own), shares
        return self._stand_in

    def _merged(self, local: Bound, left: tuple[int, ...]) -> tuple[int, ...]:
        """Of rates what is left here, of budgets what was left when that was last known."""
        here = dict(zip((claim.name for claim in local.claims), left, strict=False))
        return tuple(here.get(claim.name, known) for claim, known in zip(self.claims, self._known, strict=True))

    def _take_back(self, ask: Ask, failure: Failure) -> None:
        """Redis may have reserved it all the same. Tokens come back by themselves."""
        if self.lasting and failure.uncertain:
            self._ties.outbox.settle(self, ask.request, 0, 0, ask.wall)


class Shared:
    """core.gauges.Gauges on the Redis of `terms`. Made on a running loop, at once; connects in the background.

    fallback: counts while Redis is away; seeds: what was spent before Redis counted (None: nothing); tell: of servers that come and go;
    alert: of a tenant, a claim, a share of a budget that was passed, and what was spent."""

    def __init__(
        self,
        terms: Terms,
        fallback: Gauges,
        seeds: Seeds | None = None,
        tell: Callable[[Turn], None] | None = None,
        *,
        policy: Policy | None = None,
        alert: Alert | None = None,
        scripts: Scripts | None = None,
    ) -> None:
        self.policy = policy if policy is not None else Policy()
        self.meter = Meter()
        self.scripts = scripts if scripts is not None else Scripts()
        self._tell = tell
        self.client = Client(terms, self.scripts.all, self.meter, self._turned, self._emptied)
        self.outbox = Outbox(self.client.post, self.client.reaches, self.meter, self.client.send)
        self._ties = Ties(self.client, self.outbox, self.meter, self.scripts, fallback, self.policy, seeds, alert)
        self._all_ties = [self._ties]  # also of those whose heir this is: one for each change of the terms
        self._heir: Shared | None = None

    def __repr__(self) -> str:
        return f"<Shared by {self.client}, {len(self.outbox)} waiting>"

    @property
    def ready(self) -> bool:
        """Whether Redis answers; of a cluster, all that have slots."""
        return self.client.ready

    def bind(self, tenant: str, claims: tuple[Claim, ...]) -> Bound:
        return Account(self._ties, tenant, claims) if claims else self._ties.fallback.bind(tenant, claims)

    def bequeath(self, heir: Shared) -> None:
        """Redis is reached in another way from now on: what was reserved by this one is extended and settled by that one, as is what still waits."""
        for ties in self._all_ties:
            ties.client, ties.outbox, ties.meter, ties.policy = heir.client, heir.outbox, heir.meter, heir.policy
        heir._all_ties += self._all_ties
        self._heir = heir

    def rest(self, now: float, wall: float) -> None:
        self._ties.fallback.rest(now, wall)

    def gauges(self) -> Families:
        """Metric families, by their names in telemetry.families."""
        unavailable: Families = {
            "llm_gateway_redis_unavailable": {"": 0 if self.ready else 1},
            "llm_gateway_redis_waiting_settlements": {"": len(self.outbox)},
        }
        return self.meter.report() | unavailable

    async def close(self, seconds: float = 1.0) -> None:
        """Gives what is on its way so much time to arrive, also where a part of Redis has just gone and may be back."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.outbox) or self.client.waiting:  # noqa: ASYNC110 - once, at the very end
                    await asyncio.sleep(0.005)
        except TimeoutError:
            if self._heir is None:
                self.meter.fail("unsettled", len(self.outbox))
        if self._heir is not None:
            self._heir.outbox.inherit(self.outbox)
        self.outbox.close()
        self.client.close()

    def _emptied(self, theirs: Callable[[int], bool]) -> None:
        self.outbox.recall(theirs)

    def _turned(self, turn: Turn) -> None:
        if not turn.reason:
            self.outbox.resume()
        if self._tell is not None:
            self._tell(turn)


def _refusal(reply: list[int], claims: tuple[Claim, ...]) -> Verdict:
    """(code, which claim from 1, ms to wait or -1 for ever, what is left ...)."""
    code, which, wait, *left = reply
    return Verdict(claims[which - 1], wait / 1000 if wait >= 0 else inf, held=code == HELD, unknown=code == UNKNOWN, left=tuple(left))
