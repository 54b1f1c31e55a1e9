"""Contestants side by side: all started with one upstream, all off the core but the one being measured.

Law: rounds are short, many and interleaved (each contestant once, then each again), so that a machine's mood meets all of
them, and each of them its best; who fails is taken out with its reason, and stays in the table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drive import Door
from peers import Peer, Site
from process import TICKS, Process, announced_port, free_port, start, wait_for_port
from upstreams import Upstream

CONTESTANTS_CORE = 0
DRIVER_CORE = 1
SELDOM, LONGER = 3, 6
AWAKE = 0.6  # seconds: a process that stood still finds itself late, and ours refuses work if it was twice in a row

Figures = dict[str, float]
Measure = Callable[["Contestant", float], Figures]


@dataclass
class Contestant:
    name: str
    label: str
    process: Process
    door: Door
    upstream: Upstream


@dataclass
class Contest:
    """`results`: section -> contestant -> figures of each round; `absent`: section -> contestant -> why.
    `seldom`: who answers so slowly that a short round says little: each third round, six times as long."""

    folder: Path
    results: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    absent: dict[str, dict[str, str]] = field(default_factory=dict)
    seldom: frozenset[str] = frozenset()

    def run(self, section: str, contestants: list[Contestant], measure: Measure, rounds: int, seconds: float) -> None:
        """`measure` is given the seconds to measure; a short turn before the first round warms caches and compilers up."""
        table = self.results.setdefault(section, {})
        taking_part = list(contestants)  # who fails leaves this list, not the caller's, which stops everybody
        for turn in range(-1, rounds):
            for each in list(taking_part):
                slow = each.name in self.seldom
                if slow and turn > 0 and turn % SELDOM:
                    continue
                each.process.thaw()
                time.sleep(AWAKE)
                try:
                    figures = measure(each, seconds * (LONGER if slow else 1) if turn >= 0 or slow else min(seconds, 2.0))
                except (OSError, RuntimeError, AssertionError) as error:
                    self.drop(section, each.name, f"{error} {each.process.tail(2)}")
                    taking_part.remove(each)
                    table.pop(each.name, None)
                    continue
                finally:
                    if each.name != "direct":
                        each.process.freeze()
                if turn >= 0:
                    table.setdefault(each.name, []).append(figures)
                    say(section, each.name, figures)

    def drop(self, section: str, name: str, why: str) -> None:
        short = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", why).split())[:300]
        self.absent.setdefault(section, {})[name] = short
        print(f"{section}: {name} is out: {short}", file=sys.stderr, flush=True)


def launch(peer: Peer, upstream: Upstream, folder: Path, shape: str = "openai") -> Contestant:
    """Started and listening. RuntimeError with the reason if it is not."""
    if (reason := peer.missing()) is not None:
        raise RuntimeError(reason)
    own = folder / peer.name
    own.mkdir(parents=True, exist_ok=True)
    plan = peer.launch(Site(own, free_port(), upstream, shape))
    process = start(peer.name, plan.argv, own, CONTESTANTS_CORE, plan.env)
    door = plan.door
    try:
        if plan.announced is not None:
            door = dataclasses.replace(door, port=announced_port(process, plan.announced))
        wait_for_port(door.port, process)
    except RuntimeError:
        process.stop()
        raise
    return Contestant(peer.name, peer.label, process, door, upstream)


@contextlib.contextmanager
def arena(contest: Contest, section: str, peers: list[Peer], upstream: Upstream, shape: str = "openai") -> Iterator[list[Contestant]]:
    """All of `peers` started in front of `upstream`, and frozen; the upstream itself is `direct`."""
    path = "/v1/chat/completions" if shape == "openai" else "/v1/messages"
    contestants = [Contestant("direct", "no proxy (driver and mock)", upstream.process, Door(upstream.port, path), upstream)]
    try:
        for peer in peers:
            try:
                one = launch(peer, upstream, contest.folder / section, shape)
            except (RuntimeError, OSError) as error:
                contest.drop(section, peer.name, str(error))
                continue
            contestants.append(one)
            time.sleep(1.0)  # what it still does after it listens
            one.process.freeze()
        yield contestants
    finally:
        for each in contestants:
            each.process.stop()


def softirq() -> float:
    """Seconds of network work that the kernel did on the contestants' core on nobody's account."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = next(line for line in lines if line.startswith(f"cpu{CONTESTANTS_CORE} ")).split()
    return int(fields[7]) / TICKS


def say(section: str, name: str, figures: Figures) -> None:
    shown = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
    print(f"{section:<12} {name:<11} {shown}", flush=True)
