"""What is known of a target right now: may it be asked, how busy, how fast, how often wrong. Survives reloads.

Law: one `Condition` per provider, key and model, looked up once per plan and then held by the target. `until` is the one field the
hot path reads: 0.0 while nothing stands against it. Everything that may stand against it is a hold with a name and an end:

    breaker   its last calls failed (policies/breaker.py)
    cooling   it said 429 and when to come again, or its own rate-limit headers say that nothing is left
    key       it refused our key by 401, 402 or a 429 for want of quota: all models of that key
    model     it refused our key by anything else: this model only (any client can name a forbidden model, or have its own words quoted
              in a 400), and one that just answered well not at once
    down      the operator's probes do not get through to its provider

Times are perf_counter seconds. What changes is told to `tell`, for other workers, webhooks and the log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import perf_counter

from msgspec import Struct

from llm_gateway.core.changes import Change, What
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.policies.average import Average, Sample
from llm_gateway.policies.breaker import Breaker, Terms
from llm_gateway.policies.bucket import Allowance, Rate
from llm_gateway.policies.gradient import Bounds, Gradient
from llm_gateway.policies.standing import Standing
from llm_gateway.stores.redis.buckets import Line
from llm_gateway.telemetry.vitals import FAILURES, HARMLESS

MOST = 8192
MOST_COOL = 3600.0
FULL = 0.05  # seconds until a call may have ended
BELIEVED = 0.5  # seconds: other workers' calls give back what they did not need
ERROR_WEIGHT = 1 / 16
SURE = frozenset({401, 402, 429})  # statuses by which a refusal is about the key, whoever asks for whatever
DOUBTS = 3  # other refusals in a row before one that just answered well is not asked any more

LOST_KEY = frozenset({Kind.UPSTREAM_AUTH, Kind.UPSTREAM_QUOTA})
BROKEN = FAILURES - LOST_KEY
BY_CALLS = frozenset({"breaker", "recovering"})  # holds that calls end, not time
LOST = frozenset({"key", "model"})
KNOCKABLE = frozenset({"breaker", "recovering", "down"}) | LOST

Tell = Callable[[Change], None]
Lines = Callable[[str, tuple[tuple[str, ...], ...], tuple[Rate, ...]], Line]


class Meter(Struct):
    """What a plan's choice is made by. Seconds; `pace`: per token generated; `output`: tokens of a reply."""

    first: Average
    pace: Average
    output: Average
    recent: Sample
    errors: float = 0.0


class Short(Struct, frozen=True, gc=False):
    """What was said last where all workers count: no room for so many tokens before `until`; asked again after `stale`."""

    tokens: int = 0
    until: float = 0.0
    stale: float = 0.0


ROOM = Short()


