"""All faults at once, by dice, for as long as wanted; then the books are held against what clients hold.

    python tests/faults/everything.py --seconds 300 --seed 7 --redis cluster        `make chaos`

Two gateways of two workers share a Redis and a PostgreSQL; behind them an upstream changes its mood. Meanwhile processes are killed, frozen, ended
and begun again, Redis and PostgreSQL freeze, restart and hang up, configurations change, and clients of three shapes leave in the midst of replies.

Law: whatever happened, afterwards each whole reply has exactly one row, at the cost that its head told; hours, days and rows are the same
sums; Redis counts as spent what the rows cost, to the nano-dollar; no idempotency key was paid for twice while Redis lived; nobody is left under
way, and no log tells of an exception. Of a cluster a part may be away while another is there: keys of that time may be paid for twice (docs/limits.md),
and nobody is killed in it (docs/redis.md, "A worker that ends meanwhile").
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # a program: `faults` is a package of the tests' folder

from faults.crowd import KEYS, Crowd
from faults.house import Gateway, House, Upstream, await_ready, command, descendants, kill
from faults.shared import KINDS, Alone
from postgres import Postgres, postgres_server
from processes import alive, eventually

MODELS = {
    "steady": ("up/fault-ok", ["other/fault-ok"]),
    "rough": ("up/moody", ["other/fault-ok"]),
    "long": ("up/fault-paced:20,0.02", []),
    "slow": ("up/fault-slow_ok:0.2", []),
    "broken": ("up/fault-rst_midstream", []),
}
MOODS = [
    "ok", "status:500", "status:429", "rst_midstream", "reset_at_once", "stall:1", "slow_ok:1", "error_in_200", "cut_midstream", "html", "gzipped",
    "role_only_then_cut",
]  # fmt: skip
ENVIRON = {"LLM_GATEWAY_SECRET": "s" * 32}
UNEXPECTED = re.compile(r"Traceback|Exception ignored|never retrieved|was destroyed|Fatal error on transport")
ROWS = "SELECT request_id, coalesce(cost, 0), coalesce(cached, false) FROM usage WHERE parent = ''"
SUMS = "SELECT (SELECT count(*) FROM usage WHERE parent = ''), (SELECT sum(requests) FROM usage_hourly), (SELECT sum(requests) FROM usage_daily)"
PAID = "SELECT request_id, key FROM usage WHERE cost > 0"
MONEY = "SELECT key, sum(coalesce(cost, 0)) FROM usage GROUP BY key"


def sections(redis_url: str, database: str) -> dict[str, Any]:
    money = [{"usd": 1_000_000, "period": "total"}]
    models: dict[str, Any] = {name: {"targets": [target], "fallbacks": fallbacks} for name, (target, fallbacks) in MODELS.items()}
    models["rough"]["hedge"] = {"after": 0.3, "budget": 0.5}
    priced = {target.partition("/")[2] for target, _ in MODELS.values()}
    return {
        "workers": 2, "replicas": 2, "redis": {"url": redis_url}, "database": {"url": database}, "models": models,
        "prices": {f"{provider}/{model}": {"input": 500, "output": 1000} for provider in ("up", "other") for model in priced},
        "cache": {"enabled": True, "backend": "redis", "ttl_seconds": 30}, "server": {"timeout_seconds": 12},
        "keys": [{"name": name, "key": key, "tenant": "acme", "limits": {"concurrent": 40}, "budgets": money} for name, key in KEYS.items()],
    }  # fmt: skip


@dataclass
class World:
    house: House
    upstream: Upstream
    gateways: list[Gateway]
    redis: Alone
    postgres: Postgres
    database: str

    def again(self, gateway: Gateway) -> None:
        self.house.again(gateway, ENVIRON)
        await_ready(gateway, 60)

    def ask(self, statement: str) -> list[list[str]]:
        return [line.split("|") for line in self.postgres.run(statement, self.database).splitlines()]

    def logs(self) -> Iterator[str]:
        """Of the gateways, all their lives."""
        for file in sorted(self.house.folder.glob("*.log")):
            text = file.read_text(errors="replace")
            if '"event"' in text:
                yield text


@contextmanager
def world(folder: Path, kind: str) -> Iterator[World]:
    house = House(folder)
    try:
        with KINDS[kind](folder) as shared, postgres_server() as postgres:
            upstream, database = house.upstream(), postgres.database()
            made = sections(shared.url, database)
            both = {"up": upstream.url, "other": upstream.url}
            gateways = [house.gateway(both, env=ENVIRON, ready=False, data_dir=folder / f"data-{name}", **made) for name in ("one", "two")]
            for each in gateways:
                await_ready(each, 60)
            eventually(lambda: all(each.metric("llm_gateway_redis_unavailable") == 0 and (each.data / "spend.table").exists() for each in gateways), 60)
            yield World(house, upstream, gateways, shared, postgres, database.rpartition("/")[2])
    finally:
        house.close()


class Troubles:
    """One method, one trouble; each is over when it returns."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice
        self.done: Counter[str] = Counter()
        self.apart: list[tuple[float, float]] = []  # when Redis was in trouble, and a while after; monotonic seconds
        self.all: list[Callable[[], None]] = [
            self.worker_killed, self.worker_frozen, self.operator_killed, self.operator_frozen, self.gateway_killed, self.gateway_ended,
            self.reloaded, self.database_frozen, self.database_restarted, self.upstream_moody, self.upstream_moody, *map(self._of_redis, world.redis.troubles),
        ]  # fmt: skip

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            trouble = self.dice.choice(self.all)
            if self.apart and trouble.__name__.endswith(("_killed", "_ended")):
                time.sleep(max(0.0, self.apart[-1][1] - time.monotonic()))
            trouble()
            self.done[trouble.__name__] += 1
            time.sleep(self.dice.random() * 1.2)
        self.world.upstream.told("ok")

    def worker_killed(self) -> None:
        self._strike("worker", signal.SIGKILL)

    def worker_frozen(self) -> None:
        self._freeze("worker")

    def operator_killed(self) -> None:
        self._strike("operator", signal.SIGKILL)

    def operator_frozen(self) -> None:
        self._freeze("operator")

    def gateway_killed(self) -> None:
        gateway = self._gateway()
        tree = [gateway.process.pid, *descendants(gateway.process.pid)]
        for pid in tree:
            kill(pid, signal.SIGKILL)
        gateway.process.wait(10)
        eventually(lambda: not any(map(alive, tree)), 30)
        self.world.again(gateway)

    def gateway_ended(self) -> None:
        gateway = self._gateway()
        gateway.send(signal.SIGTERM)
        gateway.process.wait(60)
        self.world.again(gateway)

    def reloaded(self) -> None:
        gateway = self._gateway()
        config = json.loads(gateway.config.read_text())
        config["models"][f"new-{self.dice.randrange(3)}"] = {"targets": ["up/fault-ok"]}
        config["cache"]["ttl_seconds"] = self.dice.randrange(5, 60)
        config["keys"][0]["limits"] = {"concurrent": self.dice.randrange(30, 60)}
        draft = gateway.config.with_suffix(".draft")
        draft.write_text(json.dumps(config))
        draft.rename(gateway.config)
        if self.dice.random() < 0.5:
            gateway.send(signal.SIGHUP)

    def database_frozen(self) -> None:
        with self.world.postgres.frozen():
            time.sleep(self.dice.random() * 2)

    def database_restarted(self) -> None:
        self.world.postgres.stop()
        time.sleep(self.dice.random())
        self.world.postgres.start()

    def upstream_moody(self) -> None:
        self.world.upstream.told(self.dice.choice(MOODS))

    def _of_redis(self, trouble: Callable[[random.Random], None]) -> Callable[[], None]:
        def redis() -> None:
            begun = time.monotonic()
            trouble(self.dice)
            self.apart.append((begun, time.monotonic() + self.world.redis.parts))

        redis.__name__ = f"redis_{trouble.__name__}"
        return redis

    def _gateway(self) -> Gateway:
        return self.dice.choice(self.world.gateways)

    def _parts(self, name: str) -> list[int]:
        return [pid for pid in descendants(self._gateway().process.pid) if f"llm_gateway.{name}" in command(pid)]

    def _strike(self, name: str, number: int) -> None:
        if parts := self._parts(name):
            kill(self.dice.choice(parts), number)

    def _freeze(self, name: str) -> None:
        if parts := self._parts(name):
            pid = self.dice.choice(parts)
            kill(pid, signal.SIGSTOP)
            time.sleep(self.dice.random() * 2)
            kill(pid, signal.SIGCONT)


