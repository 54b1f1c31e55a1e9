"""Regions: a gateway and its upstreams in a network namespace each, wires between all and to the clients'.

    world = World(house)
    eu, us = world.region("eu"), world.region("us")        # namespaces, wires, an upstream in each
    gateway = world.gateway(eu, providers={"here": eu, "there": us}, models=...)
    gateway.ask("here/ok", connect=world.door(eu, gateway))   # as a client elsewhere reaches it
    world.cut(us); world.join(us)                           # the whole region, for clients and for other regions

Law: a cut is silent: packets vanish, nobody is told. Within a cut region everything goes on and reaches itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from faults.house import Gateway, House, Upstream
from faults.space import Space, Wire


class Region:
    """`upstream` listens in it; `address(other)`: where it is found from another space."""

    def __init__(self, name: str, space: Space) -> None:
        self.name = name
        self.space = space
        self.wires: dict[Space, tuple[Wire, str]] = {}  # by the space at the other end: the wire, and our address on it
        self.upstream: Upstream

    def address(self, seen_from: Space) -> str:
        return "127.0.0.1" if seen_from is self.space else self.wires[seen_from][1]


class World:
    """Clients live in a space of their own, wired to every region; every region is wired to every other."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.clients = house.space()
        self.regions: list[Region] = []

    def region(self, name: str, *, delay: float = 0.0) -> Region:
        """delay: seconds each way, to clients and to the regions that exist."""
        region = Region(name, self.house.space())
        wire = self.house.wire(self.clients, region.space, delay=delay)
        region.wires[self.clients] = (wire, wire.far)
        for other in self.regions:
            between = self.house.wire(other.space, region.space, delay=delay)
            region.wires[other.space] = (between, between.far)
            other.wires[region.space] = (between, between.near)
        region.upstream = self.house.upstream(host="0.0.0.0", space=region.space)
        self.regions.append(region)
        return region

    def gateway(self, region: Region, providers: Mapping[str, Region | Mapping[str, object]], **sections: Any) -> Gateway:
        """A gateway in `region` that listens on all its addresses. A provider is a region's upstream, or said in full."""
        said = {
            name: f"http://{each.address(region.space)}:{each.upstream.port}" if isinstance(each, Region) else each
            for name, each in providers.items()
        }
        server = {"host": "0.0.0.0", **sections.pop("server", {})}
        return self.house.gateway(said, space=region.space, server=server, **sections)

    def door(self, region: Region, gateway: Gateway, timeout: float = 10.0) -> Callable[[], socket.socket]:
        """Connects to that region's gateway as a client elsewhere does."""
        return lambda: self.clients.connect((region.address(self.clients), gateway.port), timeout)

    def cut(self, region: Region) -> None:
        for wire, _ in region.wires.values():
            wire.order(cut=1)

    def join(self, region: Region) -> None:
        for wire, _ in region.wires.values():
            wire.order(cut=0)
