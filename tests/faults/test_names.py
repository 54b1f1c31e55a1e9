"""Row 18: names that do not resolve, resolve late, change, and stop resolving."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from faults.clock import faster
from faults.conftest import Seen
from faults.house import Answer, Gateway, House, Upstream, percentile
from faults.names import NO_SUCH_NAME, SILENT, Names
from faults.space import Space
from processes import eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("spaces")]

# The gateway sees a resolver configuration of its own, in a mount namespace of its own.
PRIVATE = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"']


class Town:
    """A namespace with a name server, a gateway that asks it, and upstreams at several loopback addresses."""

    def __init__(self, house: House, told: dict[str, object], env: dict[str, str] | None = None) -> None:
        self.space: Space = house.space()
        self.names = Names(self.space, told)
        self.upstreams: list[Upstream] = [house.upstream(host=f"127.0.0.{each}", space=self.space, port=8000) for each in (1, 2)]
        house.folder.joinpath("resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:3 attempts:1\n")
        providers: dict[str, Any] = {name.partition(".")[0]: f"http://{name}:8000" for name in told}
        self.gateway: Gateway = house.gateway(
            {**providers, "plain": "http://127.0.0.1:8000"}, space=self.space, before=[*PRIVATE, str(house.folder / "resolv.conf")], env=env,
            models={"gone-first": {"targets": ["gone/ok"], "fallbacks": ["plain/ok"]}},
        )  # fmt: skip


@pytest.mark.row(18)
def test_names_that_fail_or_hang_are_nobody_elses_trouble(house: House, seen: Seen) -> None:
    """A name server that says no, says nothing, or answers after 2 s, while others are asked for as usual."""
    silent = {f"silent{number}.test": SILENT for number in range(16)}
    town = Town(house, {"gone.test": NO_SUCH_NAME, "late.test": (2.0, "127.0.0.1"), "quick.test": "127.0.0.1", **silent})
    gateway = town.gateway
    gone = gateway.ask("gone/ok")
    assert (gone.status, gone.code) == (502, "upstream_dns")
    assert gateway.ask("gone-first").headers["x-gateway-provider"] == "plain"
    quiet = [gateway.ask("quick/ok").seconds for _ in range(100)]
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda name=name: answers.append(gateway.ask(f"{name}/ok")))
        for name in ("late", *(f"silent{number}" for number in range(16)))
    ]
    for each in threads:
        each.start()
    meanwhile = [gateway.ask("quick/ok").seconds for _ in range(200)]
    for each in threads:
        each.join()
    assert sorted(each.status for each in answers) == [200, *[502] * 16]
    assert {each.code for each in answers if each.status == 502} == {"upstream_dns"}
    before, during = percentile(quiet, 0.5), percentile(meanwhile, 0.5)
    seen(f"no such name: 502 `upstream_dns` after {1e3 * gone.seconds:.0f} ms; 16 names hanging: 502 within {max(e.seconds for e in answers):.1f} s, "
         f"another host meanwhile {1e3 * during:.1f} ms (median; p99 {1e3 * percentile(meanwhile, 0.99):.1f}), {1e3 * before:.1f} without them")
    assert during < before + 0.010


@pytest.fixture
def hurried() -> dict[str, str]:
    return faster(20)


@pytest.mark.row(18)
def test_a_changed_name_is_followed_and_a_lost_one_served_for_five_minutes(house: House, hurried: dict[str, str], seen: Seen) -> None:
    """The name moves to another address, then its server falls silent; the gateway's clocks run 20 times as fast (libfaketime)."""
    town = Town(house, {"moves.test": "127.0.0.1", "gone.test": NO_SUCH_NAME}, hurried)
    gateway, (one, other) = town.gateway, town.upstreams
    ask = lambda: gateway.ask("moves/fault-then_close")  # noqa: E731  each on a connection of its own
    assert ask().status == 200
    town.names.told["moves.test"] = "127.0.0.2"
    assert (one.seen()["models"], other.seen()["models"]) == ({"fault-then_close": 1}, {})
    changed = time.monotonic()
    eventually(lambda: ask().status == 200 and other.seen()["models"], 30)
    followed = time.monotonic() - changed
    town.names.told["moves.test"] = NO_SUCH_NAME
    lost = time.monotonic()
    statuses = []
    while not statuses or statuses[-1] == 200:
        assert time.monotonic() - lost < 60, "the last good answer is used for ever"
        answer = ask()
        statuses.append(answer.status)
        time.sleep(0.2)
    served = time.monotonic() - lost
    assert (answer.status, answer.code) == (502, "upstream_dns")
    town.names.told["moves.test"] = "127.0.0.1"
    eventually(lambda: ask().status == 200, 30)
    seen(f"new address taken {20 * followed:.0f} s after the change; name lost: last good answer for {20 * served:.0f} s ({len(statuses) - 1} requests "
         "fine), then 502 `upstream_dns`; back at once when it resolves again")
    assert 5 < served < 20
