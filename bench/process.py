"""Processes under measurement: started on a core of their own, read from /proc, stopped for certain.

Law: Linux only, no library. A contestant is a whole process tree: what its children burn, it burns. CPU is what the
scheduler counted, in nanoseconds: /proc tells it in hundredths of a second, which is 1 % of a short round. Only processes
started here are ever signalled.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
SCHEDULED = 2  # of a process's clocks, the scheduler's (clock_getcpuclockid(3))


@dataclass
class Process:
    """A started command and all its descendants."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pids(self) -> list[int]:
        parents = {int(entry.name): _parent(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        tree = [self.popen.pid]
        for pid in tree:
            tree.extend(child for child, parent in parents.items() if parent == pid)
        return tree

    def cpu(self) -> float:
        """Seconds of CPU used so far: user and system, threads, living and reaped children."""
        return sum(_cpu(pid) for pid in self.pids)

    def rss(self) -> dict[int, int]:
        """Resident bytes by process."""
        return {pid: size for pid in self.pids if (size := _rss(pid))}

    def command(self, pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""

    def freeze(self) -> None:
        """Off the core while another is measured; connections stay."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self, patience: float = 3.0) -> None:
        tree = self.pids
        self.thaw()
        self.popen.send_signal(signal.SIGINT if self.name == "ours" else signal.SIGTERM)
        try:
            self.popen.wait(patience)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in tree[1:]:
            _kill(pid, signal.SIGKILL)

    def tail(self, lines: int = 5) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            _kill(pid, number)


def start(name: str, argv: list[str], folder: Path, core: int | None, env: Mapping[str, str] | None = None) -> Process:
    """Runs `argv` in `folder` on one core; its output goes to `<name>.log` there."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    pinned = ["taskset", "-c", str(core), *argv] if core is not None else argv
    with log.open("wb") as out:
        popen = subprocess.Popen(
            pinned, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env={**os.environ, **(env or {})}
        )
    return Process(name, popen, log)


def wait_for_port(port: int, process: Process, patience: float = 60.0) -> None:
    """Raises RuntimeError with the end of the log if the process dies or nobody listens in time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            raise RuntimeError(f"{process.name} ended with {process.popen.returncode}: {process.tail()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError(f"{process.name} does not listen on {port}: {process.tail()}")


def announced_port(process: Process, pattern: str, patience: float = 60.0) -> int:
    """The port that a process prints. RuntimeError if it never does."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.popen.poll() is None:
        if (found := re.search(pattern, process.log.read_text(errors="replace"))) is not None:
            return int(found[1])
        time.sleep(0.01)
    raise RuntimeError(f"{process.name} announces no port: {process.tail()}")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def machine() -> dict[str, str]:
    """What a reader needs to compare: never a host's name."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "unknown")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) >> 20
    return {
        "cpu": f"{model}, {os.cpu_count()} cores{' (virtual)' if 'hypervisor' in info else ''}",
        "memory": f"{memory} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def _stat(pid: int | str) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _parent(pid: int | str) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _cpu(pid: int) -> float:
    """Of this process with all its threads, those that ended too, and of its children already waited for."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    try:
        own = time.clock_gettime((~pid << 3) | SCHEDULED)
    except OSError:  # gone since
        return 0.0
    return own + sum(map(int, fields[13:15])) / TICKS


def _rss(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
