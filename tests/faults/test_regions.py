"""Two regions, each with a gateway and an upstream; one is cut off from everybody, and comes back."""

from __future__ import annotations

import pytest

from faults.conftest import Seen
from faults.house import House
from faults.region import World
from processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("spaces")]


@pytest.mark.row("regions")
def test_a_region_that_is_cut_off_is_left_and_taken_back(house: House, seen: Seen) -> None:
    """Two gateways and upstreams in two network namespaces, 10 ms apart; every wire of one goes dead, silently."""
    world = World(house)
    eu, us = world.region("eu"), world.region("us", delay=0.01)
    sections = {"models": {"best": {"targets": ["there/ok"], "fallbacks": ["here/ok"]}}, "drain": {"lame_duck": 0, "timeout": 1}}
    quick = {"connect_timeout_seconds": 1, "timeout_seconds": 2}
    from_eu = {"base_url": f"http://{us.address(eu.space)}:{us.upstream.port}", **quick}
    from_us = {"base_url": f"http://{eu.address(us.space)}:{eu.upstream.port}", **quick}
    gateways = {eu: world.gateway(eu, {"here": eu, "there": from_eu}, **sections), us: world.gateway(us, {"here": us, "there": from_us}, **sections)}
    for region, gateway in gateways.items():
        answer = gateway.ask("best", connect=world.door(region, gateway))
        assert (answer.status, answer.headers["x-gateway-provider"]) == (200, "there"), region.name
    world.cut(us)
    cut = gateways[eu].ask("best", connect=world.door(eu, gateways[eu]))
    assert (cut.status, cut.headers["x-gateway-provider"]) == (200, "here")
    with pytest.raises(OSError, match="timed out"):
        gateways[us].ask("best", connect=world.door(us, gateways[us], timeout=1))
    alone = gateways[us].ask("here/ok")  # a client within the region
    assert alone.status == 200
    world.join(us)
    eventually(lambda: gateways[eu].ask("best", connect=world.door(eu, gateways[eu])).headers["x-gateway-provider"] == "there", 20)
    assert gateways[us].ask("best", connect=world.door(us, gateways[us])).status == 200
    seen(f"clients of the other region answered by its own upstream after {cut.seconds:.1f} s (connect timeout 1 s); the cut region serves itself; "
         "both whole again once joined")
