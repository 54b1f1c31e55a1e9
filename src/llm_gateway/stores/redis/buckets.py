"""What providers allow all workers and replicas together: requests and tokens in a minute, of a provider, its keys and its models.

Law: one script per attempt for all buckets that the attempt counts against, which takes from all or from none; one correction after it, that nobody
waits for. All of a provider's buckets are in one slot: a model's limit and its provider's are taken in one step. An estimate never takes more
than the smallest bucket holds. While Redis is away each worker counts its share in memory, as without one; a provider's share is one for all its lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

from msgspec import Struct

from llm_gateway.core.tenancy import Claim
from llm_gateway.policies.bucket import Allowance, Rate
from llm_gateway.stores.redis.client import Client
from llm_gateway.stores.redis.gauges import Policy, Shared
from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import Command, Failure, Nobody
from llm_gateway.stores.redis.scripts import GRANTED, keys
from llm_gateway.stores.redis.slots import slot
from llm_gateway.stores.redis.template import Template

Spare = Callable[[tuple[str, ...], Rate], Allowance]


class Taken(Struct, gc=False):
    """`wait`: seconds until asking again makes sense, 0: it is taken; `tokens`: what was taken of them, an estimate cut to the smallest bucket."""

    wait: float
    tokens: int


class Line:
    """The buckets of one target: a provider, or a key or model of it. Use for as long as the limits are the same. spare: what a worker has
    of a name for itself while Redis is away, given its share of the rate; by default each line its own."""

    __slots__ = ("_allowances", "_client", "_correct", "_loop", "_meter", "_most", "_names", "_policy", "_shares", "_slot", "_spare", "_take", "rates")

    def __init__(
        self, shared: Shared, provider: str, names: tuple[tuple[str, ...], ...], rates: tuple[Rate, ...], *, spare: Spare | None = None
    ) -> None:
        self.rates = rates
        self._names = names
        self._spare = spare if spare is not None else _allowance
        self._client: Client = shared.client
        self._meter: Meter = shared.meter
        self._policy: Policy = shared.policy
        self._loop = asyncio.get_running_loop()
        claims = tuple(claim for name, rate in zip(names, rates, strict=True) for claim in _claims(name, rate))
        tokens = tuple(claim for claim in claims if claim.measure == "tokens")
        owner, scripts = f"provider {provider}", shared.scripts
        self._take = Template(scripts.reserve, owner, claims)
        self._correct = Template(scripts.settle, owner, tokens) if tokens else None
        self._most = min((claim.limit for claim in tokens), default=None)
        self._slot = slot(keys(owner, claims[0])[0]) if claims else 0
        self._allowances: tuple[Allowance, ...] = ()
        self._shares = 0

    async def take(self, tokens: int) -> Taken:
        """One request and its tokens."""
        if self._most is not None:
            tokens = min(tokens, self._most)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._client.send(Command(self._take.fill(b"-", b"%d 0 0 0" % tokens), future, self._slot, self._take.script))
        reply = await future
        if isinstance(reply, Failure):
            return self._alone(tokens)
        return Taken(0.0, tokens) if reply[0] == GRANTED else Taken(reply[2] / 1000, 0)

    def correct(self, difference: int) -> None:
        """Tokens of a call beyond those that were taken for it; not known to Redis while it is away."""
        for each in self._allowances:
            each.correct(difference)
        if self._correct is not None and difference:
            self._client.post(Command(self._correct.fill(b"-", b"%d 0 0" % difference), Nobody(), self._slot, self._correct.script))

    def _alone(self, tokens: int) -> Taken:
        """Within this worker's share."""
        now, shares = perf_counter(), self._policy.shares
        if self._shares != shares:
            spare = self._spare
            self._shares, self._allowances = shares, tuple(spare(of, _share(rate, shares)) for of, rate in zip(self._names, self.rates, strict=True))
        wait = max((each.wait(tokens, now) for each in self._allowances), default=0.0)
        if wait:
            self._meter.stand_in("refused")
            return Taken(wait, 0)
        for each in self._allowances:
            each.take(tokens, now)
        self._meter.stand_in("granted")
        return Taken(0.0, tokens)


def _claims(name: tuple[str, ...], rate: Rate) -> list[Claim]:
    gauge = f"provider:{'/'.join(name)}"
    found = [Claim(gauge, "requests", int(rate.requests))] if rate.requests is not None else []
    return [*found, Claim(gauge, "tokens", int(rate.tokens))] if rate.tokens is not None else found


def _share(rate: Rate, shares: int) -> Rate:
    return Rate(*(None if each is None else max(1.0, each / shares) for each in (rate.requests, rate.tokens)))


def _allowance(_of: tuple[str, ...], rate: Rate) -> Allowance:
    made = Allowance()
    made.adopt(rate)
    return made


