"""A place a request can go: one provider, model and key, with everything about it that does not change worked out. What changes is its
`condition`, which outlives it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from llm_gateway.core.headers import render
from llm_gateway.core.types import Usage
from llm_gateway.formats.contract import Outgoing
from llm_gateway.formats.marks import Field
from llm_gateway.models.own import Own, Place
from llm_gateway.models.prices import Rates, cost, flat
from llm_gateway.policies.breaker import Terms
from llm_gateway.policies.bucket import Rate
from llm_gateway.policies.gradient import Bounds
from llm_gateway.providers.contract import OPERATIONS, Account, Provider
from llm_gateway.routing.condition import Condition
from llm_gateway.telemetry.metrics import TargetMeter
from llm_gateway.upstream.pool import Bay

MOST_HEADS = 64
RATES_SECONDS = 60.0  # prices change by date, some by hour
AGENT = b"llm-gateway"
JSON = b"application/json"
_NOTHING = Usage()


class Limits(Struct, frozen=True):
    """Seconds, for this target. `attempt`: a plain call, None: only the whole request's limit."""

    attempt: float | None = None
    silence: float = 120.0
    first_chunk: float = 300.0
    retries: int = 2

    def within(self, attempt: float | None, silence: float | None, first_chunk: float | None) -> Limits:
        """The same, with an alias's own where it has some."""
        return Limits(
            self.attempt if attempt is None else attempt,
            self.silence if silence is None else silence,
            self.first_chunk if first_chunk is None else first_chunk,
            self.retries,
        )


class Seat(Struct, frozen=True):
    """A configured provider: how it is spoken to, its accounts (one per key), its connections, its limits. `weights`: of the accounts;
    `bounds` None: as many calls at once as there are.

    `rate`: of all its accounts together; `rates`: by key id, of one; `models`: by model, of each account with it.

    `tenants`: whose it is, everybody's if empty. `seals`: by shape, where its replies hold what only the account that made it can read.
    `forgets`: as `providers.table.Service` has it."""

    name: str
    type: str
    speaker: Provider
    accounts: tuple[Account, ...]
    bay: Bay
    limits: Limits
    region: str | None = None
    zone: str | None = None
    weights: tuple[int, ...] = ()
    terms: Terms = Terms()
    bounds: Bounds | None = None
    rate: Rate | None = None
    rates: Mapping[str, Rate] = {}
    models: Mapping[str, Rate] = {}
    seals: Mapping[str, Field] = {}
    tenants: frozenset[str] = frozenset()
    forgets: bool = False

    def owned(self, tenant: str) -> bool:
        """Whether the file gives this tenant, and nobody else, a key here."""
        return self.tenants == {tenant} and any(each.key or each.token for each in self.accounts)


