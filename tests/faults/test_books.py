"""Rows 32, 38 and 39, their database: full, frozen, and everybody killed while it is written to."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.conftest import Seen
from faults.house import Gateway, House, await_ready, command, descendants, kill, percentile
from postgres import Postgres
from processes import alive, eventually

SMALL_DISK = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'
SECRET = {"LLM_GATEWAY_SECRET": "s" * 32}
SOUGHT = "SELECT request_id, count(*) FROM usage WHERE parent = '' GROUP BY request_id"
SUMS = "SELECT (SELECT count(*) FROM usage WHERE parent = ''), (SELECT sum(requests) FROM usage_hourly), (SELECT sum(requests) FROM usage_daily)"


class Books:
    """What a database says, asked by its own program."""

    def __init__(self, ask: Callable[[str], list[list[str]]]) -> None:
        self._ask = ask

    def rows(self) -> Counter[str]:
        return Counter({name: int(count) for name, count in self._ask(SOUGHT)})

    def sums(self) -> list[int]:
        return [int(each or 0) for each in self._ask(SUMS)[0]]


def sqlite(path: Path) -> Books:
    def ask(statement: str) -> list[list[str]]:
        connection = sqlite3.connect(path, timeout=10)
        try:
            return [list(map(str, row)) for row in connection.execute(statement).fetchall()]
        except sqlite3.Error as error:  # it has no tables yet
            raise OSError(str(error)) from error
        finally:
            connection.close()

    return Books(ask)


def copied(folder: Path, to: Path) -> Path:
    """SQLite follows /proc/.../root into the wrong file system; what is copied while it is written to is looked at once more."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    for each in folder.glob("gateway.db*"):
        if not each.name.endswith("-shm"):
            shutil.copyfile(each, to / each.name)
    return to / "gateway.db"


def postgresql(server: Postgres, url: str) -> Books:
    return Books(lambda statement: [line.split("|") for line in server.run(statement, url.rpartition("/")[2]).splitlines()])


class Crowd:
    """Clients that ask and ask; `held`: the ids of requests whose replies came whole."""

    def __init__(self, gateway: Gateway) -> None:
        self.held: list[str] = []
        self.seconds: list[float] = []
        self._gateway = gateway
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(who,), daemon=True) for who in range(6)]

    @contextmanager
    def asking(self) -> Iterator[None]:
        for each in self._threads:
            each.start()
        try:
            yield
        finally:
            self._over.set()
            for each in self._threads:
                each.join(20)

    def _ask(self, who: int) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            name, stream = f"{who}-{number}-{random.randrange(1 << 48):x}", number % 3 == 0
            try:
                answer = self._gateway.ask("up/ok", stream=stream, headers={"X-Request-ID": name}, timeout=10)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if answer.well if stream else answer.status == 200 and answer.whole:
                self.held.append(name)
                self.seconds.append(answer.seconds)


def part(gateway: Gateway, name: str) -> list[int]:
    return [pid for pid in descendants(gateway.process.pid) if f"llm_gateway.{name}" in command(pid)]


def strike(gateway: Gateway, victim: str) -> None:
    """kill -9."""
    tree = descendants(gateway.process.pid)
    pids = {"worker": part(gateway, "worker"), "operator": part(gateway, "operator"), "supervisor": [gateway.process.pid], "all": [gateway.process.pid, *tree]}
    for pid in pids[victim]:
        kill(pid, signal.SIGKILL)
    if victim in ("supervisor", "all"):
        gateway.process.wait(10)
        eventually(lambda: not any(map(alive, tree)), 30)


def run(house: House, made: dict[str, Any], gateway: Gateway, victim: str, after: float) -> tuple[Gateway, list[str]]:
    """A crowd, a blow, a restart where nobody is left to do it; the gateway, and what the crowd holds."""
    crowd = Crowd(gateway)
    with crowd.asking():
        time.sleep(after)
        strike(gateway, victim)
        if victim in ("worker", "operator"):
            time.sleep(0.7)
    if victim in ("supervisor", "all"):
        gateway = house.gateway(**made, data_dir=str(gateway.data))
    await_ready(gateway)
    return gateway, crowd.held


def settle(gateway: Gateway, books: Books, held: list[str]) -> Counter[str]:
    """Waits until all that was held is in the books."""
    eventually(lambda: not Counter(held) - books.rows(), 40)
    eventually(lambda: gateway.metric("llm_gateway_journal_lag_rows") == 0, 20)
    return books.rows()


def found(held: list[str], rows: Counter[str], books: Books) -> None:
    assert held
    assert [name for name in held if rows[name] != 1] == []
    assert max(rows.values()) == 1
    count, hours, days = books.sums()
    assert count == hours == days


@pytest.mark.row(39)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_whoever_is_killed_each_reply_that_was_held_has_one_row_in_the_database(house: House, seen: Seen, request: pytest.FixtureRequest, kind: str) -> None:
    """SIGKILL of the worker, and of everybody, under six busy clients, plain and streaming."""
    made, books = database(house, kind, request)
    gateway, held = house.gateway(**made), list[str]()
    books = books or sqlite(gateway.data / "gateway.db")
    for victim in ("worker", "all"):
        gateway, more = run(house, made, gateway, victim, 0.8)
        held += more
    found(held, settle(gateway, books, held), books)
    seen(f"{kind}: {len(held)} replies held in full over two kills, each has exactly one row, and hourly and daily sums agree")