def wrongs(world: World, crowd: Crowd, troubles: Troubles) -> list[str]:
    """What the law above forbids and was found; nothing is a pass."""
    eventually(lambda: all(each.metric("llm_gateway_journal_lag_rows") == 0 for each in world.gateways), 60)
    found, rows = list(crowd.wrong), dict[str, list[tuple[int, bool]]]()
    eventually(lambda: not crowd.held.keys() - {name for name, *_ in world.ask(ROWS)}, 30)
    for name, cost, cached in world.ask(ROWS):
        rows.setdefault(name, []).append((int(cost), cached == "t"))
    found += [f"{name}: {len(each)} rows" for name, each in rows.items() if len(each) > 1]
    for name, held in crowd.held.items():
        if held.cost is not None and rows[name][0][0] != held.cost:
            found.append(f"{name}: told {held.cost}, booked {rows[name][0][0]}")
    for key, names in crowd.once.items():
        paid = [name for name in names if any(cost and not cached for cost, cached in rows[name])]
        asked = [(crowd.held[name].begun, crowd.held[name].ended) for name in paid]
        excused = world.redis.parts and any(begun < until and since < ended for begun, ended in asked for since, until in troubles.apart)
        if len(paid) > 1 and not excused:
            found.append(f"{key}: paid for {len(paid)} times, {paid}")
    deadline = time.monotonic() + 20.0  # rows of replies that nobody holds: the operator tells once a second how many it has to take in
    while (sums := _sums(world)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found + sums + _left(world)


def _sums(world: World) -> list[str]:
    """Reservations of the killed go by themselves; what was spent is spent for good."""
    (sums,) = world.ask(SUMS)
    found = [f"rows, hours and days: {sums}"] if len(set(sums)) > 1 else []
    booked = {key: int(cost) for key, cost in world.ask(MONEY)}
    for key in KEYS:
        spent = world.redis.value(f"*:key:{key} budget total", "s")
        if spent != booked.get(key, 0):
            unheard = [row[0] for row in world.ask(PAID) if row[1] == key and not world.redis.knows(f"*:!{row[0]}*")]
            found.append(f"{key}: Redis counts {spent}, the rows {booked.get(key, 0)}; it has not heard of {unheard}")
    return found


def _left(world: World) -> list[str]:
    found = [f"an exception in a log: {text[match.start() : match.start() + 4000]}" for text in world.logs() if (match := UNEXPECTED.search(text))]
    for each in world.gateways:
        eventually(lambda each=each: each.metric("llm_gateway_active_requests") == 0 and each.metric("llm_gateway_open_streams") == 0, 20)
    return found


def run(folder: Path, seconds: float, seed: int, kind: str = "alone") -> tuple[Crowd, Troubles, list[str]]:
    """kind: of Redis, one of `KINDS`."""
    with world(folder, kind) as made:
        crowd, troubles = Crowd(made.gateways, list(MODELS), seed), Troubles(made, random.Random(seed))
        crowd.start()
        try:
            troubles.run(seconds)
            time.sleep(2.0)  # the last one is over for everybody
        finally:
            crowd.stop()
        return crowd, troubles, wrongs(made, crowd, troubles)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16))
    parser.add_argument("--redis", choices=KINDS, default="alone")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everything-") as folder:
        crowd, troubles, found = run(Path(folder), chosen.seconds, chosen.seed, chosen.redis)
    print(f"seed {chosen.seed}: {troubles.done.total()} troubles {dict(troubles.done)}")
    print(f"clients were told {dict(crowd.told.most_common())}; {sum(len(each) > 1 for each in crowd.once.values())} idempotency keys used again")
    print("\n".join(found) or f"{len(crowd.held)} whole replies, each with its row, and all sums agree")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
