"""Equal stops that a strategy chooses among, with all that does not change from one request to the next worked out beforehand.

Law: the same order as policies.balance gives by the same numbers. Speeds and errors are looked at again when `LOOK` seconds are over, prices
when their targets' are; between, what depends on them is kept: at thousands of requests a second nobody looks at every target for each of
them. What is under way is looked at each time. Numbers come from conditions, dice from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from random import random
from time import perf_counter

from llm_gateway.core.exchange import Exchange
from llm_gateway.policies import balance
from llm_gateway.policies.balance import Slopes
from llm_gateway.routing import ask
from llm_gateway.routing.stop import Stop
from llm_gateway.routing.target import Target

HALF_LIFE = 60.0  # seconds after which a measured latency counts half, so that the slow are tried again
LOOK = 0.02  # seconds
MOST_SESSIONS = 1024  # whose orders are kept
MOST_OUTPUTS = 256
MOST_KEPT = 256  # orders, and choices of stops
Places = tuple[int, ...]
_BUSY = attrgetter("condition.busy")


class Group:
    """`stops`: at least two. adapts: the weights of latency, cost and errors, for `adaptive`.

    `places`: all places in `stops`, best first, for (request, running number, the caller's share of cached prompt tokens)."""

    __slots__ = (
        "_adapts", "_by_output", "_by_price", "_by_session", "_by_turn", "_deck", "_fines", "_keys", "_output", "_priced_until", "_slopes",
        "_speeds", "_turns", "_until", "places", "stops",
    )  # fmt: skip

    def __init__(self, stops: tuple[Stop, ...], strategy: str, adapts: tuple[float, float, float]) -> None:
        count = len(stops)
        self.stops = stops
        self.places: Callable[[Exchange, int, float], Places] = {
            "weighted": self._dealt if count <= balance.MOST_DEALT else self._drawn, "round_robin": self._turned, "least_busy": self._idlest,
            "latency": self._soonest, "throughput": self._fastest, "cost": self._cheapest, "adaptive": self._adapted,
        }[strategy]  # fmt: skip
        self._adapts = adapts
        self._turns = [tuple(balance.rotated(count, turn)) for turn in range(count)]
        self._keys = [stop.keys[0] for stop in stops]
        self._deck = balance.Deck([stop.weight for stop in stops]) if strategy == "weighted" and count <= balance.MOST_DEALT else None
        self._by_session: dict[bytes, Places] = {}
        self._until = 0.0
        self._output = 0.0  # tokens of a reply, of late
        self._speeds: list[tuple[float, float]] = []  # seconds to the first token, seconds per token
        self._fines: list[float] = []
        self._by_output: dict[int, tuple[list[float], list[Places | None]]] = {}
        self._by_turn: list[Places | None] = []
        self._priced_until = 0.0
        self._slopes: list[Slopes | None] = []
        self._by_price: list[Places] = []

    def kept(self, session: bytes) -> Places:
        """As `places`, of what stays with one target."""
        known = self._by_session.get(session)
        if known is None:
            if len(self._by_session) >= MOST_SESSIONS:
                self._by_session.clear()
            stops = self.stops
            known = tuple(balance.rendezvous([stop.mark for stop in stops], [stop.weight for stop in stops], session))
            self._by_session[session] = known
        return known

    # -- the strategies ----------------------------------------------------------------------------------------------

    def _dealt(self, _x: Exchange, _turn: int, _hit: float) -> Places:
        assert self._deck is not None  # noqa: S101  there is one for so few
        return self._deck.deal(random())  # noqa: S311  no secret

    def _drawn(self, _x: Exchange, _turn: int, _hit: float) -> Places:
        return tuple(balance.weighted([stop.weight for stop in self.stops], [random() for _ in self.stops]))  # noqa: S311

    def _turned(self, _x: Exchange, turn: int, _hit: float) -> Places:
        return self._turns[turn % len(self._turns)]

    def _idlest(self, _x: Exchange, turn: int, _hit: float) -> Places:
        return tuple(balance.least([_busy(stop) / stop.weight for stop in self.stops], turn))

    def _soonest(self, x: Exchange, _turn: int, _hit: float) -> Places:
        """By `two_choices` of the expected seconds to the last token; whoever comes first, the others follow in one order for as long as
        nobody looks."""
        if perf_counter() >= self._until:
            self._look()
        output = ask.output(x, self._output)
        scores, orders = self._by_output.get(output) or self._scored(output, balance.timed(self._speeds, output))
        dice = random(), random()  # noqa: S311
        first = balance.better(scores, dice) if len(scores) > 2 else 0
        return orders[first] or _keep(orders, first, balance.two_choices(scores, dice))

    def _fastest(self, _x: Exchange, turn: int, _hit: float) -> Places:
        if perf_counter() >= self._until:
            self._look()
        place = turn % len(self._by_turn)
        return self._by_turn[place] or _keep(self._by_turn, place, balance.least([pace for _, pace in self._speeds], turn))

    def _cheapest(self, x: Exchange, turn: int, hit: float) -> Places:
        if x.wall >= self._priced_until:
            self._price(x.wall)
        if self._by_price:
            return self._by_price[turn % len(self._by_price)]
        if perf_counter() >= self._until:
            self._look()
        return tuple(balance.ranked(self._costs(x, hit, ask.output(x, self._output)), turn))

    def _adapted(self, x: Exchange, turn: int, hit: float) -> Places:
        if perf_counter() >= self._until:
            self._look()
        output = ask.output(x, self._output)
        by_latency, by_cost, _ = self._adapts
        paces, orders = self._by_output.get(output) or self._scored(output, balance.paced(by_latency, balance.timed(self._speeds, output)))
        place = turn % len(orders)
        if by_cost:
            if x.wall >= self._priced_until:
                self._price(x.wall)
            scores = balance.added(paces, by_cost, self._costs(x, hit, output), self._fines)
            return tuple(sorted(self._turns[place], key=scores.__getitem__))
        return orders[place] or _keep(orders, place, balance.least(balance.added(paces, 0.0, [None] * len(paces), self._fines), turn))

    # -- what they go by ---------------------------------------------------------------------------------------------

    def _scored(self, output: int, scores: list[float]) -> tuple[list[float], list[Places | None]]:
        """Keeps what is known of replies of so many tokens, and room for the orders that follow from it."""
        if len(self._by_output) >= MOST_OUTPUTS:
            self._by_output.clear()
        orders: list[Places | None] = [None] * len(scores)
        self._by_output[output] = scores, orders
        return scores, orders

    def _look(self) -> None:
        """At what the stops have done of late."""
        now = perf_counter()
        self._until = now + LOOK
        self._by_output.clear()
        self._by_turn = [None] * len(self.stops)
        speeds, fines = [], []
        for stop in self.stops:
            conditions = [key.condition for key in stop.keys]
            meter = max(conditions, key=lambda each: each.meter.pace.seen).meter  # of the key that was heard last
            speeds.append((meter.first.faded(now, HALF_LIFE), meter.pace.faded(now, HALF_LIFE)))
            fines.append(balance.fine(self._adapts[2], min(each.meter.errors for each in conditions)))
            self._output = meter.output.value or self._output
        self._speeds, self._fines = speeds, fines

    def _price(self, wall: float) -> None:
        """Looks at the prices; where no request can change who is cheaper, none is asked any more."""
        self._slopes = [key.slopes(wall) for key in self._keys]
        self._priced_until = min(key.sloped_until for key in self._keys)
        ranks = balance.settled(self._slopes)
        self._by_price = [tuple(balance.least(ranks, turn)) for turn in range(len(self._keys))] if ranks is not None else []

    def _costs(self, x: Exchange, hit: float, output: int) -> list[float | None]:
        """Expected, in nano-USD; None where it is unpriced."""
        prompt = ask.size(x)
        if not hit:
            return [None if each is None else prompt * each[0] + output * each[2] for each in self._slopes]
        cached = prompt * hit
        fresh = prompt - cached
        return [None if each is None else fresh * each[0] + cached * each[1] + output * each[2] for each in self._slopes]


class Field:
    """All that a strategy orders, and `rest` after them as it stands. near: the nearest first, the strategy among equals."""

    __slots__ = ("_adapts", "_among", "_groups", "_kept", "_keys", "_near", "_plain", "_rest", "_strategy", "_turned", "rest", "stops")

    def __init__(
        self, stops: tuple[Stop, ...], rest: tuple[Stop, ...], strategy: str, adapts: tuple[float, float, float], *, near: bool
    ) -> None:
        self.stops, self.rest = stops, rest
        self._strategy, self._adapts, self._near = strategy, adapts, near
        groups = _by_distance(stops) if near else [stops]
        self._groups = [Group(some, strategy, adapts) if len(some) > 1 and strategy != "priority" else some for some in groups]
        first = self._groups[0] if len(self._groups) == 1 else None
        single = all(len(stop.keys) == 1 for stop in (*stops, *rest))
        self._plain = first if single and isinstance(first, Group) else None  # whose order is that of the targets
        self._keys = [stop.keys[0] for stop in stops]
        self._rest = [stop.keys[0] for stop in rest]
        alike = self._plain is not None and strategy == "least_busy" and len({stop.weight for stop in stops}) == 1
        turns = range(len(stops)) if alike else ()
        self._turned = [[self._keys[place] for place in balance.rotated(len(stops), turn)] for turn in turns]
        self._kept: dict[Places, list[Target]] = {}
        self._among: dict[tuple[int, ...], Field] = {}

    def among(self, stops: tuple[Stop, ...], rest: tuple[Stop, ...]) -> Field:
        """Of these alone, which are of its own."""
        if len(stops) + len(rest) == len(self.stops) + len(self.rest):
            return self
        some = (*map(id, stops), 0, *map(id, rest))
        known = self._among.get(some)
        if known is None:
            if len(self._among) >= MOST_KEPT:
                self._among.clear()
            known = self._among[some] = Field(stops, rest, self._strategy, self._adapts, near=self._near)
        return known

    def order(self, x: Exchange, turn: int, hit: float, sticky: bytes) -> list[Target]:
        """All targets, best first; not to be changed. turn, hit: see `Group`; sticky: what stays with one target, if anything."""
        group = self._plain
        if group is None:
            return self._mixed(x, turn, hit, sticky)
        if self._turned and not sticky:
            found = sorted(self._turned[turn % len(self._turned)], key=_BUSY)
            return [*found, *self._rest] if self._rest else found
        places = group.kept(sticky) if sticky else group.places(x, turn, hit)
        return self._kept.get(places) or self._listed(places)

    def _listed(self, places: Places) -> list[Target]:
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[places] = listed = [*[self._keys[place] for place in places], *self._rest]
        return listed

    def _mixed(self, x: Exchange, turn: int, hit: float, sticky: bytes) -> list[Target]:
        """Where stops have several keys, or are not equally far."""
        ranked: list[Stop] = []
        for group in self._groups:
            if isinstance(group, Group):
                places = group.kept(sticky) if sticky else group.places(x, turn, hit)
                ranked += [group.stops[place] for place in places]
            else:
                ranked += group
        targets: list[Target] = []
        for stop in (*ranked, *self.rest):
            targets += _keys(stop, turn, sticky)
        return targets


def _keep(orders: list[Places | None], place: int, order: Sequence[int]) -> Places:
    orders[place] = kept = tuple(order)
    return kept


def _by_distance(stops: tuple[Stop, ...]) -> list[tuple[Stop, ...]]:
    return [tuple(stop for stop in stops if stop.distance == distance) for distance in sorted({stop.distance for stop in stops})]


def _keys(stop: Stop, turn: int, sticky: bytes) -> Sequence[Target]:
    keys = stop.keys
    if len(keys) == 1:
        return keys
    if sticky:
        return [keys[place] for place in balance.rendezvous([key.key_id.encode() for key in keys], stop.weights or (1,) * len(keys), sticky)]
    if stop.weights:
        return [keys[place] for place in balance.weighted(stop.weights, [random() for _ in keys])]  # noqa: S311
    start = turn % len(keys)
    return (*keys[start:], *keys[:start])


def _busy(stop: Stop) -> int:
    keys = stop.keys
    return keys[0].condition.busy if len(keys) == 1 else sum([key.condition.busy for key in keys])
