"""What our Redis client costs: CPU in the client's process, on one pinned core, beside redis-py. The server has a core of its own.

    taskset -c 0 .venv/bin/python bench/redis_ops.py [--requests 20000] [--loop uvloop]

Prints microseconds of CPU and calls: of one GET, and of one request's limits and budget (a reserve that is awaited, a settlement that is not),
by how many are under way at once.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop
from redis import asyncio as redis_py

from llm_gateway.core.gauges import Ask
from llm_gateway.core.tenancy import Claim
from llm_gateway.stores.redis.gauges import Shared
from llm_gateway.stores.redis.resp import Command, pack
from llm_gateway.stores.redis.terms import parse

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from redis_server import redis_server

PARALLEL = (1, 8, 32, 64)
CLAIMS = (
    Claim("key:1", "requests", 10_000_000),
    Claim("key:1", "tokens", 10_000_000_000),
    Claim("tenant:acme", "tokens", 10_000_000_000),
    Claim("tenant:acme", "budget", 10**15, "month"),
)


class Nothing:
    def bind(self, tenant, claims):
        raise RuntimeError("Redis is there")

    def rest(self, now, wall):
        return None


async def spread(count, parallel, one):
    """CPU seconds of one, of `count` in all."""

    async def some(number):
        for index in range(count // parallel):
            await one(number, index)

    await asyncio.gather(*(some(number) for number in range(parallel)))  # warm
    begun = time.process_time()
    await asyncio.gather(*(some(parallel + number) for number in range(parallel)))
    return (time.process_time() - begun) / count


async def calls(one):
    seen = {"call": 0, "c_call": 0}

    def count(frame, event, arg):
        if event in seen:
            seen[event] += 1

    for index in range(3):
        await one(0, f"warm{index}")
    sys.setprofile(count)
    for index in range(100):
        await one(0, f"p{index}")
    await asyncio.sleep(0.02)
    sys.setprofile(None)
    return round(seen["call"] / 100), round(seen["c_call"] / 100)


async def measure(url, requests):
    shared = Shared(msgspec.structs.replace(parse(url), timeout=5.0), Nothing())  # a busy machine is no reason to do without
    while not shared.ready:
        await asyncio.sleep(0.001)
    loop = asyncio.get_running_loop()
    account = shared.bind("acme", CLAIMS)
    pool = redis_py.BlockingConnectionPool.from_url(url, protocol=2, max_connections=50, timeout=None)
    library = redis_py.Redis(connection_pool=pool)
    script = library.register_script("return redis.call('GET', KEYS[1])")

    async def get(number, index):
        future = loop.create_future()
        shared.client.send(Command(pack("GET", "k"), future))
        await future

    serial = itertools.count()

    async def pair(number, index):
        ask = Ask(f"5f8a2c{next(serial):010x}", 1000, 10_000, 10_000, 600.0)
        verdict = await account.reserve(ask)
        assert verdict.refused is None, shared.gauges()
        account.settle(ask, 900, 9000)

    async def theirs(number, index):
        await library.get("k")

    async def scripted(number, index):
        await script(keys=["k"])

    print(f"{'':34}" + "".join(f"{f'{parallel} at once':>12}" for parallel in PARALLEL) + "    calls")
    for name, one, count in (
        ("ours: GET", get, requests), ("ours: reserve + settle, 4 claims", pair, requests),
        ("redis-py: GET", theirs, requests // 8), ("redis-py: EVALSHA", scripted, requests // 8),
    ):  # fmt: skip
        costs = [await spread(count, parallel, one) for parallel in PARALLEL]
        python, c = await calls(one)
        print(f"{name:34}" + "".join(f"{cost * 1e6:>9.1f} us" for cost in costs) + f"    {python} + {c}")
    await library.aclose()
    await shared.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as (url, server):
        core = (max(os.sched_getaffinity(0)) + 1) % (os.cpu_count() or 1)
        subprocess.run(["taskset", "-cp", str(core), str(server.pid)], check=False, stdout=subprocess.DEVNULL)
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if given.loop == "uvloop" else None)
        with runner:
            runner.run(measure(url, given.requests))


if __name__ == "__main__":
    main()
