"""Rows 22, 24 to 26, 28, 29 and 37: what replicas share, and what becomes of it when Redis or a replica is gone."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from faults.clock import Skew
from faults.conftest import Seen
from faults.house import KEY, Gateway, House, Upstream, kill
from processes import eventually
from redis_server import redis_server

pytestmark = pytest.mark.slow
RUNS = 20
BOUND = 0.03  # USD: what one request reserves at the most, by its prompt's estimate and ten tokens of reply


@pytest.fixture(scope="module")
def upstream(block: House) -> Upstream:
    return block.upstream()


def sections(url: str, patience: int = 0, **grant: Any) -> dict[str, Any]:
    return {
        "redis": {"url": url, **({"timeout_ms": patience} if patience else {})},
        "prices": {f"up/fault-{name}": {"input": 500, "output": 1000} for name in ("ok", "stall", "slow_ok:0.3")},
        "keys": [{"name": "faults", "key": KEY, "tenant": "default", **grant}],
    }  # fmt: skip


def known(gateway: Gateway, seconds: float = 20.0) -> None:
    """Until it has its Redis and knows what was spent before."""
    eventually(lambda: gateway.metric("llm_gateway_redis_unavailable") == 0 and (gateway.data / "spend.table").exists(), seconds)
    eventually(lambda: gateway.ask("up/fault-ok", max_tokens=1).status == 200, seconds)


@contextmanager
def redis(folder: Path, port: int | None = None) -> Iterator[tuple[str, Any, int]]:
    with redis_server(folder, port) as (url, process):
        yield url, process, int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.row(24)
def test_redis_killed_and_back(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """redis-server is killed with SIGKILL under a gateway with a limit of 600 requests a minute and, later, started again."""
    with redis(tmp_path) as (url, process, port):
        gateway = house.gateway({"up": upstream.url}, **sections(url, limits={"requests_per_minute": 600}))
        eventually(lambda: gateway.ask("up/fault-ok").headers.get("x-ratelimit-remaining-requests") is not None)
        process.kill()
        process.wait()
        answers = [gateway.ask("up/fault-ok") for _ in range(50)]
        assert [each.status for each in answers] == [200] * 50
        worst = max(each.seconds for each in answers)
        assert gateway.fetch("GET", "/health/live").status == 200
    with redis(tmp_path, port):
        began = time.monotonic()
        eventually(lambda: gateway.metric("llm_gateway_redis_unavailable") == 0, 8.0)
        back = time.monotonic() - began
        assert gateway.ask("up/fault-ok").status == 200
    assert back < 6.0  # 5, and the second in which metrics are told
    seen(f"50 of 50 served without it, the slowest in {worst * 1000:.0f} ms; used again {back:.1f} s after it was back (metrics are told once a second)")


@pytest.mark.row(24)
def test_hard_budgets_without_redis(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """The same under a hard budget: closed unless `budgets.on_redis_loss: open`."""
    with redis(tmp_path) as (url, process, _):
        money = [{"usd": 100, "period": "total"}]
        closed = house.gateway({"up": upstream.url}, **sections(url, budgets=money))
        opened = house.gateway({"up": upstream.url}, **sections(url, budgets=money), budgets={"on_redis_loss": "open"})
        known(closed)
        known(opened)
        process.kill()
        process.wait()
        refused = [closed.ask("up/fault-ok", max_tokens=1) for _ in range(5)]
        granted = [opened.ask("up/fault-ok", max_tokens=1) for _ in range(5)]
    assert {(each.status, each.code) for each in refused} == {(503, "budget_unknown")}
    assert all("retry-after" in each.headers for each in refused)
    assert {each.status for each in granted} == {200}
    seen("refused with 503 and Retry-After; with `on_redis_loss: open` served, and booked when it is back")


@pytest.mark.row(25)
def test_redis_frozen(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """redis-server is stopped with SIGSTOP; one client asks again and again."""
    with redis(tmp_path) as (url, process, _):
        gateway = house.gateway({"up": upstream.url}, **sections(url, limits={"requests_per_minute": 6000}))
        eventually(lambda: gateway.metric("llm_gateway_redis_unavailable") == 0)
        before = sorted(gateway.ask("up/fault-ok").seconds for _ in range(40))[20]
        process.send_signal(signal.SIGSTOP)
        try:
            answers = [gateway.ask("up/fault-ok") for _ in range(60)]
            live = gateway.fetch("GET", "/health/live")
        finally:
            process.send_signal(signal.SIGCONT)
    assert {each.status for each in answers} == {200}
    slow = [each.seconds - before for each in answers if each.seconds - before > 0.03]
    assert live.status == 200
    assert live.seconds < 0.5
    assert len(slow) <= 6  # until the breaker knows: five operations, and what the machine itself takes
    assert max(slow, default=0.0) < 0.15
    seen(f"{len(slow)} of 60 requests waited, the longest {max(slow, default=0.0) * 1000:.0f} ms more than before; liveness green")


@pytest.mark.row(26)
def test_redis_out_of_memory_read_only_without_scripts_wiped(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """CONFIG SET maxmemory 1; REPLICAOF a server that is not there; SCRIPT FLUSH; FLUSHALL, under a hard budget of $1 of which part is spent."""
    library = pytest.importorskip("redis")
    with redis(tmp_path) as (url, _, port):
        gateway = house.gateway({"up": upstream.url}, **sections(url, budgets=[{"usd": 1, "period": "total"}]), budgets={"on_redis_loss": "open"})
        known(gateway)
        admin = library.Redis(port=port, protocol=2)
        for order in (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), ("SCRIPT", "FLUSH"), ("REPLICAOF", "127.0.0.1", "1"),
                      ("REPLICAOF", "NO", "ONE")):  # fmt: skip
            admin.execute_command(*order)
            assert {gateway.ask("up/fault-ok", max_tokens=1).status for _ in range(5)} == {200}, order
        eventually(lambda: gateway.metric("llm_gateway_redis_unavailable") == 0)
        spent = sum(row.get("cost", 0) for row in gateway.rows()) / 1e9
        time.sleep(7.0)  # the spend table is written every five seconds
        admin.flushall()
        codes = Counter[int]()
        while len(codes) < 2 and sum(codes.values()) < 600:
            codes[gateway.ask("up/fault-ok", max_tokens=1).status] += 1
        total = sum(row.get("cost", 0) for row in gateway.rows()) / 1e9
    assert set(codes) == {200, 429}
    assert total <= 1 + 2 * BOUND
    assert spent > 0.05
    seen(f"no 5xx; ${spent:.3f} were spent before it was wiped, ${total:.3f} of $1 when the budget refused")


@pytest.mark.row(27)
def test_a_thousand_clients_that_leave_while_redis_is_asked(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """A thousand requests of one key are left as soon as they are sent; between them another key with a limit of 50 a minute asks forty times."""
    other = "sk-faults-other-0123456789"
    with redis(tmp_path) as (url, _, _):
        given = sections(url, 1000)
        keys = [
            {"name": "leaving", "key": KEY, "limits": {"requests_per_minute": 1_000_000}},
            {"name": "other", "key": other, "limits": {"requests_per_minute": 50}},
        ]
        gateway = house.gateway({"up": upstream.url}, **given | {"keys": keys})
        eventually(lambda: gateway.metric("llm_gateway_redis_unavailable") == 0)
        left = []
        for _ in range(40):
            for _ in range(25):
                gateway.opened("up/fault-ok").close()
            answer = gateway.ask("up/fault-ok", headers={"Authorization": f"Bearer {other}"})
            assert (answer.status, answer.headers["x-ratelimit-limit-requests"]) == (200, "50")
            left.append(int(answer.headers["x-ratelimit-remaining-requests"]))
    assert left[0] == 49
    assert all(0 <= before - after <= 1 or after > before for before, after in pairwise(left)), left
    seen(f"each of the 40 had its own answer: {left[0]} left, then {left[-1]}")


def parallel(gateways: list[Gateway], key: str) -> tuple[Counter[str], Counter[str]]:
    """300 clients of one key at once, over all gateways, then 60 again and again until nothing fits any more: what became of the first 300, and of all."""
    codes = Counter[str]()

    def ask(number: int) -> None:
        answer = gateways[number % 3].ask("up/fault-slow_ok:0.3", max_tokens=10, headers={"Authorization": f"Bearer {key}"}, timeout=60.0)
        codes[answer.code or str(answer.status)] += 1

    with ThreadPoolExecutor(300) as pool:
        list(pool.map(ask, range(300)))
        first = codes.copy()
        for _ in range(80):
            list(pool.map(ask, range(60)))
            if codes["budget_exceeded"] >= 60:
                break
    return first, codes


@pytest.mark.row(28)
def test_three_replicas_and_a_dollar_twenty_times(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """Three gateways on one Redis; 20 times a new key with a budget of $1, 300 requests at once, then again and again until nothing fits."""
    named = {f"run-{number}": f"sk-faults-run-{number}-0123456789" for number in range(RUNS)}
    with redis(tmp_path) as (url, _, _):
        given = sections(url, 2000)  # 300 clients on the same cores: nobody is to time out
        given["keys"] += [{"name": name, "key": key, "budgets": [{"usd": 1, "period": "total"}]} for name, key in named.items()]
        gateways = [house.gateway({"up": upstream.url}, replicas=3, **given) for _ in range(3)]
        for gateway in gateways:
            known(gateway)
        served = []
        for name, key in named.items():
            first, codes = parallel(gateways, key)
            assert set(codes) <= {"200", "budget_reserved", "budget_exceeded"}, name
            assert first["budget_reserved"] > 0, name
            served.append(first["200"])
        costs = Counter[str]()
        for row in (row for gateway in gateways for row in gateway.rows()):
            costs[row["key"]] += row.get("cost", 0)
    spent = [costs[name] / 1e9 for name in named]
    assert max(spent) <= 1 + BOUND
    assert min(spent) > 1 - 2 * BOUND, "released money is usable again"
    seen(f"{sum(each <= 1 + BOUND for each in spent)} of {RUNS} runs: ${min(spent):.4f} to ${max(spent):.4f} spent; of the first 300 at once {min(served)} to "
         f"{max(served)} were served, the others told `budget_reserved`")


@pytest.mark.row(37)
def test_replicas_whose_clocks_differ_share_all_the_same(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """Three gateways on one Redis: one runs true, one 10 minutes ahead, one 10 behind (libfaketime), and the last two change places meanwhile."""
    keys = {name: f"sk-faults-{name}-0123456789" for name in ("minute", "one", "dollar", "kept")}
    bearer = {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
    uncached = {name: {**each, "Cache-Control": "no-store"} for name, each in bearer.items()}
    clocks = [Skew(house.folder, seconds) for seconds in (600, -600)]
    with redis(tmp_path) as (url, _, _):
        given = sections(url, 2000) | {"cache": {"enabled": True, "backend": "redis", "ttl_seconds": 60}}
        given["keys"] += [
            {"name": "minute", "key": keys["minute"], "limits": {"requests_per_minute": 60}}, {"name": "one", "key": keys["one"], "limits": {"concurrent": 1}},
            {"name": "dollar", "key": keys["dollar"], "budgets": [{"usd": 1, "period": "day"}]}, {"name": "kept", "key": keys["kept"]},
        ]  # fmt: skip
        given["prices"]["up/fault-paced:30,0.1"] = {"input": 1, "output": 1}
        gateways = [house.gateway({"up": upstream.url}, replicas=3, env=env, **given) for env in (None, *(clock.env for clock in clocks))]
        for gateway in gateways:
            known(gateway, 90.0)  # a clock that lies is slow to be read

        began = time.monotonic()
        limited = [gateways[number % 3].ask("up/fault-ok", headers=uncached["minute"]) for number in range(75)]
        through = sum(each.status == 200 for each in limited)
        assert 60 <= through <= 61 + (time.monotonic() - began)  # one comes back each second
        told = [each for each in limited if each.status == 429]
        assert all(each.code == "rate_limit_exceeded" and 1 <= int(each.headers["retry-after"]) <= 60 for each in told)

        for order in (gateways, gateways[::-1], (gateways[1], gateways[2], gateways[0])):  # whoever keeps a reply, all have it for its time
            held = []
            for gateway in order:
                held.append(gateway.ask("up/fault-ok", headers=bearer["kept"], content=f"by {gateways.index(order[0])}"))
                time.sleep(0.1)  # nobody waits for what is kept
            assert [each.headers["x-gateway-cache"] for each in held] == ["miss", "hit", "hit"]
            assert all(int(each.headers["age"]) < 5 for each in held[1:])

        dollar = [gateways[number % 3].ask("up/fault-ok", max_tokens=10, headers=uncached["dollar"]).status for number in range(30)]
        assert dollar == [200] * 30
        occupied = gateways[1].opened("up/fault-paced:30,0.1", key=keys["one"])
        assert occupied.recv(1000).startswith(b"HTTP/1.1 200")
        for clock, seconds in zip(clocks, (-600, 600), strict=True):
            clock.set(seconds)
        time.sleep(0.5)
        assert {gateway.ask("up/fault-ok", headers=uncached["one"]).code for gateway in gateways} == {"concurrency_limit_exceeded"}
        occupied.close()
        eventually(lambda: gateways[0].ask("up/fault-ok", headers=uncached["one"]).status == 200)
        codes = Counter[str]()
        while codes["budget_exceeded"] < 6 and sum(codes.values()) < 600:
            answer = gateways[sum(codes.values()) % 3].ask("up/fault-ok", max_tokens=10, headers=uncached["dollar"])
            codes[answer.code or str(answer.status)] += 1
        rows = [row for gateway in gateways for row in gateway.rows()]
    spent = sum(row.get("cost", 0) for row in rows if row["key"] == "dollar") / 1e9
    assert 1 - 2 * BOUND < spent <= 1 + BOUND
    assert set(codes) <= {"200", "budget_reserved", "budget_exceeded"}
    hours = [{row["ts"][:16] for row in gateway.rows()} for gateway in gateways]
    assert not hours[0] & (hours[1] | hours[2]), "no clock was off"
    seen(f"{through} of 75 requests within a limit of 60 a minute, ${spent:.4f} of a day's $1, one at a time, and each other's cached replies: all three "
         "count as one, before and after two of them change places")


@pytest.mark.row(29)
def test_a_replica_killed_with_a_reservation(house: House, upstream: Upstream, tmp_path: Path, seen: Seen) -> None:
    """Two gateways, a limit of one request at once; the one that has it is killed with SIGKILL. Its requests may take 6 s."""
    with redis(tmp_path) as (url, _, _):
        given = sections(url, limits={"concurrent": 1}, budgets=[{"usd": 1, "period": "total"}])
        short = {"timeout_seconds": 6}
        victim = house.gateway({"up": upstream.url}, server=short, replicas=2, **given)
        other = house.gateway({"up": upstream.url}, server=short, replicas=2, **given)
        known(victim)
        known(other)
        before = upstream.seen()["models"].get("fault-stall", 0)
        held = victim.opened("up/fault-stall", max_tokens=1)
        eventually(lambda: upstream.seen()["models"].get("fault-stall", 0) > before)  # it has the slot; the other does not take it first
        eventually(lambda: other.ask("up/fault-ok", max_tokens=1).code == "concurrency_limit_exceeded")
        for pid in (victim.process.pid, *victim.workers()):
            kill(pid, signal.SIGKILL)
        began = time.monotonic()
        eventually(lambda: other.ask("up/fault-ok", max_tokens=1).status == 200, 60.0)
        freed = time.monotonic() - began
        held.close()
    assert freed < 45
    seen(f"its slot was free again {freed:.0f} s later, when its lease (the request's deadline and 30 s) had ended")


@pytest.mark.row(22)
def test_a_client_leaves_and_asks_again(block: House, upstream: Upstream, seen: Seen) -> None:
    """A stream with an `Idempotency-Key` is left after its first bytes, and asked for again at once."""
    gateway = block.gateway({"up": upstream.url}, prices={"up/fault-paced:20,0.1": {"input": 1, "output": 1}})
    model, before = "fault-paced:20,0.1", upstream.seen()["models"].get("fault-paced:20,0.1", 0)
    sock = gateway.opened(f"up/{model}", headers="Idempotency-Key: once\r\nX-Request-ID: row-22\r\n")
    sock.recv(1000)
    sock.close()
    body = json.dumps({"model": f"up/{model}", "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Idempotency-Key": "once"}
    answer = gateway.fetch("POST", "/v1/chat/completions", body, headers)
    assert answer.well
    assert answer.text == 20 * " word"
    assert upstream.seen()["models"][model] - before == 1
    assert gateway.row("row-22")["status"] == 200
    assert sum(row.get("cost", 0) > 0 for row in gateway.rows() if row["model"].endswith(model)) == 1
    seen(f"one call, one charge; the second had the whole reply {answer.seconds:.1f} s later")



