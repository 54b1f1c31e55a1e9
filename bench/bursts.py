"""What a streamed chunk costs when the upstream sends several at once, as providers do: ours beside nginx, CPU microseconds per chunk.

    .venv/bin/python bench/bursts.py            with 1, 4 and 12 chunks in each of the upstream's writes

Law: the rate of chunks is the same in all of them, 100 a second in each of 64 streams; measured as `make bench` measures its streams.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import measure
import upstreams
from contest import DRIVER_CORE, Contest, Contestant, Figures, arena
from peers import PEERS

TOGETHER = (1, 4, 12)


def paced(together: int) -> Callable[[Contestant, float], Figures]:
    def streams(one: Contestant, seconds: float) -> Figures:
        model = f"{one.door.model.rpartition('mock-')[0]}mock-96x{10 * together}x{together}"
        return measure.streams(replace(one, door=replace(one.door, model=model)), seconds, 64)

    return streams


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    chosen = parser.parse_args()
    folder = Path(__file__).parents[1] / "build" / "bursts"
    folder.mkdir(parents=True, exist_ok=True)
    contest, peers = Contest(folder), [each for each in PEERS if each.name in {"ours", "nginx"}]
    with arena(contest, "bursts", peers, upstreams.streaming(folder, DRIVER_CORE), "openai") as contestants:
        for together in TOGETHER:
            contest.run(f"bursts of {together}", contestants, paced(together), chosen.rounds, 1.0)
    print("chunks at once: ours, nginx, ratio (least of each)")
    for together in TOGETHER:
        least = {name: min(one["cpu_us"] for one in rounds) for name, rounds in contest.results[f"bursts of {together}"].items()}
        print(f"{together:>14}: {least['ours']:.1f}, {least['nginx']:.1f}, {least['ours'] / least['nginx']:.2f}")


if __name__ == "__main__":
    main()