class Target:
    """Law: immutable in effect; `_heads` only remembers what `address` would say again. `sloped_until`: until when what `slopes` said holds,
    in Unix seconds. `seals`: the seat's, where its plan has
    other accounts too, who could not read them."""

    __slots__ = (
        "_flat",
        "_heads",
        "_own",
        "_priced_until",
        "_rates",
        "_slopes",
        "_tiers",
        "account",
        "bay",
        "by_value",
        "condition",
        "forgets",
        "forms",
        "key_id",
        "limits",
        "lines",
        "longest",
        "meter",
        "model",
        "place",
        "prices",
        "provider",
        "seals",
        "sloped_until",
        "speaker",
    )  # fmt: skip

    def __init__(
        self,
        seat: Seat,
        account: Account,
        place: Place,
        meter: TargetMeter,
        own: Own,
        *,
        condition: Condition,
        limits: Limits | None = None,
    ) -> None:
        model = place.model
        self.condition = condition
        self.speaker = seat.speaker
        self.account = account
        self.provider = account.provider
        self.key_id = account.key_id
        self.model = model
        self.bay = seat.bay
        self.by_value = seat.speaker.by_value
        self.forgets = seat.forgets
        self.limits = seat.limits if limits is None else limits
        self.meter = meter
        self.seals: Mapping[str, Field] = {}
        self.forms: dict[str, tuple[str, ...]] = {each: seat.speaker.formats(each, model) for each in OPERATIONS}
        info = own.info(place)
        self.longest = info.max_output if info is not None else None  # tokens of a reply, if known
        self.lines = render(_said(account.provider, model, deprecated=info is not None and info.deprecated))
        self.prices = own.source(place)
        self._own = own
        self.place = place
        self._rates: Rates | None = None
        self._flat: tuple[int, int, int] | None = None
        self._tiers: dict[str, Rates | None] = {}  # rates of other service tiers, until then too
        self._priced_until = 0.0
        self._slopes: tuple[float, float, float] | None = None
        self.sloped_until = 0.0
        self._heads: dict[tuple[str, tuple[tuple[bytes, bytes], ...], bytes], bytes] = {}

    def __repr__(self) -> str:
        return f"<Target {self.provider}/{self.model} key {self.key_id or '-'}>"

    def flat(self, now: float) -> tuple[int, int, int] | None:
        """Femto-USD of a token read, of one written and of a request, where text has no other rates: neither by length nor for caches or sound."""
        if now >= self._priced_until:
            self.price(_NOTHING, now)
        return self._flat

    def price(self, usage: Usage, now: float) -> int | None:
        """Nano-USD, None if unpriced. `now`: Unix seconds."""
        if now >= self._priced_until:
            self._rates = self._own.rates(self.place, now)
            self._flat = flat(self._rates)
            self._tiers.clear()
            self._priced_until = now + RATES_SECONDS
        if usage.tier is None:
            return cost(usage, self._rates)
        if usage.tier not in self._tiers:
            self._tiers[usage.tier] = self._own.rates(self.place, now, usage.tier)
        return cost(usage, self._tiers[usage.tier])

    def slopes(self, now: float) -> tuple[float, float, float] | None:
        """Nano-USD of a token read, read from a cache, and written; None if unpriced. For comparing targets: tiers by length are left out."""
        if now >= self.sloped_until:
            read = self.price(Usage(input=1000), now)
            cached = self.price(Usage(input=1000, cache_read=1000), now)
            written = self.price(Usage(output=1000), now)
            known = read is not None and cached is not None and written is not None
            self._slopes = (read / 1000, cached / 1000, written / 1000) if known else None  # type: ignore[operator]
            self.sloped_until = now + RATES_SECONDS
        return self._slopes

    def request(self, outgoing: Outgoing, now: float) -> bytes:
        """The whole HTTP request for this target."""
        key = (outgoing.path, outgoing.headers, outgoing.content_type)
        head = self._heads.get(key)
        body = outgoing.body
        if head is None:
            wire = self.speaker.address(outgoing, self.account, self.model, now)
            body = wire.body
            head = b"%b %b HTTP/1.1\r\nhost: %b\r\ncontent-type: %b\r\naccept-encoding: identity\r\n%b" % (
                wire.method, wire.path, self.bay.origin.authority.encode(), outgoing.content_type,
                render(_own(wire.headers, outgoing.headers)),
            )  # fmt: skip
            if not body and wire.method != b"POST":
                return head + b"\r\n"
            # A multipart body's type holds its boundary: kept, such heads would push out those that come again.
            if self.speaker.static and outgoing.content_type == JSON and len(self._heads) < MOST_HEADS:
                self._heads[key] = head
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


def _own(
    provider: tuple[tuple[bytes, bytes], ...], shape: tuple[tuple[bytes, bytes], ...]
) -> list[tuple[bytes, bytes]]:
    """The shape's headers, overridden by the provider's and the configuration's of the same name; an empty one leaves it out."""
    said = {name.lower(): value for name, value in (*shape, *provider)}
    chosen = {name: value for name, value in said.items() if value}
    chosen.setdefault(b"user-agent", AGENT)
    return list(chosen.items())


def _said(provider: str, model: str, *, deprecated: bool) -> list[tuple[bytes, bytes]]:
    """Response headers that say who answered."""
    lines = [(b"x-gateway-provider", provider.encode()), (b"x-gateway-model", _visible(model))]
    return [*lines, (b"x-gateway-deprecated", b"true")] if deprecated else lines


def _visible(model: str) -> bytes:
    return bytes(b if 0x20 < b < 0x7F else 0x3F for b in model.encode()[:200])
