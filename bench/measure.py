"""What is measured, one function per figure; each returns a flat dict of numbers of one round.

Law: CPU is the process tree's own accounting, from the load's begin until all that the load left to do is done: ours takes
usage rows into its database after the replies, in another process, and whoever does such a thing pays for it. Kernels that
account interrupts apart (most distributions) leave the network's softirq work out of that, the same for everyone; it is
shown as `softirq_us`, for the whole core, so noise from other processes is in it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from contest import Contestant, Figures, softirq
from drive import Streams, check, count, latency, open_streams, quantile, wrk

REST = 1.5  # seconds: longer than whatever is done once a second
LITTLE = 0.05  # of a core
PATIENCE = 15.0

def plain(one: Contestant, seconds: float, connections: int, folder: Path) -> Figures:
    """Requests with `connections` at once."""
    check(one.door)
    cpu, kernel = one.process.cpu(), softirq()
    load = wrk(one.door, connections, seconds, folder)
    within, kernel = one.process.cpu() - cpu, softirq() - kernel
    if not load.requests or load.errors:
        raise RuntimeError(f"{load.errors} errors in {load.requests} requests")
    later = max(0.0, cpu_at_rest(one) - cpu - within)
    return {
        "cpu_us": (within + later) / load.requests * 1e6,
        "later_us": later / load.requests * 1e6,
        "softirq_us": kernel / load.requests * 1e6,
        "rps": load.requests / load.seconds,
        "busy": within / load.seconds,
    }


def cpu_at_rest(one: Contestant) -> float:
    """Seconds of CPU of all its processes, once they have done next to nothing for a while; 0.0 if they never come to rest,
    and nobody can tell then what of it is the load's."""
    seen = [(time.monotonic(), one.process.cpu())]
    while seen[-1][0] - seen[0][0] < PATIENCE:
        time.sleep(0.1)
        now, cpu = time.monotonic(), one.process.cpu()
        seen.append((now, cpu))
        begun = next((then for at, then in reversed(seen) if now - at >= REST), None)
        if begun is not None and cpu - begun < LITTLE * REST:
            return cpu
    return 0.0


def single(one: Contestant, seconds: float) -> Figures:
    """One connection, one request after another: milliseconds."""
    check(one.door)
    begin = time.perf_counter()
    taken = latency(one.door, 50)
    times = int(50 * seconds / (time.perf_counter() - begin))
    taken = latency(one.door, max(50, min(times, 5000)))
    return {"p50_ms": quantile(taken, 0.5), "p99_ms": quantile(taken, 0.99)}


def megabyte(one: Contestant, seconds: float) -> Figures:
    """A request body of 1 MB: milliseconds."""
    taken = latency(one.door, max(40, int(seconds * 15)), padding=1_000_000)
    return {"p50_ms": quantile(taken, 0.5), "p99_ms": quantile(taken, 0.99)}


def streams(one: Contestant, seconds: float, at_once: int) -> Figures:
    """Streams of 100 chunks 10 ms apart; a chunk counts when the mock writes it. What the load leaves to do is there at both
    ends of the window, for streams end all the time."""
    driver = Streams(one.door, at_once)
    try:
        driver.run(1.2)
        before = count(one.upstream.port)
        seen, finished, errors, cpu, kernel, began = len(driver.delays), driver.finished, driver.errors, one.process.cpu(), softirq(), time.monotonic()
        driver.run(2 * seconds)
        cpu, kernel, took = one.process.cpu() - cpu, softirq() - kernel, time.monotonic() - began
        chunks = count(one.upstream.port)["chunks"] - before["chunks"]
        if driver.errors > errors or driver.finished == finished or not chunks:
            raise RuntimeError(f"{driver.errors - errors} streams failed, {driver.finished - finished} finished, {chunks} chunks")
        first = driver.delays[seen:]
    finally:
        driver.close()
    return {
        "cpu_us": cpu / chunks * 1e6,
        "softirq_us": kernel / chunks * 1e6,
        "first_p50_ms": quantile(first, 0.5),
        "first_p99_ms": quantile(first, 0.99),
        "chunks_s": chunks / took,
        "busy": cpu / took,
    }


def idle(one: Contestant) -> Figures:
    """Memory after one request and a second of rest: the whole tree, and its largest process, in MB (10^6)."""
    check(one.door)
    time.sleep(1.0)
    sizes = one.process.rss()
    figures = {"tree_mb": sum(sizes.values()) / 1e6, "largest_mb": max(sizes.values()) / 1e6}
    if (worker := worker_of(one)) is not None:
        figures["worker_mb"] = sizes[worker] / 1e6
    return figures


def held(one: Contestant, streams_open: int, *, read: bool) -> Figures:
    """Memory per open stream, in KiB: idle-ish ones (a chunk every 5 s), or ones that the client never reads."""
    model = "mock-1000x5000" if read else "mock-1000000x1"
    model = one.door.model.rpartition("/")[0] + "/" + model if "/" in one.door.model else model
    before = rested(one)
    sockets = open_streams(one.door, streams_open, model, read=read)
    time.sleep(8.0)
    after = sum(one.process.rss().values())
    for sock in sockets:
        sock.close()
    return {"kib_per_stream": (after - before) / 1024 / streams_open, "streams": float(streams_open)}


def rested(one: Contestant) -> int:
    """Bytes of all its processes, once they do not grow any more: some of ours go on for seconds after it serves."""
    size = 0
    for _ in range(15):
        time.sleep(2.0)
        before, size = size, sum(one.process.rss().values())
        if size < before * 1.005:
            break
    return size


def ready(spawned: float, one: Contestant) -> Figures:
    """Seconds from the command to the first answered request."""
    deadline = spawned + 60
    while True:
        try:
            check(one.door)
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return {"seconds": time.monotonic() - spawned}


def worker_of(one: Contestant) -> int | None:
    """The process that serves, where a contestant tells its processes apart."""
    named = [pid for pid in one.process.pids if "worker" in one.process.command(pid) and pid != os.getpid()]
    return named[0] if named else None
