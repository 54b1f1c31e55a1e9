"""The supervisor: binds, spawns, signals, restarts, reaps. It serves nothing and knows nothing.

Law: standard library only, one thread, no event loop but `selectors`; small enough never to fail, since everything else
may. It reads no configuration and no message; it hands descriptors on and waits for children to die.

States, and what moves them on
    RUNNING   a dead child is started again: at once, then after a growing pause up to 5 s while it keeps dying
    DRAINING  SIGTERM. Children are told; own copies of the listening sockets are closed, or connections would queue up
              on sockets nobody accepts from; nobody is restarted
    STOPPING  SIGINT. As above, within 5 s
    KILLING   a second signal, or a deadline: SIGKILL

Invariants
- A worker's sockets stay open while it is dead: its waiting connections are served by its successor.
- Each (operator, worker) and (helper, worker) pair has its own socketpair, made anew when either starts (docs/adr/001).
- A helper is told nothing and holds no descriptor but its line: it needs neither secrets nor sockets (docs/adr/013).
- Operator and helper outlive the workers on the way down, so the last metrics can be scraped and the last questions answered.
- As PID 1 it reaps processes it never started.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from llm_gateway.supervisor import sockets
from llm_gateway.supervisor.plan import Plan
from llm_gateway.telemetry.access import AccessLog

PAUSES = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
SETTLED = 10.0  # seconds a child must live for its earlier deaths to be forgotten
HOPELESS = 5  # deaths of one worker before any worker ever served: it is not going to
LONGEST = 86_400.0  # of one wait: the kernel takes no more than 24 days
FAST = 5.0
GRACE = 5.0
ECHO = 0.5  # make, timeout and npm pass on a Ctrl-C that the terminal sent to us as well: the same signal so soon is one
RECORD = 2  # bytes; as control.py, which is not imported here since it brings an event loop along
OPERATOR = "operator"
HELPER = "helper"
LOUD = ("killing", "not started", "not told", "not linked", "deaf", "linked anew")  # what is told at logging.level warn and error too
# How a worker's malloc (glibc's) keeps what large bodies took, instead of giving it back to the kernel after each and faulting it in again,
# page by page: more than half of what a request of 1 MB cost. Up to 16 MiB each; single pieces from 4 MiB on are given back at once. The
# environment's own values come first.
ALLOCATION = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_TOP_PAD_": str(1 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class State(Enum):
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLING = "killing"


@dataclass
class Child:
    """One place for a process. `pid` None: dead, to be started at `due`."""

    name: str
    index: int
    argv: tuple[str, ...]
    inherits: tuple[int, ...]
    pid: int | None = None
    line: socket.socket | None = None
    started: float = 0.0
    deaths: int = 0
    due: float | None = field(default=0.0)

    def __repr__(self) -> str:
        return f"{self.name} pid={self.pid} deaths={self.deaths}"


class Supervisor:
    """Binds when made (BindError), runs until told to stop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._notices = AccessLog("stderr")
        self._state = State.RUNNING
        self._deadline: float | None = None
        self._served = False
        self._dismissed = False
        self._told_by: signal.Signals | None = None
        self._told_at = 0.0
        self._clean = True
        for fd in (plan.snapshot, plan.state):
            os.set_inheritable(fd, False)  # each child is handed what it may see, and nothing else
        self._owed: dict[tuple[int, int], float] = {}  # links that there was no descriptor for, by worker and place aside: when to make them
        self._selector = selectors.DefaultSelector()
        per_listener = [sockets.bind(address, plan.workers) for address in plan.listeners]
        metrics = sockets.bind(plan.metrics, 1)
        self._addresses = [
            *(sockets.bound(address, bound[0]) for address, bound in zip(plan.listeners, per_listener, strict=True)),
            sockets.bound(plan.metrics, metrics[0]),
        ]
        self._marks = {address: sockets.mark(address) for address in self._addresses}
        self._listening = [sock for bound in per_listener for sock in bound]
        self._metrics = metrics
        self._workers = [
            _child(
                f"worker {index}", index, plan.worker, ("--index", str(index)), plan, [b[index] for b in per_listener]
            )
            for index in range(plan.workers)
        ]
        self._operator = _child(OPERATOR, 0, plan.operator, ("--state", str(plan.state)), plan, metrics)
        self._aside = [self._operator]  # who serves no clients; a link from here to a worker bears this place as its number there
        if plan.helper:
            self._aside.append(Child(HELPER, 0, plan.helper, ()))

    def run(self) -> int:
        """The exit code: 0 if everybody left by themselves when told to."""
        waking, woken = socket.socketpair()
        waking.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _noted)
        self._selector.register(waking, selectors.EVENT_READ, None)
        self._log("listening", addresses=[str(address) for address in self._addresses], pid=os.getpid())
        while self._children_wanted():
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    self._signalled(waking.recv(4096))
                else:
                    self._hear(key.data)
            self._tick(time.monotonic())
        for address, ours in self._marks.items():
            sockets.release(address, ours)
        self._log("stopped", clean=self._clean)
        return 0 if self._clean else 1

    # What to do, and when.

    def _children_wanted(self) -> bool:
        return self._state is State.RUNNING or any(child.pid is not None for child in self._all())

    def _serves(self, child: Child) -> bool:
        return all(child is not each for each in self._aside)

    def _all(self) -> list[Child]:
        return [*self._workers, *self._aside]

    def _patience(self) -> float | None:
        """Seconds until something is due; None: until a signal or a child's word."""
        times = [self._deadline] if self._deadline is not None else []
        if self._state is State.RUNNING:
            times += [child.due for child in self._all() if child.pid is None and child.due is not None]
            times += self._owed.values()
        return max(0.0, min(LONGEST, min(times) - time.monotonic())) if times else None

    def _tick(self, now: float) -> None:
        self._reap(now)
        if self._state is State.RUNNING:
            for child in self._all():
                if child.pid is None and child.due is not None and child.due <= now:
                    self._revive(child, now)
            for (index, number), due in [*self._owed.items()]:
                if due <= now:
                    self._introduce(self._workers[index], self._aside[number], number)
            return
        if self._deadline is not None and now >= self._deadline:
            self._clean = False
            self._kill("the time to drain is over")
        if (
            self._state is not State.KILLING
            and not self._dismissed
            and all(worker.pid is None for worker in self._workers)
        ):
            self._dismissed = True
            self._deadline = now + FAST
            for child in self._aside:
                self._tell(child, b"F")

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                self._tell(self._operator, b"H")
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._stop(signal.Signals(number))

    def _stop(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._state is not State.RUNNING:
            if number is self._told_by and now - self._told_at < ECHO:
                return
            self._clean = False
            self._kill(f"a second signal, {number.name}")
            return
        self._told_by, self._told_at = number, now
        slow = number is signal.SIGTERM
        self._state = State.DRAINING if slow else State.STOPPING
        self._deadline = now + (self._plan.lame_duck + self._plan.drain_timeout if slow else FAST) + GRACE
        self._log("draining" if slow else "stopping", signal=number.name)
        for child in self._all():
            if slow or self._serves(child):
                self._tell(child, b"D" if slow else b"F")
        for sock in self._listening:
            sock.close()

    def _kill(self, why: str) -> None:
        self._state = State.KILLING
        self._deadline = None
        alive = [child for child in self._all() if child.pid is not None]
        self._log("killing", why=why, children=[child.name for child in alive])
        for child in alive:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)

    # Children.

    def _revive(self, child: Child, now: float) -> None:
        try:
            self._start(child, now)
        except OSError as error:  # out of processes, memory or descriptors: that may pass
            child.due = now + PAUSES[-1]
            self._log("not started", child=child.name, why=str(error))

    def _start(self, child: Child, now: float) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            child.pid = _spawn(
                (*child.argv, "--control", str(theirs.fileno())), (theirs.fileno(), *child.inherits), ALLOCATION if self._serves(child) else {}
            )
        child.line, child.started, child.due = ours, now, None
        self._selector.register(ours, selectors.EVENT_READ, child)
        self._log("started", child=child.name, child_pid=child.pid, deaths=child.deaths)
        for number, other in enumerate(self._aside):
            for worker in self._workers:
                if child is worker or child is other:
                    self._introduce(worker, other, number)

    def _introduce(self, worker: Child, aside: Child, number: int) -> None:
        """A fresh channel between a worker and the operator or the helper, if both are there."""
        self._owed.pop((worker.index, number), None)
        if worker.line is None or aside.line is None:
            return
        try:
            one, other = socket.socketpair()
        except OSError as error:  # out of descriptors: both live on, and are linked when that has passed
            self._owed[worker.index, number] = time.monotonic() + PAUSES[-1]
            self._log("not linked", child=worker.name, to=aside.name, why=str(error))
            return
        with one, other:
            self._tell(worker, b"L", number, one)
            self._tell(aside, b"L", worker.index, other)

    def _tell(self, child: Child, opcode: bytes, number: int = 0, attached: socket.socket | None = None) -> None:
        if child.line is None:
            return
        record = opcode + bytes((number,))
        try:
            socket.send_fds(child.line, [record], [attached.fileno()] if attached is not None else [])
        except (BrokenPipeError, ConnectionResetError):
            return  # it died; SIGCHLD is on its way
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS):
                raise
            self._log("deaf", child=child.name, record=opcode.decode())

    def _hear(self, child: Child) -> None:
        if child.line is None:
            return
        try:
            word = child.line.recv(32 * RECORD)
        except (BlockingIOError, ConnectionResetError):
            word = b""
        if not word:
            self._selector.unregister(child.line)
            return
        for at in range(0, len(word), RECORD):
            if word[at : at + 1] == b"L":
                self._reintroduce(child, word[at + 1])
            elif self._serves(child) and not self._served:
                self._served = True
                self._log("ready", child=child.name)
                self._print_banner()

    def _reintroduce(self, child: Child, number: int) -> None:
        """It had no descriptor to spare when it was told of a link. number: as it was told."""
        self._log("linked anew", child=child.name, link=number)
        if self._serves(child):
            self._introduce(child, self._aside[number], number)
        else:
            self._introduce(self._workers[number], child, next(at for at, each in enumerate(self._aside) if each is child))

    def _print_banner(self) -> None:
        if self._plan.banner:
            ports = {"{port}": self._addresses[0].port, "{metrics_port}": self._addresses[-1].port}
            text = self._plan.banner
            for word, port in ports.items():
                text = text.replace(word, str(port))
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except OSError as error:
                self._log("not told", why=str(error))

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._all():
                if child.pid == pid:
                    self._bury(child, os.waitstatus_to_exitcode(status), now)

    def _bury(self, child: Child, code: int, now: float) -> None:
        if child.line is not None:
            if child.line in self._selector.get_map():
                self._selector.unregister(child.line)
            child.line.close()
        lived = now - child.started
        child.deaths = 1 if lived >= SETTLED else child.deaths + 1
        child.pid, child.line = None, None
        child.due = now + PAUSES[min(child.deaths, len(PAUSES)) - 1]
        self._log("exited", child=child.name, code=code, lived=round(lived, 3))
        if self._state is State.RUNNING:
            if not self._served and self._serves(child) and child.deaths >= HOPELESS:
                self._clean = False
                self._state = State.KILLING
                self._kill(f"{child.name} died {child.deaths} times before it served anything")
        elif code != 0 and self._state is not State.KILLING:
            self._clean = False

    def _log(self, event: str, **fields: object) -> None:
        if self._plan.quiet and event not in LOUD:
            return
        now = time.time_ns()
        if self._plan.log_format == "json":
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now // 10**6 % 1000:03}Z"
            line = json.dumps({"level": "info", "event": event, "ts": stamp, "from": "supervisor", **fields})
        else:
            line = f"supervisor: {event} " + " ".join(f"{name}={value}" for name, value in fields.items())
        self._notices.write([f"{line}\n".encode(errors="backslashreplace")])  # or later: who reads it may stand still, or have gone


def _child(
    name: str, index: int, argv: tuple[str, ...], extra: tuple[str, ...], plan: Plan, listening: list[socket.socket]
) -> Child:
    listen = tuple(sock.fileno() for sock in listening)
    own = (plan.state,) if name == OPERATOR else ()
    arguments = (*argv, *extra, "--snapshot", str(plan.snapshot), "--listen", ",".join(map(str, listen)))
    return Child(name, index, arguments, (plan.snapshot, *own, *listen))


def _spawn(argv: tuple[str, ...], inherited: tuple[int, ...], environ: Mapping[str, str]) -> int:
    """A process group of its own keeps the terminal's Ctrl-C from a child: the supervisor decides what that means."""
    for fd in inherited:
        os.set_inheritable(fd, True)
    try:
        return os.posix_spawn(argv[0], argv, {**environ, **os.environ}, setpgroup=0, setsigdef=SIGNALS)
    finally:
        for fd in inherited:
            os.set_inheritable(fd, False)


def _noted(number: int, _frame: object) -> None:
    """The wakeup descriptor has already told the loop; a handler must merely exist."""
