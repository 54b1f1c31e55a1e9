"""The Redis that gateways share: one server, or a cluster of three masters with a replica each. What may befall it is the same, and more for a cluster.

Law: nothing here loses what a server has said yes to: replicas take over when they know all, and slots move whole. So the books must agree to the end.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from processes import eventually
from redis_server import Process, redis_server, say, valkey_cluster


class Alone:
    """Each of its troubles is over when it returns. `parts`: seconds after one for which a gateway may know less than Redis, or Redis less than a gateway,
    since budgets and idempotency keys are at different servers: only where all are away together, nothing is asked."""

    parts = 0.0

    def __init__(self, url: str, ports: list[int], processes: list[Process]) -> None:
        self.url = url
        self.ports = ports
        self.processes = processes
        self.troubles = [self.frozen, self.hangs_up, self.forgets_scripts]

    def frozen(self, dice: random.Random) -> None:
        process = dice.choice(self.processes)
        process.send_signal(signal.SIGSTOP)
        time.sleep(dice.random() * 1.5)
        process.send_signal(signal.SIGCONT)

    def hangs_up(self, dice: random.Random) -> None:
        say(dice.choice(self.ports), "CLIENT", "KILL", "TYPE", "normal")

    def forgets_scripts(self, dice: random.Random) -> None:
        say(dice.choice(self.ports), "SCRIPT", "FLUSH")

    def value(self, pattern: str, name: str) -> int:
        """Of the one hash that is called so."""
        found = []
        for port in self.masters():
            with redis.Redis(port=port, decode_responses=True) as client:
                found += [int(client.hget(key, name)) for key in client.keys(pattern)]  # type: ignore[arg-type, union-attr]
        (value,) = found
        return value

    def knows(self, pattern: str) -> bool:
        return any(say(port, "KEYS", pattern) for port in self.masters())

    def masters(self) -> list[int]:
        return self.ports


class Cluster(Alone):
    parts = 2.0

    def __init__(self, url: str, ports: list[int], processes: list[Process]) -> None:
        super().__init__(url, ports, processes)
        self.troubles += [self.fails_over, self.moves]

    def masters(self) -> list[int]:
        return [port for port in self.ports if _role(port) == b"master"]

    def fails_over(self, dice: random.Random) -> None:
        """In order: the master waits until its replica knows all, and is a replica then."""
        ready = [port for port in self.ports if port not in self.masters() and b"master_link_status:up" in say(port, "INFO", "replication")]  # type: ignore[operator]
        if ready:
            port = dice.choice(ready)
            say(port, "CLUSTER", "FAILOVER")
            eventually(lambda: _role(port) == b"master", 10)

    def moves(self, dice: random.Random) -> None:
        """The slot where the money is, to another master, some keys at a time."""
        masters = self.masters()
        ids = {port: say(port, "CLUSTER", "MYID") for port in masters}
        found = [say(port, "CLUSTER", "KEYSLOT", key) for port in masters for key in say(port, "KEYS", "*budget total")]  # type: ignore[attr-defined]
        if not found:
            return
        slot = found[0]
        source = next(port for port in masters if say(port, "CLUSTER", "COUNTKEYSINSLOT", slot))
        target = dice.choice([port for port in masters if port != source])
        say(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        say(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while keys := say(source, "CLUSTER", "GETKEYSINSLOT", slot, 200):
            say(source, "MIGRATE", "127.0.0.1", target, "", 0, 5000, "KEYS", *keys)  # type: ignore[misc]
            time.sleep(dice.random() * 0.005)
        for port in (target, source, *masters):
            say(port, "CLUSTER", "SETSLOT", slot, "NODE", ids[target])


@contextmanager
def alone(folder: Path) -> Iterator[Alone]:
    with redis_server(folder) as (url, process):
        yield Alone(url, [int(url.rpartition(":")[2].partition("/")[0])], [process])


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    with valkey_cluster(folder, replicas=True) as (ports, processes):
        yield Cluster(f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}", ports, processes)


KINDS: dict[str, Any] = {"alone": alone, "cluster": cluster}


def _role(port: int) -> object:
    return say(port, "ROLE")[0]  # type: ignore[index]
