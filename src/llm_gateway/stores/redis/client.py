"""Commands to whoever has their keys: one server, the master that sentinels name, or a cluster's nodes.

Law: `send` never waits and never raises: without a ready server the command's sink is told `away` at once. That a server is one of a cluster is
learned from its first MOVED, unless the terms say so; from then on every slot has its link, and whatever goes wrong asks for the map anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

from msgspec import Struct

from llm_gateway.stores.redis import slots
from llm_gateway.stores.redis.dial import Dialler
from llm_gateway.stores.redis.link import Link, Setup
from llm_gateway.stores.redis.meter import Meter
from llm_gateway.stores.redis.resp import AWAY, Call, Command, Connection, Failure, Script, pack
from llm_gateway.stores.redis.terms import Node, Terms, name

AGAIN = 0.01  # seconds until a command that found its slot on its way is sent once more
MAP_EVERY, MAP_SOON = 30.0, 0.3
FLEETING = frozenset({"connecting", "lost", AWAY, "moved"})  # reasons of a link that is made again at once


class Turn(Struct, frozen=True):
    """A server became ready, or not any more: `reason` "" or a Failure's kind."""

    node: str
    reason: str


class Client:
    """`tell`: of servers that come and go; `lost`: of those that came back empty, by which slots are theirs. Made and used on one running loop."""

    def __init__(
        self, terms: Terms, scripts: tuple[Script, ...], meter: Meter, tell: Callable[[Turn], None], lost: Callable[[Callable[[int], bool]], None]
    ) -> None:
        self._lost = lost
        self._terms = terms
        self._meter = meter
        self._tell = tell
        self._dialler = Dialler(terms)
        self._setup = Setup(terms.login, terms.db, terms.timeout, scripts)
        self._loop = asyncio.get_running_loop()
        self._links: dict[Node, Link] = {}
        self._one: Link | None = None
        self._table: list[Link] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0  # loop time, of the timer
        self._begun = perf_counter()
        self._later = 0  # commands that are sent once more in a moment
        self._closed = False
        if terms.master:
            self._one = self._link((terms.master, 0), self._dial_master)
            return
        for node in terms.nodes:
            self._one = self._link(node)
        if terms.cluster or len(terms.nodes) > 1:
            self._one = None

    def __repr__(self) -> str:
        return f"<Client of {', '.join(map(repr, self._links.values()))}>"

    @property
    def ready(self) -> bool:
        if self._one is not None:
            return self._one.gate is not None
        return bool(self._table) and all(link.gate is not None for link in {id(link): link for link in self._table}.values())

    def reaches(self, slot: int) -> bool:
        link = self._one or (self._table[slot] if self._table else None)
        return link is not None and link.gate is not None

    def hung_up(self, slot: int, lately: float) -> bool:
        """Whether who has a slot has been away since less than `lately` seconds, for want of a connection only, or is not known yet."""
        link = self._one or (self._table[slot] if self._table else None)
        since = self._begun if link is None else link.turned_at
        return (link is None or link.reason in FLEETING) and perf_counter() - since < lately

    @property
    def cluster(self) -> bool:
        return self._one is None

    @property
    def waiting(self) -> int:
        """Commands without an answer yet."""
        return self._later + sum(len(link.gate.pending) for link in self._links.values() if link.gate is not None)

    def send(self, command: Command) -> None:
        link = self._one or (self._table[command.slot] if self._table else None)
        gate = link.gate if link is not None else None
        if gate is not None:
            gate.send(command)
        else:
            self._meter.fail(AWAY)
            command.answer(Failure(AWAY))

    def post(self, command: Command) -> None:
        """As `send`, for what nobody waits for."""
        link = self._one or (self._table[command.slot] if self._table else None)
        if link is not None and link.gate is not None:
            link.gate.post(command)
        else:
            self._meter.fail(AWAY)
            command.answer(Failure(AWAY))

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for link in self._links.values():
            link.close()
        self._dialler.close()

    # -- of links ----------------------------------------------------------------------------------------------------

    def turned(self, link: Link, reason: str) -> None:
        if self._closed:
            return
        if self._one is None:
            self._map_in(0.0 if not self._table else MAP_SOON)
        self._tell(Turn(name(link.node), reason))

    def emptied(self, link: Link) -> None:
        self._lost(lambda slot: (self._one or self._table[slot]) is link)

    def redirected(self, link: Link, command: Command, text: str) -> None:
        word = text.partition(" ")[0]
        if word == "TRYAGAIN":  # its slot is on the way from one node to another
            self._send_later(link, command)
            return
        slot, node = slots.moved(text, link.node)
        target = self._link(node)
        if word == "ASK":
            if target.gate is not None:
                target.gate.send(Command(pack("ASKING"), Call(_heard)))
            self._send_to(target, command)
            return
        if self._one is not None:
            self._table, self._one = [self._one] * slots.SLOTS, None
        if self._table:  # else the map that is asked for now is the first
            self._table[slot] = target
        self._map_in(0.0)
        self._send_to(target, command)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _link(self, node: Node, dial: Callable[[Callable[[], Connection]], Awaitable[Connection]] | None = None) -> Link:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = Link(node, dial or partial(self._dialler.dial, node), self._setup, self, self._meter)
        return link

    async def _dial_master(self, make: Callable[[], Connection]) -> Connection:
        return await self._dialler.dial(await self._dialler.master(), make)

    def _spread(self) -> None:
        for node in self._terms.nodes:
            self._link(node)

    def _send_to(self, link: Link, command: Command) -> None:
        """To a link that may just be opening: a few milliseconds more are better than none. Not for somebody who left meanwhile: what he took
        is given back already, and would be taken after that."""
        if command.sink.done():
            return
        if link.gate is not None:
            link.gate.send(command)
        elif command.hops < 4 and not self._closed:
            command.hops += 1
            self._send_later(link, command)
        else:
            self._meter.fail(AWAY)
            command.answer(Failure(AWAY))

    def _send_later(self, link: Link, command: Command) -> None:
        self._later += 1
        self._loop.call_later(AGAIN, self._sent_later, link, command)

    def _sent_later(self, link: Link, command: Command) -> None:
        self._later -= 1
        self._send_to(link, command)

    def _map_in(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due, self._timer = due, self._loop.call_later(seconds, self._map)

    def _map(self) -> None:
        """Asks any node that is ready; they all know."""
        self._timer = None
        link = next((link for link in self._links.values() if link.gate is not None), None)
        if link is None or link.gate is None:
            self._spread()  # the names that the configuration knows may lead to other servers by now
            self._map_in(MAP_SOON)
            return
        link.gate.send(Command(pack("CLUSTER", "SLOTS"), Call(partial(self._mapped, link))))

    def _mapped(self, asked: Link, reply: Any) -> None:
        if self._closed:
            return
        found = [*slots.ranges(reply, asked.node)]
        if found:
            self._install(found)
        whole = sum(each.last - each.first + 1 for each in found) == slots.SLOTS
        self._map_in(MAP_EVERY if whole and self.ready else MAP_SOON)

    def _install(self, found: list[slots.Range]) -> None:
        table: list[Link] = self._table or [self._link(found[0].node)] * slots.SLOTS
        for each in found:
            link = self._link(each.node)
            link.probe(f"llmgw:{{{slots.tag_of(each.first, each.last)}}}")
            table[each.first : each.last + 1] = [link] * (each.last - each.first + 1)
        self._table = table
        used = set(map(id, table))
        for node, link in [*self._links.items()]:
            if id(link) not in used:
                del self._links[node]
                link.close()


def _heard(reply: Any) -> None:
    """ASKING: the command behind it says how that went."""
