"""`make soak`: memory that stays flat over 300,000 requests and 20,000 cancelled streams, and short garbage collections.

    python bench/soak.py --requests 300000 --cancelled 20000 --open 5000

Law: the worker's RSS after a warm-up of a tenth is the base; every later sample is within 5 MB of it. Collections are
read from /metrics of a fresh gateway with 5,000 streams open. Ends with status 1 otherwise.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from functools import partial
from pathlib import Path

from drive import open_streams, wrk
from gateway import Gateway, running
from load import Crowd

ROOT = Path(__file__).parent.parent
SLACK_MB = 5.0
PAUSE_SECONDS = 0.005


def requests(gateway: Gateway, total: int, folder: Path) -> list[float]:
    """RSS after each tenth or so."""
    done, samples = 0, [gateway.rss()]
    while done < total:
        load = wrk(gateway.door, 32, 5, folder)
        if load.errors or not load.requests:
            raise RuntimeError(f"{load.errors} errors in {load.requests} requests")
        done += load.requests
        samples.append(gateway.rss())
        print(f"{done:>8} requests   worker {samples[-1]:.1f} MB", flush=True)
    return samples


def enough(crowd: Crowd, wanted: float) -> bool:
    return crowd.cancelled >= wanted


def cancelled(gateway: Gateway, total: int) -> list[float]:
    samples = []
    for part in range(1, 11):
        crowd = Crowd(gateway.door, plain=0, streaming=64, model="mock-1000x10", cancel=True)
        crowd.run(partial(enough, crowd, total / 10))
        time.sleep(1.0)
        samples.append(gateway.rss())
        print(f"{total * part // 10:>8} cancelled  worker {samples[-1]:.1f} MB", flush=True)
    return samples


def longest_pause(gateway: Gateway, streams: int) -> float | None:
    """Seconds of the longest collection with `streams` open for 20 s; None where /metrics does not say."""
    sockets = open_streams(gateway.door, streams, "stream/mock-1000x5000", read=True)
    before = sum(gateway.process.rss().values())
    time.sleep(20.0)
    print(f"{streams} open streams: {before / 1e6:.0f} MB in all processes", flush=True)
    text = gateway.metrics()
    for sock in sockets:
        sock.close()
    found = re.findall(r"^\w*gc_pause\w*max\w*(?:\{[^}]*\})? ([\d.e+-]+)$", text, re.MULTILINE)
    return max(map(float, found), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--cancelled", type=int, default=20_000)
    parser.add_argument("--open", type=int, default=5_000)
    chosen = parser.parse_args()
    wrong = []
    folder = ROOT / "build/soak"
    with running(folder) as gateway:
        requests(gateway, chosen.requests // 10, folder)
        cancelled(gateway, chosen.cancelled // 10)
        steady = requests(gateway, chosen.requests, folder)
        for name, samples in (("requests", steady), ("cancelled", cancelled(gateway, chosen.cancelled))):
            spread = max(abs(sample - samples[0]) for sample in samples)
            print(f"{name}: RSS moved by {spread:.1f} MB")
            if spread > SLACK_MB:
                wrong.append(f"{name}: RSS moved by {spread:.1f} MB")
    with running(ROOT / "build/soak-open") as gateway:  # a gateway of its own: at rest, the one before looked at all there is, as it should
        pause = longest_pause(gateway, chosen.open)
        print(f"longest collection: {'not in /metrics' if pause is None else f'{pause * 1000:.1f} ms'}")
        if pause is None or pause > PAUSE_SECONDS:
            wrong.append(f"longest collection {pause}")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
