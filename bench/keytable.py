"""What 100,000 keys cost: writing their table, opening it, looking keys up, and the memory of each worker that does.

    .venv/bin/python bench/keytable.py [--keys 100000]

Keys stand in SQLite as the admin API leaves them; the table is written by the operator's code and read by the worker's. Memory is that of
four processes with a worker's imports, before and after each has looked 20,000 keys up: PSS divides pages that several of them share.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import insert

from llm_gateway import wiring, worker  # noqa: F401  its imports are part of what is measured
from llm_gateway.admission.auth import Keys
from llm_gateway.admission.directory import KEYS, Directory
from llm_gateway.admission.holders import Everybody, Holders
from llm_gateway.core.tenancy import Grant, Key, Limits, Tenant
from llm_gateway.stores.sql import tables
from llm_gateway.stores.sql.directory import Register, _values
from llm_gateway.stores.sql.engine import connect, writing
from llm_gateway.stores.sql.migrate import upgrade

SECRET, LOOKED, ROUNDS, WORKERS = b"0123456789abcdef", 20_000, 5, 4
TENANTS = 100


def token(number: int) -> bytes:
    return b"sk-gw-%040d" % number


def key(number: int) -> Key:
    digest = hmac.digest(SECRET, token(number), "sha256")
    grant = Grant(Limits(requests=60)) if number % 10 == 0 else None
    return Key(id=f"key_{number:016x}", name=f"client {number}", digest=digest, tenant=f"tenant-{number % TENANTS}", user=f"user-{number}", grant=grant)


async def prepare(folder: Path, count: int) -> dict[str, float]:
    engine = connect(f"sqlite:///{folder}/gateway.db")
    await upgrade(engine)
    register = Register(engine)
    for number in range(TENANTS):
        await register.create(Tenant(f"tenant-{number}", Grant(Limits(tokens=10**6))), 0.0)
    async with writing(engine) as connection:
        for start in range(0, count, 1000):
            await connection.execute(insert(tables.keys), [_values(key(number)) for number in range(start, min(count, start + 1000))])
    begun = time.perf_counter()
    await register.export(folder / KEYS, 0.0)
    taken = time.perf_counter() - begun
    await engine.dispose()
    return {"written in, s": taken, "file, MB": (folder / KEYS).stat().st_size / 1e6}


def memory() -> dict[str, float]:
    """MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {name: int(lines[name].split()[0]) / 1024 for name in ("Rss", "Pss", "Private_Dirty")}


def look(folder: Path, count: int) -> dict[str, float]:
    """In a process of its own, beside others: memory is measured once all of them have looked."""
    asked = [{b"authorization": b"Bearer " + token(number)} for number in random.Random(1).sample(range(count), min(count, LOOKED))]
    digests = [hmac.digest(SECRET, each[b"authorization"][7:], "sha256") for each in asked]
    before = memory()
    begun = time.perf_counter()
    directory = Directory()
    assert directory.open(folder / KEYS) == ""
    opened = time.perf_counter() - begun
    for digest in digests:
        assert directory.key(digest)
    print("looked", flush=True)
    sys.stdin.readline()
    after = memory()
    more = {f"more {name} per worker, MB": after[name] - before[name] for name in after}
    print("measured", flush=True)
    sys.stdin.readline()
    keys = Keys(SECRET, [], Holders({}, Everybody(), directory.find), directory=directory)
    best = {"first": 1e9, "again": 1e9}
    for _ in range(ROUNDS):
        keys.forget()
        for name, least in [*best.items()]:
            begun = time.perf_counter()
            for headers in asked[:5000]:
                keys.principal(headers)
            best[name] = min(least, (time.perf_counter() - begun) / len(asked[:5000]) * 1e6)
    remembered = memory()["Private_Dirty"] - after["Private_Dirty"]
    return {
        "opened in, ms": opened * 1e3, **more, "a key's first request, us": best["first"], "each further one, us": best["again"],
        "5,000 remembered, MB": remembered,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.look is not None:
        print(json.dumps(look(args.look, args.keys)))
        return
    with tempfile.TemporaryDirectory() as name:
        told = asyncio.run(prepare(Path(name), args.keys))
        command = [sys.executable, __file__, "--keys", str(args.keys), "--look", name]
        workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
        for each in workers:
            each.stdout.readline()
        for each in workers:
            each.stdin.write("\n")
            each.stdin.flush()
        for each in workers:
            each.stdout.readline()
        first, *others = workers
        for each in others:  # what follows is timed, and wants a core of its own
            each.kill()
            each.communicate()
        told |= json.loads(first.communicate("\n")[0])
    print(f"{args.keys:,} keys")
    for what, figure in told.items():
        print(f"  {what:28} {figure:10.2f}")


if __name__ == "__main__":
    main()