class Condition:
    """`busy`: calls under way; `holds`: what stands against it, by name, until when; `kin`: all of the same key;
    `troubled`: good calls are worth telling too; `named`: by the configuration or the catalogue, not just by some client; `label`: the
    model's name in metrics, one of few. `allowances`: what its provider allows, counted here; `line`: the same, counted by all workers
    together, None where it is not; then who wants to call asks it, and notes in `short` what it hears."""

    __slots__ = (
        "allowances", "breaker", "busy", "gradient", "holds", "key", "kin", "label", "line", "meter", "model", "named", "provider",
        "refusals", "short", "tell", "troubled", "until",
    )  # fmt: skip

    def __init__(self, name: tuple[str, str, str], terms: Terms, bounds: Bounds | None, kin: list[Condition], tell: Tell) -> None:
        self.provider, self.key, self.model = name
        self.label, self.named = self.model, False
        self.breaker = Breaker(terms)
        self.gradient = Gradient.of(bounds) if bounds is not None else None
        self.allowances: tuple[Allowance, ...] = ()
        self.line: Line | None = None
        self.short = ROOM
        self.holds: dict[str, float] = {}
        self.until = 0.0
        self.troubled = False
        self.busy = 0
        self.refusals = 0
        self.meter = Meter(Average(), Average(), Average(), Sample())
        self.kin = kin
        self.tell = tell
        kin.append(self)

    def __repr__(self) -> str:
        held = ", ".join(f"{name} until {end:g}" for name, end in self.holds.items())
        return f"<Condition of {self.provider}/{self.model} {held or 'free'}, {self.busy} busy, {self.breaker}>"

    # -- asked before a call -----------------------------------------------------------------------------------------

    def admit(self, now: float, dice: float) -> bool:
        """Whether it may be asked. Only called where `until` says that something stands against it.

        dice: uniform in [0, 1)."""
        for name, end in [*self.holds.items()]:
            if end <= now and name != "breaker":
                self.lift(name)
        if self.holds.keys() - BY_CALLS:
            return False
        return self.breaker.admit(now, dice)

    def knock(self, now: float) -> bool:
        """As `admit`, where there is nobody else: breakers, lost keys and what probes do not reach are tried once a second by a
        real call. Who said 429 is not: it said when."""
        if self.holds.keys() - KNOCKABLE:
            return False
        return self.breaker.knock(now, held=bool(self.holds))

    def full(self, now: float, tokens: int) -> float:
        """Seconds until there is room for a call of so many tokens within what its provider allows and what it can take; 0: now."""
        if self.gradient is not None and self.busy >= self.gradient.limit:
            return FULL
        if self.line is not None:
            short = self.short
            return short.until - now if now < short.stale and now < short.until and tokens >= short.tokens else 0.0
        return max((each.wait(tokens, now) for each in self.allowances), default=0.0)

    def take(self, now: float, tokens: int) -> int:
        """After `full` said 0. Returns the tokens taken: an estimate never takes more than a whole bucket, or one absurd prompt would
        have everybody wait for an hour."""
        for each in self.allowances:
            if each.tokens is not None:
                tokens = min(tokens, int(each.tokens.size))
        for each in self.allowances:
            each.take(tokens, now)
        return tokens

    def correct(self, difference: int) -> None:
        """The tokens of a call beyond what was taken for it."""
        if self.line is not None:
            self.line.correct(difference)
        for each in self.allowances:
            each.correct(difference)

    def give_back(self, tokens: int) -> None:
        """What `take` took, of a call that was not made after all; where all workers count it has cost a request."""
        if self.line is not None:
            self.line.correct(-tokens)
        for each in self.allowances:
            each.give_back(tokens)

    async def claim(self, line: Line, tokens: int) -> int | None:
        """As `take`, of what all workers count together. Returns the tokens taken, None where there is no room: `full` then says until when."""
        taken = await line.take(tokens)
        if not taken.wait:
            return taken.tokens
        now = perf_counter()
        self.short = Short(tokens, now + taken.wait, now + BELIEVED)
        return None

    def wait(self, now: float) -> float:
        """Seconds until it may be worth asking again."""
        return max(1.0, self.holds.get("cooling", 0.0) - now)

    def why(self, now: float) -> str:
        """What stands against it, for a reader; "" if nothing does. A breaker whose time is over waits for a call to find out."""
        said = [f"{name}{f' for {end - now:.1f} s' if not math.isinf(end) else ''}" for name, end in self.holds.items() if end > now]
        return ", ".join(["breaker half-open", *said] if self.holds.get("breaker", math.inf) <= now else said)

    def held(self, now: float) -> list[str]:
        """The holds that have not ended by themselves."""
        return [name for name, end in self.holds.items() if end > now or name == "breaker"]

    # -- told after a call -------------------------------------------------------------------------------------------

    def good(self, now: float) -> None:
        """A call went well. Only told where `troubled`; else the caller counts it in `breaker.good`."""
        meter = self.meter
        self.refusals = 0
        meter.errors -= ERROR_WEIGHT * meter.errors
        if self.breaker.succeed(now):
            self._free("breaker")
            self.hold("recovering", now, self.breaker.terms.recovery, "", quiet=True)
            self._say("breaker_closed")
        if "key" in self.holds:
            for each in self.kin:
                each.lift("key", quiet=each is not self)
        self.lift("model")
        self.lift("down")
        self.troubled = bool(self.holds or self.breaker.bad or self.breaker.was_bad or meter.errors > ERROR_WEIGHT / 4)

    def bad(self, now: float, fault: Fault) -> None:
        """A call failed."""
        kind = fault.kind
        self.troubled = True
        if kind in BROKEN and fault.code not in HARMLESS:
            self.meter.errors += ERROR_WEIGHT * (1.0 - self.meter.errors)
            if self.breaker.fail(now):
                self._free("recovering")
                self.hold("breaker", now, self.breaker.until - now, fault.code)
            return
        self.breaker.forget()
        if kind is Kind.UPSTREAM_RATE_LIMIT:
            if self.gradient is not None:
                self.gradient.drop()
            self.cool(now, fault.retry_after or 0.0, fault.code)
        elif kind in LOST_KEY:
            self._lose(now, fault)

    def measured(self, now: float, first: float | None, whole: float, output: int) -> None:
        """Seconds to the first token of a stream (None: a plain call) and to the last, and tokens generated."""
        meter = self.meter
        if first is not None:
            meter.first.add(first, now)
            meter.recent.add(first)
            if self.gradient is not None:
                self.gradient.add(first, self.busy)
        if output > 0:
            meter.output.add(output, now)
            meter.pace.add((whole - (first or 0.0)) / output, now)

    def _lose(self, now: float, fault: Fault) -> None:
        """Our key was refused: everywhere, unless it may be for this model or this request alone."""
        seconds, whole = self.breaker.terms.key_ejection, fault.status in SURE
        self.refusals += 1
        proven = self.breaker.good or self.breaker.was_good
        if not seconds or (not whole and proven and self.refusals < DOUBTS):
            return
        name = "key" if whole else "model"
        fresh = name not in self.holds
        for each in self.kin if whole else [self]:
            each.hold(name, now, seconds, fault.code, quiet=True)
        if fresh and (whole or self.named):  # of names that clients make up there is no end
            self.tell(Change(self.provider, self.key, "" if whole else self.model, "key_disabled", seconds, fault.code))

    # -- holds -------------------------------------------------------------------------------------------------------

    def cool(self, now: float, seconds: float, reason: str) -> None:
        end = now + min(seconds, MOST_COOL)
        if seconds > 0 and self.breaker.terms.cooling and end > self.holds.get("cooling", 0.0):
            self.hold("cooling", now, end - now, reason)

    def hold(self, name: str, now: float, seconds: float, reason: str, *, quiet: bool = False) -> None:
        """`seconds` inf: until it is lifted. `quiet`: others know."""
        fresh = name not in self.holds or name == "breaker"
        self.holds[name] = now + seconds
        self.until = max(self.holds.values())
        self.troubled = True
        if fresh and not quiet:
            self._say(_SAID[name], 0.0 if math.isinf(seconds) else seconds, reason)

    def lift(self, name: str, *, quiet: bool = False) -> None:
        if name in self.holds:
            self._free(name)
            if name in LOST and not quiet and (name == "key" or self.named):
                self.tell(Change(self.provider, self.key, "" if name == "key" else self.model, "key_restored"))

    def _free(self, name: str) -> None:
        self.holds.pop(name, None)
        self.until = max(self.holds.values(), default=0.0)

    def _say(self, what: What, seconds: float = 0.0, reason: str = "") -> None:
        self.tell(Change(self.provider, self.key, self.model, what, round(seconds, 3), reason))


