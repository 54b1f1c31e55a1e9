"""Rows 30, 31, 39: told to end, told to end twice, killed, and reconfigured under load."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faults.conftest import Seen
from faults.house import Answer, Gateway, House, kill
from processes import eventually

pytestmark = pytest.mark.slow


def streams(gateway: Gateway, pool: ThreadPoolExecutor, count: int, model: str) -> list[object]:
    """So many under way."""
    started = [pool.submit(gateway.ask, model, stream=True, timeout=60, headers={"X-Request-ID": f"stream-{n}"}) for n in range(count)]
    eventually(lambda: gateway.metric("llm_gateway_open_streams") == count, 20)
    return list(started)


def rows_by_id(gateway: Gateway) -> Counter[str]:
    return Counter(row["request_id"] for row in gateway.rows())


@pytest.mark.row(30)
def test_sigterm_cuts_no_stream_and_refuses_nobody_in_the_lame_duck(house: House, seen: Seen) -> None:
    """SIGTERM with 100 streams of 6 s under way; new requests every 50 ms for the 2 s of the lame duck."""
    gateway = house.gateway({"up": house.upstream().url}, drain={"lame_duck": 2, "timeout": 30})
    gateway.ask("up/ok")
    with ThreadPoolExecutor(100) as pool:
        open_streams = streams(gateway, pool, 100, "up/fault-paced:60,0.1")
        gateway.send(signal.SIGTERM)
        eventually(lambda: gateway.fetch("GET", "/health/ready").status == 503)
        end, asked = time.monotonic() + 1.2, []
        while time.monotonic() < end:
            asked.append(gateway.ask("up/ok"))
            time.sleep(0.05)
        answers = [each.result() for each in open_streams]  # type: ignore[attr-defined]
    assert [each.status for each in asked] == [200] * len(asked)
    assert {each.headers.get("connection") for each in asked} == {"close"}
    cut = [each for each in answers if not each.well]
    assert not cut
    assert gateway.process.wait(20) == 0
    rows = rows_by_id(gateway)
    assert [rows[f"stream-{n}"] for n in range(100)] == [1] * 100
    seen(f"100 of 100 streams whole, {len(asked)} of {len(asked)} new requests answered in the lame duck with `Connection: close`, exit status 0, one row each")


@pytest.mark.row(30)
def test_a_drain_that_takes_too_long_ends_in_error_events_and_a_second_signal_at_once(house: House, seen: Seen) -> None:
    """SIGTERM with a drain timeout of 1 s and streams of a minute; then, with another gateway, SIGTERM twice."""
    upstream = house.upstream()
    gateway = house.gateway({"up": upstream.url}, drain={"lame_duck": 0, "timeout": 1})
    with ThreadPoolExecutor(20) as pool:
        under_way = streams(gateway, pool, 20, "up/fault-paced:600,0.1")
        gateway.send(signal.SIGTERM)
        told = [each.result() for each in under_way]  # type: ignore[attr-defined]
    assert {each.code for each in told} == {"shutting_down"}
    assert not any(each.well or each.whole for each in told)
    gateway.process.wait(10)
    assert set(rows_by_id(gateway).values()) == {1}
    other = house.gateway({"up": upstream.url}, drain={"lame_duck": 5, "timeout": 60})
    with ThreadPoolExecutor(20) as pool:
        under_way = streams(other, pool, 20, "up/fault-paced:600,0.1")
        began = time.perf_counter()
        other.send(signal.SIGTERM)
        time.sleep(1.2)  # sooner it would be taken for an echo of the first
        other.send(signal.SIGTERM)
        other.process.wait(10)
        took = time.perf_counter() - began
        broken = [each.result() for each in under_way]  # type: ignore[attr-defined]
    assert not any(each.well for each in broken)
    assert took < 5
    seen(f"drain over: 20 of 20 got the error event `shutting_down` and an aborted body; second SIGTERM: all ended {took:.1f} s after the first, "
         "none of 20 streams looked whole")


@pytest.mark.row(30)
def test_what_was_delivered_before_a_kill_is_in_the_journal_once_after_the_restart(house: House, seen: Seen) -> None:
    """SIGKILL of the whole gateway with 50 streams and plain requests under way; started again on the same data."""
    upstream = house.upstream()
    gateway = house.gateway({"up": upstream.url})
    whole: list[str] = []
    with ThreadPoolExecutor(60) as pool:
        streams(gateway, pool, 50, "up/fault-paced:600,0.1")

        def keep_asking(who: int) -> None:
            for number in range(10_000):
                try:
                    answer = gateway.ask("up/ok", headers={"X-Request-ID": f"plain-{who}-{number}"})
                except (OSError, http.client.HTTPException):
                    return
                if answer.status == 200 and answer.whole:
                    whole.append(f"plain-{who}-{number}")

        for who in range(8):
            pool.submit(keep_asking, who)
        time.sleep(2)
        pids = [gateway.process.pid, *gateway.workers()]
        for pid in pids:
            kill(pid, signal.SIGKILL)
        gateway.process.wait(10)
    again = house.gateway({"up": upstream.url}, data_dir=str(gateway.data))
    assert again.ask("up/ok").status == 200
    rows = rows_by_id(again)
    missing = [each for each in whole if rows[each] != 1]
    assert not missing
    assert max(rows.values()) == 1
    seen(f"{len(whole)} replies held in full, each has exactly one row after the restart; no row twice among {rows.total()}")


@pytest.mark.row(31)
def test_reloading_under_load_loses_nothing(house: House, seen: Seen) -> None:
    """20 reloads by SIGHUP, every third of a file that is wrong, under 8 busy clients and 20 streams."""
    upstream = house.upstream()
    gateway = house.gateway({"up": upstream.url}, models={"first": {"targets": ["up/ok"]}})
    good = json.loads(gateway.config.read_text())
    stop, answers = threading.Event(), list[Answer]()

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(gateway.ask("first"))

    with ThreadPoolExecutor(30) as pool:
        under_way = streams(gateway, pool, 20, "up/fault-paced:120,0.1")
        busy = [pool.submit(keep_asking) for _ in range(8)]
        valid = invalid = 0
        for number in range(20):
            generation, failures = gateway.metric("llm_gateway_config_generation"), gateway.metric("llm_gateway_config_reload_failures_total")
            if number % 3 == 2:
                gateway.config.write_text('{"server": {"port": "none"}, "nonsense": 1}' if number % 2 else '{"models": ')
                invalid += 1
            else:
                good["models"][f"alias-{number}"] = {"targets": ["up/ok"]}
                gateway.config.write_text(json.dumps(good))
                valid += 1
            gateway.send(signal.SIGHUP)
            if number % 3 == 2:
                eventually(lambda failures=failures: gateway.metric("llm_gateway_config_reload_failures_total") > failures, 15)
            else:
                eventually(lambda generation=generation: gateway.metric("llm_gateway_config_generation") > generation, 15)
                eventually(lambda number=number: gateway.ask(f"alias-{number}").status == 200, 15)
        stop.set()
        for each in busy:
            each.result()
        done = [each.result() for each in under_way]  # type: ignore[attr-defined]
    bad = [each.status for each in answers if each.status != 200 or not each.whole]
    assert not bad
    assert all(each.well for each in done)
    assert gateway.ask("alias-0").status == 200
    seen(f"{valid} good and {invalid} bad reloads: {len(answers)} requests meanwhile without an error, 20 of 20 streams whole; the last good configuration "
         "kept every time")


@pytest.mark.row(39)
@pytest.mark.parametrize("victim", ["worker", "supervisor", "both"])
def test_every_reply_held_in_full_has_one_row_whoever_is_killed(checkout: Path, seen: Seen, victim: str) -> None:
    """bench/kill9.py: SIGKILL at random moments under 48 clients; the gateway is started again where nobody is left to do it."""
    kills = 8 if victim == "worker" else 4
    command = [sys.executable, "bench/kill9.py", "--kills", str(kills), "--victim", victim]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen(f"{victim}: {done.stdout.splitlines()[0]}; none without a row, none twice")
