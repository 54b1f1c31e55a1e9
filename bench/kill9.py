"""kill -9 under load: every reply that a client got in full has exactly one row in the journal.

    python bench/kill9.py --kills 50 --victim worker      the supervisor starts another
    python bench/kill9.py --kills 9 --victim both         or `supervisor`: the gateway is started again, as an init system would

Law: the client's own ids are the witness. Replies that a client did not get in full may have a row or not; a row twice is
always wrong. Ends with status 1 if one is missing or doubled.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

from gateway import Gateway, running
from load import Crowd

ROOT = Path(__file__).parent.parent


class Killer:
    """Kills at random moments, each a while after the successor began to answer."""

    def __init__(self, gateway: Gateway, crowd: Crowd, kills: int, victim: str) -> None:
        self.gateway, self.crowd, self.left, self.victim = gateway, crowd, kills, victim
        self.next, self.mark = time.monotonic() + 1.0, 0
        self.dice = random.Random(9)

    def done(self) -> bool:
        served = len(self.crowd.whole) - self.mark
        if self.left and time.monotonic() > self.next and served > 50:
            tree, worker = self.gateway.process.pids, self.gateway.worker()
            if self.victim != "worker":
                self.gateway.process.popen.kill()
            if self.victim != "supervisor":
                os.kill(worker, signal.SIGKILL)
            if self.victim != "worker":
                self.gateway.again(tree)
            self.left -= 1
            self.mark = len(self.crowd.whole)
            self.next = time.monotonic() + self.dice.uniform(0.3, 0.9)
        return not self.left and served > 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--victim", choices=["worker", "supervisor", "both"], default="worker")
    chosen = parser.parse_args()
    with running(ROOT / "build/kill9") as gateway:
        crowd = Crowd(gateway.door, plain=24, streaming=24)
        killer = Killer(gateway, crowd, chosen.kills, chosen.victim)
        crowd.run(killer.done, patience=60 + 6.0 * chosen.kills)
        time.sleep(0.5)
        rows = gateway.rows()
        missing = [each for each in crowd.whole if rows[each] == 0]
        doubled = [each for each, times in rows.items() if times > 1]
        print(f"{chosen.kills - killer.left} kills, {len(crowd.whole)} whole replies, {crowd.cut} cut, {crowd.refused} refused, {rows.total()} rows")
        print(f"whole replies without a row: {len(missing)} {missing[:5]}; rows twice: {len(doubled)} {doubled[:5]}")
        if missing or doubled or killer.left:
            sys.exit(f"{gateway.process.tail(10)}\nnot every whole reply has exactly one row, or the worker was not back ({killer.left} kills left)")


if __name__ == "__main__":
    main()