_SAID: dict[str, What] = {"breaker": "breaker_opened", "cooling": "cooling", "down": "provider_down"}


class Conditions:
    """All of a worker's, by who is asked how. What is known outlives a reload, unless the key or the address changed. `forgotten`: how
    often some were dropped, after which plans are to be made anew.

    `changes`: what is to be told to others; whoever owns the link takes it; `lines`: of providers' limits where all workers count them
    together, None where each counts its own."""

    def __init__(self) -> None:
        self.lines: Lines | None = None
        self.changes: list[Change] = []
        self.forgotten = 0
        self._standing = Standing()  # what others told, for targets that nobody asked for here yet
        self._known: dict[tuple[str, ...], Condition] = {}
        self._kin: dict[tuple[str, ...], list[Condition]] = {}
        self._allowances: dict[tuple[str, ...], Allowance] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, who: tuple[str, str, str], how: tuple[str, ...], terms: Terms, bounds: Bounds | None = None) -> Condition:
        """who: (provider, key id, model); how: what makes it another account or place under the same names."""
        name = (*who, *how)
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= MOST:
                self._forget()
            kin = self._kin.setdefault((*who[:2], *how), [])
            known = Condition(who, terms, bounds, kin, self.changes.append)
            for hold in ("key", "down"):
                if hold in kin[0].holds:
                    known.holds[hold] = kin[0].holds[hold]
                    known.until = max(known.holds.values())
                    known.troubled = True
            self._known[name] = known
            now = perf_counter()
            for change in self._standing.about(who, now):
                _take_over(known, change, now)
        known.breaker.terms = terms
        if (known.gradient is not None) != (bounds is not None) or (known.gradient is not None and known.gradient.bounds != bounds):
            known.gradient = Gradient.of(bounds) if bounds is not None else None
        return known

    def allowance(self, of: tuple[str, ...], rate: Rate) -> Allowance:
        """What is left of a limit on a provider, on one of its keys, or on a model of either."""
        known = self._allowances.setdefault(of, Allowance())
        known.adopt(rate)
        return known

    def all(self) -> list[Condition]:
        return [*self._known.values()]

    def hear(self, change: Change, now: float) -> None:
        """What another worker found holds here too."""
        self._standing.note([change], now)
        for (provider, key, *how), kin in self._kin.items():
            if provider == change.provider and change.key in ("", key):
                one = self._known.get((provider, key, change.model, *how)) if change.model else None
                for each in [one] if one is not None else [] if change.model else kin:
                    _take_over(each, change, now)

    def forget(self, providers: Iterable[str]) -> None:
        """The configuration made others of these, or they have other credentials: what is to come of them knows nothing of what was."""
        gone = frozenset(providers)
        self._standing.forget(gone)
        for each in self._known.values():
            if each.provider in gone:
                each.lift("key", quiet=True)
                each.lift("model", quiet=True)

    def doubt(self) -> None:
        """Whoever probed the providers is another now, who does not know what the last one said was down; what still is will be said
        again."""
        self._standing.doubt()
        for each in self._known.values():
            each.lift("down", quiet=True)

    def take(self) -> list[Change]:
        changes, self.changes[:] = [*self.changes], []
        return changes

    def _forget(self) -> None:
        """Names come from clients: those that nothing is known of are dropped first, then all that are idle. What the configuration or
        the catalogue names stays: no client can have it forgotten. Plans made before would hold what nobody hears of: see `forgotten`."""
        self.forgotten += 1
        idle = {name: each for name, each in self._known.items() if not (each.busy or each.named)}
        calm = {name for name, each in idle.items() if not each.troubled}
        gone = calm if len(calm) > MOST // 2 else idle.keys()
        self._known = {name: each for name, each in self._known.items() if name not in gone}
        kept = {id(each) for each in self._known.values()}
        for kin in self._kin.values():
            kin[:] = [each for each in kin if id(each) in kept]
        self._kin = {name: kin for name, kin in self._kin.items() if kin}


def _take_over(condition: Condition, change: Change, now: float) -> None:
    """What another worker found, if it is about this one."""
    same = change.provider == condition.provider and change.key in ("", condition.key) and change.model in ("", condition.model)
    if not same:
        return
    match change.what:
        case "breaker_opened":
            condition.breaker.trip(now, change.seconds)
            condition.hold("breaker", now, change.seconds, "", quiet=True)
        case "breaker_closed":
            condition.breaker.close(now)
            condition.lift("breaker")
        case "cooling":
            condition.hold("cooling", now, change.seconds or math.inf, "", quiet=True)
        case "key_disabled":
            condition.hold("model" if change.model else "key", now, change.seconds or math.inf, "", quiet=True)
        case "key_restored":
            condition.lift("model" if change.model else "key", quiet=True)
        case "provider_down":
            condition.hold("down", now, change.seconds or math.inf, "", quiet=True)
        case "provider_up":
            condition.lift("down", quiet=True)
