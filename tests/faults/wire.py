"""A wire between two network namespaces, as bad as it is told to be: late, lossy, slow or cut.

    python wire.py FD FD       the two ends, each an open tun device; orders come on standard input

Law: userspace, so that it works where the kernel has no netem, and so that what is lost is the same in every run. Orders:
`delay <seconds>` each way, `loss <share>`, `rate <bytes a second>` each way (0: any), `cut 1` (nothing arrives, nobody is
told), `cut 0`. Ends with its standard input. A slow wire keeps 64 KiB of packets each way and drops what comes above.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import sys
import time

MOST_QUEUED = 64 << 10


class Wire:
    def __init__(self, ends: tuple[int, int]) -> None:
        self.ends = ends
        self.orders = {"delay": 0.0, "loss": 0.0, "rate": 0.0, "cut": 0.0}
        self.free = dict.fromkeys(ends, 0.0)  # when the way out at this end has sent what it was given
        self.dice = random.Random(8)
        self.due: list[tuple[float, int, int, bytes]] = []
        self.serial = 0

    def run(self) -> None:
        poll = select.poll()
        for fd in (0, *self.ends):
            poll.register(fd, select.POLLIN)
        rest = b""
        while True:
            wait = max(self.due[0][0] - time.monotonic(), 0) * 1000 if self.due else None
            for fd, _ in poll.poll(wait):
                if fd:
                    self.take(os.read(fd, 65536), self.ends[fd == self.ends[0]])
                    continue
                data = os.read(0, 4096)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    word, value = line.decode().split()
                    self.orders[word] = float(value)
            self.give()

    def take(self, packet: bytes, out: int) -> None:
        orders, now = self.orders, time.monotonic()
        if orders["cut"] or (orders["loss"] and self.dice.random() < orders["loss"]):
            return
        at = now
        if rate := orders["rate"]:
            begins = max(now, self.free[out])
            if (begins - now) * rate > MOST_QUEUED:
                return
            at = self.free[out] = begins + len(packet) / rate
        self.serial += 1
        heapq.heappush(self.due, (at + orders["delay"], self.serial, out, packet))

    def give(self) -> None:
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, _, out, packet = heapq.heappop(self.due)
            if not self.orders["cut"]:
                os.write(out, packet)


if __name__ == "__main__":
    Wire((int(sys.argv[1]), int(sys.argv[2]))).run()