@pytest.mark.slow
@pytest.mark.row(39)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_fifty_kills(house: House, seen: Seen, request: pytest.FixtureRequest, kind: str) -> None:
    """50 times SIGKILL of a worker, the operator, the supervisor or all of them, at a moment of chance, under six busy clients."""
    made, books = database(house, kind, request)
    gateway, held, chance = house.gateway(**made, workers=2, state="per_worker"), list[str](), random.Random(39)
    books = books or sqlite(gateway.data / "gateway.db")
    made |= {"workers": 2, "state": "per_worker"}
    blows: Counter[str] = Counter()
    for _ in range(50):
        victim = chance.choice(["worker", "worker", "operator", "supervisor", "all"])
        gateway, more = run(house, made, gateway, victim, chance.uniform(0.2, 1.2))
        held += more
        blows[victim] += 1
    found(held, settle(gateway, books, held), books)
    seen(f"{kind}: {len(held)} replies held in full over 50 kills ({', '.join(f'{name} {count}' for name, count in sorted(blows.items()))}): "
         "0 rows lost, 0 doubled; hourly and daily sums agree")


def database(house: House, kind: str, request: pytest.FixtureRequest) -> tuple[dict[str, Any], Books | None]:
    """A gateway's sections, and who asks its database; None: the file in its data_dir."""
    made: dict[str, Any] = {"providers": {"up": house.upstream().url}, "env": SECRET}
    if kind == "sqlite":
        return made, None
    server: Postgres = request.getfixturevalue("postgres")
    url = server.database()
    return made | {"database": {"url": url}}, postgresql(server, url)


@pytest.mark.slow
@pytest.mark.row(38)
def test_a_frozen_database_delays_nobody_and_gets_all_rows_in_the_end(house: House, seen: Seen, postgres: Postgres) -> None:
    """SIGSTOP of PostgreSQL and all its processes for 25 s under six busy clients; then SIGCONT."""
    url = postgres.database()
    gateway = house.gateway({"up": house.upstream().url}, env=SECRET, database={"url": url})
    books = postgresql(postgres, url)
    before, during = Crowd(gateway), Crowd(gateway)
    with before.asking():
        time.sleep(5)
    settle(gateway, books, before.held)
    with postgres.frozen():
        with during.asking():
            time.sleep(5)
        eventually(lambda: gateway.metric("llm_gateway_journal_lag_rows") > 0, 5)
        eventually(lambda: "database_away" in gateway.log.read_text(), 30)
        assert gateway.metric("llm_gateway_database_up") == 0
        lag, rows = gateway.metric("llm_gateway_journal_lag_seconds"), gateway.metric("llm_gateway_journal_lag_rows")
        assert gateway.ask("up/ok").status == 200
    held = before.held + during.held
    found(held, settle(gateway, books, held), books)
    assert "database_back" in gateway.log.read_text()
    p50 = [percentile(crowd.seconds, 0.5) * 1e3 for crowd in (before, during)]
    p99 = [percentile(crowd.seconds, 0.99) * 1e3 for crowd in (before, during)]
    assert p50[1] < 2 * p50[0] + 2
    seen(f"p50 {p50[0]:.1f} ms before and {p50[1]:.1f} ms while it stood still, p99 {p99[0]:.1f} and {p99[1]:.1f}; {rows:.0f} rows and "
         f"{lag:.0f} s behind were shown, `database_away` told; all {len(held)} rows arrived once it went on")


@pytest.mark.slow
@pytest.mark.row(38)
def test_a_gateway_whose_database_is_not_there_starts_and_serves(house: House, seen: Seen, postgres: Postgres) -> None:
    """Started with PostgreSQL stopped; started later."""
    url = postgres.database()
    postgres.stop()
    try:
        gateway = house.gateway({"up": house.upstream().url}, env=SECRET, database={"url": url})
        assert gateway.ask("up/ok", headers={"X-Request-ID": "early"}).status == 200
        eventually(lambda: "database_away" in gateway.log.read_text(), 20)
        health = http.client.HTTPConnection("127.0.0.1", gateway.metrics_port)
        health.request("GET", "/health")
        body = json.loads(health.getresponse().read())
        assert (body["status"], body["dependencies"]["database"]) == ("degraded", False)
    finally:
        postgres.start()
    settle(gateway, postgresql(postgres, url), ["early"])
    seen("serves at once, `/health` says degraded, and the first request's row is in the database once that is there")


@pytest.mark.slow
@pytest.mark.row(32)
def test_a_full_disk_under_sqlite_stops_no_request_and_no_row_is_lost(house: House, seen: Seen) -> None:
    """The database's folder is a tmpfs of 2 MB in a mount namespace, filled up under load; then the space is given back."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    small = house.folder / "small"
    small.mkdir()
    before = ["unshare", "--mount", "sh", "-c", SMALL_DISK, str(small)]
    gateway = house.gateway({"up": house.upstream().url}, before=before, database={"url": f"sqlite:///{small}/gateway.db"})
    inside = Path(f"/proc/{gateway.worker()}/root{small}")
    eventually(lambda: gateway.metric("llm_gateway_database_up") == 1, 20)
    filler = inside / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * (4 << 20))
    crowd = Crowd(gateway)
    with crowd.asking():
        eventually(lambda: "database_away" in gateway.log.read_text(), 30)
        time.sleep(2)
    assert gateway.ask("up/ok").status == 200
    eventually(lambda: gateway.metric("llm_gateway_journal_lag_rows") > 0, 10)
    filler.unlink()
    books = Books(lambda statement: sqlite(copied(inside, house.folder / "copy"))._ask(statement))
    found(crowd.held, settle(gateway, books, crowd.held), books)
    seen(f"every request served while the database took nothing, `database_away` told, lag in /metrics; with space again "
         f"all {len(crowd.held)} rows are there once")
