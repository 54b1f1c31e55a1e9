"""Two regions, each with a gateway and an upstream; one is cut off from everybody, and comes back."""

from __future__ import annotations

import signal

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


@pytest.mark.row("regions")
def test_the_near_region_answers_the_far_one_takes_over_and_who_must_stay_stays(house: House, seen: Seen) -> None:
    """Targets that say where they run, taken in turn; then the near upstream is killed. One alias may not leave its region."""
    world = World(house)
    eu, us = world.region("eu"), world.region("us", delay=0.01)
    providers = {
        "eu": {"base_url": f"http://127.0.0.1:{eu.upstream.port}", "region": "eu-west-1", "max_retries": 0},
        "us": {"base_url": f"http://{us.address(eu.space)}:{us.upstream.port}", "region": "us-east-1", "max_retries": 0},
    }
    both = {"strategy": "round_robin", "targets": ["us/ok", "eu/ok"]}
    models = {"best": both, "stays": {**both, "residency": ["eu"]}, "nowhere": {"targets": ["us/ok"], "residency": ["eu"]}}
    gateway = world.gateway(eu, providers, models=models, server={"region": "eu-west-1"})
    near = [gateway.ask("best").headers["x-gateway-provider"] for _ in range(10)]
    assert near == ["eu"] * 10, "the far one is no turn of theirs"
    refused = gateway.ask("nowhere")
    assert (refused.status, refused.code) == (403, "residency")
    eu.upstream.send(signal.SIGKILL)
    over = [gateway.ask("best") for _ in range(10)]
    assert {(each.status, each.headers["x-gateway-provider"]) for each in over} == {(200, "us")}
    stays = [gateway.ask("stays") for _ in range(10)]
    assert {each.status for each in stays} <= {502, 503}
    assert us.upstream.seen()["models"]["ok"] == 10, "nothing that must stay went there"
    seen(f"10 of 10 near while it lived, 10 of 10 far after (first in {1e3 * over[0].seconds:.0f} ms); where data must stay: "
         f"{sorted({each.status for each in stays})}, and not one request across")
