"""Ours with state: within limits and budgets, counted in memory or on Redis, and answering from its cache.

Law: the same plain request as everybody's, so that each row stands beside nginx's and ours without; Redis is on the driver's core.
"""

from __future__ import annotations

import shutil
import sys
import time
from functools import partial
from pathlib import Path

import measure
from contest import Contestant, Figures
from drive import check
from peers import EVERYTHING, Peer, needs, ours
from process import Process, free_port, start, wait_for_port

MANY = 10**9
LIMITS = {"requests_per_minute": MANY, "tokens_per_minute": MANY, "concurrent": 100_000}
BUDGETS = [{"usd": 10**6, "period": "month"}]
PRICES = {"mock/mock-100x10": {"input": 1, "output": 4}}
GRANTED = {
    "prices": PRICES,
    "tenants": {"bench": {"limits": LIMITS, "budgets": BUDGETS}},
    "keys": {"tenant": "bench", "limits": LIMITS, "budgets": BUDGETS},
}
CACHED = {"cache": {"enabled": True, "ttl_seconds": 3600}}


def redis(folder: Path, core: int) -> tuple[Process, str] | None:
    """A Redis or Valkey of its own, and its URL; None where there is none."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        return None
    port = free_port()
    (folder / "redis").mkdir(parents=True, exist_ok=True)
    process = start("redis", [binary, "--port", str(port), "--save", "", "--appendonly", "no"], folder / "redis", core)
    wait_for_port(port, process)
    return process, f"redis://127.0.0.1:{port}/0"


def peers(chosen: list[Peer], url: str | None) -> list[Peer]:
    """The plain ones that were chosen, and ours with state."""
    there = needs(Path(sys.executable).parent / "llm-gateway")
    plain = [peer for peer in chosen if peer.name in ("ours", "nginx", "envoy")]
    if not any(peer.name == "ours" for peer in plain):
        return plain
    shared = {**GRANTED, "redis": {"url": url}}
    return [
        *plain,
        Peer("limits", "ours, limits and budgets in memory", partial(ours, more=GRANTED), there, EVERYTHING),
        Peer("redis", "ours, limits and budgets on Redis", partial(ours, more=shared), there if url else lambda: "redis-server is not installed", EVERYTHING),
        Peer("hit", "ours, from its cache", partial(ours, more=CACHED), there, EVERYTHING),
    ]


def plain(one: Contestant, seconds: float, connections: int, folder: Path) -> Figures:
    """As measure.plain, once what was spent before is known to it: a second or so after its start a hard budget is not spent from."""
    deadline, good = time.monotonic() + 15.0, 0
    while one.name in ("limits", "redis") and good < 5:  # it stood still since its last turn, and a connection of its may be found out to be over
        try:
            check(one.door)
            good += 1
        except RuntimeError:
            good = 0
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
    return measure.plain(one, seconds, connections, folder)
