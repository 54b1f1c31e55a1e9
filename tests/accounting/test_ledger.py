"""Exactly once, in the right order: journal, then the client's last bytes, then the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from llm_gateway.accounting.journal import Journal, read
from llm_gateway.accounting.ledger import LOG_HEAD, Ledger, words
from llm_gateway.core.errors import Fault, Kind
from llm_gateway.core.exchange import Attempt, Exchange, Principal, Route
from llm_gateway.core.types import Usage
from llm_gateway.telemetry.metrics import Metrics, TargetMeter

CHAT = Route("chat", "openai_chat", "/v1/chat/completions", body=True)
HEALTH = Route("health", "openai_chat", "/health", open=True)
BODY = b'{"model":"m","messages":[{"role":"user","content":"%b"}]}' % (b"word " * 80)


class Witness:
    """Client, journal file and log at once: writes down who was told what, in order."""

    alive, paused, sink = True, False, None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []
        self.rows_at_finish: list[int] = []

    def send(self, data: bytes) -> None:
        self.seen.append(f"send {data.decode()}")

    def finish(self, x: Exchange, data: bytes) -> None:
        self.rows_at_finish.append(len(list(read(self.folder))))
        self.seen.append(f"finish {data.decode()}")

    def abort(self, x: Exchange) -> None:
        self.seen.append("abort")

    def write(self, lines: list[bytes]) -> None:
        self.seen.append(f"log {len(lines)}")
        self.lines = lines


class Target:
    provider, model, key_id, prices = "openai", "gpt-4o", "0", "genai-prices 1"

    def __init__(self) -> None:
        self.meter = TargetMeter("openai", "gpt-4o")
        self.priced: list[float] = []

    def price(self, usage: Usage, now: float) -> int | None:
        self.priced.append(now)
        return usage.input * 1000


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(tmp_path)


@pytest.fixture
async def ledger(witness: Witness, tmp_path: Path) -> Any:
    journal = Journal(tmp_path, 0)
    yield Ledger(asyncio.get_running_loop(), journal, witness, Metrics())  # type: ignore[arg-type]
    journal.close()


@pytest.fixture
def make(witness: Witness) -> Callable[..., Exchange]:
    def exchange(**fields: Any) -> Exchange:
        given = {
            "id": "1", "client": witness, "route": CHAT, "method": b"POST", "request_id": "r", "started": perf_counter() - 0.1,
            "wall": 1_764_000_000.25, "principal": Principal("ci", "blue"), "status": 200, "model": "gpt-4", "tries": 1,
            "body": BODY,
        }  # fmt: skip
        return Exchange(**(given | fields))

    return exchange


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read(folder))


async def tick() -> None:
    await asyncio.sleep(0)


async def test_the_row_is_on_disk_before_the_last_bytes_go_and_the_log_comes_last(ledger, make, witness) -> None:
    ledger.settle(make(), b"bye")
    assert witness.seen == [], "nothing goes before the end of the tick"
    await tick()
    assert witness.seen == ["finish bye", "log 1"]
    assert witness.rows_at_finish == [1]


async def test_one_tick_is_one_write_whoever_settles(ledger, make, witness) -> None:
    for number in range(5):
        ledger.settle(make(id=str(number)), b"")
    await tick()
    assert witness.rows_at_finish == [5] * 5
    assert witness.seen[-1] == "log 5"


async def test_settling_twice_books_once(ledger, make, witness, tmp_path: Path) -> None:
    x = make()
    ledger.settle(x, b"one")
    ledger.settle(x, b"two")
    await tick()
    ledger.settle(x, b"three")
    await tick()
    assert len(rows(tmp_path)) == 1
    assert witness.seen == ["finish one", "log 1"]
    assert sum(ledger.metrics.requests.values()) == 1


async def test_a_broken_reply_is_aborted_after_its_error_event_and_booked(ledger, make, witness, tmp_path: Path) -> None:
    fault = Fault(Kind.UPSTREAM_CUT, "The upstream closed.")
    ledger.settle(make(broken=True, fault=fault, stream=True, committed=True, target=Target()), b"data: error")
    await tick()
    assert witness.seen == ["send data: error", "abort", "log 1"]
    (row,) = rows(tmp_path)
    assert (row["outcome"], row["error"]) == ("upstream_cut", "The upstream closed.")


async def test_what_is_asked_without_a_key_is_logged_not_booked(ledger, make, witness, tmp_path: Path) -> None:
    ledger.settle(make(principal=None, route=HEALTH, body=b""), b"")
    await tick()
    assert rows(tmp_path) == []
    assert witness.seen[-1] == "log 1"
    assert ledger.metrics.requests == {("/health", b"POST", 200): 1}


async def test_a_row_says_who_what_where_and_how_much(ledger, make, tmp_path: Path) -> None:
    usage = Usage(input=20, output=5, cache_read=4, cache_write_5m=2, cache_write_1h=1, reasoning=3)
    attempts = [Attempt("openai", "gpt-4o", "0", "ok", 200, 12.5)]
    ledger.settle(make(usage=usage, target=Target(), attempts=attempts, upstream_ms=40.0, finish="stop", peer="10.0.0.7"), b"")
    await tick()
    (row,) = rows(tmp_path)
    assert row["ts"] == "2025-11-24T16:00:00.250Z"
    assert {name: row[name] for name in ("tenant", "key", "route", "status", "model", "provider", "upstream_model")} == {
        "tenant": "blue", "key": "ci", "route": "/v1/chat/completions", "status": 200, "model": "gpt-4", "provider": "openai",
        "upstream_model": "gpt-4o",
    }  # fmt: skip
    assert [row[name] for name in ("input", "output", "cache_read", "cache_write", "reasoning", "cost")] == [20, 5, 4, 3, 3, 20_000]
    assert row["attempts"] == [
        {"provider": "openai", "model": "gpt-4o", "key": "0", "outcome": "ok", "status": 200, "ms": 12.5}
    ]
    assert 90 < row["ms"] < 1000
    assert "estimated" not in row


async def test_a_row_says_whose_key_it_was_for_which_session_and_by_whose_prices(ledger, make, tmp_path: Path) -> None:
    principal = Principal("ci", "blue", id="key_1", project="search", user="bob")
    headers = {b"x-gateway-tags": b" eu, batch,,eu ", b"x-gateway-session": b"s-" + b"1" * 200}
    usage = Usage(
        input=20, output=5, cache_write_1h=1, audio_input=1, audio_output=2, image_input=3, image_output=4, accepted_prediction=5, rejected_prediction=6,
        searches=7, tier="flex",
    )  # fmt: skip
    ledger.settle(make(principal=principal, headers=headers, usage=usage, target=Target()), b"")
    await tick()
    (row,) = rows(tmp_path)
    said = {name: row[name] for name in ("tenant", "key", "key_id", "project", "user", "tags", "session", "prices")}
    assert said == {
        "tenant": "blue", "key": "ci", "key_id": "key_1", "project": "search", "user": "bob", "tags": ["batch", "eu"], "session": ("s-" + "1" * 200)[:128],
        "prices": "genai-prices 1",
    }  # fmt: skip
    kinds = (
        "audio_input", "audio_output", "image_input", "image_output", "accepted_prediction", "rejected_prediction", "searches", "cache_write_1h", "tier",
    )  # fmt: skip
    assert [row[name] for name in kinds] == [1, 2, 3, 4, 5, 6, 7, 1, "flex"]


async def test_what_is_empty_is_left_out(ledger, make, tmp_path: Path) -> None:
    ledger.settle(make(), b"")
    await tick()
    (row,) = rows(tmp_path)
    assert not {"tags", "session", "project", "user", "prices", "searches", "tier", "cached", "saved"} & set(row)


def test_tags_are_sorted_once_each_and_not_too_many() -> None:
    assert words(b"b, a ,b,") == ["a", "b"]
    assert words(b",".join(b"%03d" % number for number in range(100)))[-1] == "031"
    assert words(b"x" * 100) == ["x" * 64]
    long = words(b",".join(b"%02d" % number + b"\xfc" * 62 for number in range(32)))
    assert 2000 < len(",".join(long).encode()) <= 2200, "as much as an index holds"


async def test_a_cut_stream_is_billed_by_what_went_by_and_says_so(ledger, make, tmp_path: Path) -> None:
    x = make(stream=True, committed=True, characters=40, target=Target(), status=499)
    ledger.settle(x, b"")
    await tick()
    (row,) = rows(tmp_path)
    assert (row["estimated"], row["output"], row["input"]) == (True, 10, 102)
    assert row["cost"] == 102_000


async def test_a_stream_nobody_saw_anything_of_costs_nothing(ledger, make, tmp_path: Path) -> None:
    ledger.settle(make(stream=True, committed=False, target=Target(), status=502, fault=Fault(Kind.UPSTREAM_ERROR, "no")), b"")
    await tick()
    (row,) = rows(tmp_path)
    assert "input" not in row
    assert "cost" not in row


async def test_only_text_that_was_streamed_is_estimated(ledger, make, tmp_path: Path) -> None:
    speech = Route("speech", "openai_speech", "/v1/audio/speech", body=True)
    for fields in ({"stream": True, "route": speech}, {"stream": False}):
        ledger.settle(make(committed=True, characters=40, target=Target(), **fields), b"")
    await tick()
    assert [("input" in row, "cost" in row) for row in rows(tmp_path)] == [(False, False)] * 2


async def test_a_streams_cost_contains_that_of_attempts_before_it_once(ledger, make, tmp_path: Path) -> None:
    for fields in ({"usage": Usage(input=1)}, {"characters": 40}, {"usage": Usage(input=1), "cost": 1500}, {}):
        ledger.settle(make(stream=True, committed=bool(fields), target=Target(), absorbed=500, **fields), b"")
    await tick()
    assert [row.get("cost") for row in rows(tmp_path)] == [1500, 102_500, 1500, None]


async def test_times_and_fallbacks_are_told_in_row_and_metrics(ledger, make, tmp_path: Path) -> None:
    x = make(stream=True, upstream_ms=40.5, fallbacks=1, target=Target(), usage=Usage(input=1))
    x.first_byte = x.started + 0.025
    ledger.settle(x, b"")
    ledger.settle(make(target=Target()), b"")
    await tick()
    first, second = rows(tmp_path)
    assert (first["upstream_ms"], first["first_token_ms"], first["fallbacks"]) == (40.5, pytest.approx(25, abs=0.002), 1)
    assert not {"first_token_ms", "fallbacks"} & set(second)
    assert ledger.metrics.fallbacks == 1
    assert x.target.meter.first_token.sum == pytest.approx(0.025)


async def test_a_flood_of_strangers_is_a_hundred_rows_a_second_and_the_next_says_how_many_more(ledger, make, tmp_path: Path) -> None:
    stranger = {"principal": None, "status": 401, "fault": Fault(Kind.UNAUTHENTICATED, "Unknown API key."), "body": b""}
    for wall in (1_764_000_000.0,) * 130 + (1_764_000_001.0,) * 2:
        ledger.settle(make(wall=wall, **stranger), b"")
    ledger.settle(make(wall=1_764_000_000.5), b"")
    await tick()
    assert [row.get("more", 0) for row in rows(tmp_path) if row["status"] == 401] == [0] * 100 + [30, 0]
    assert sum(row["status"] == 200 for row in rows(tmp_path)) == 1
    assert ledger.metrics.requests["/v1/chat/completions", b"POST", 401] == 132


async def test_a_price_is_taken_at_the_requests_time(ledger, make) -> None:
    target = Target()
    ledger.settle(make(usage=Usage(input=1), target=target), b"")
    await tick()
    assert target.priced == [1_764_000_000.25]


async def test_a_cost_that_is_known_already_is_kept(ledger, make) -> None:
    target = Target()
    ledger.settle(make(usage=Usage(input=1), target=target, cost=7), b"")
    await tick()
    assert target.priced == []
    assert target.meter.cost == 7


async def test_overhead_is_seen_only_where_it_is_ours(ledger, make) -> None:
    ledger.settle(make(target=Target(), upstream_ms=60.0), b"")
    ledger.settle(make(target=Target(), upstream_ms=60.0, tries=2), b"")  # the pause between two attempts is nobody's
    await tick()
    observed = ledger.metrics.overhead
    assert sum(observed.counts) == 1
    assert 0.03 < observed.sum < 0.5


async def test_a_log_line_is_the_row_with_a_head(ledger, make, witness, tmp_path: Path) -> None:
    ledger.settle(make(), b"")
    await tick()
    (line,) = witness.lines
    assert line.startswith(LOG_HEAD)
    logged = json.loads(line)
    assert logged.pop("level") == "info"
    assert logged.pop("event") == "request"
    assert [logged] == rows(tmp_path)


async def test_neither_log_nor_row_holds_a_prompt_or_a_key(ledger, make, witness, tmp_path: Path) -> None:
    headers = {b"authorization": b"Bearer sk-secret-token"}
    ledger.settle(make(headers=headers, query=b"key=sk-secret-token", target=Target(), usage=Usage(input=1)), b"")
    await tick()
    for text in (witness.lines[0], json.dumps(rows(tmp_path)).encode()):
        assert b"sk-secret" not in text
        assert b"word word" not in text


async def test_stamps_are_right_across_seconds(ledger) -> None:
    walls = (0.0, 0.9996, 1.0, 951_782_399.5, 0.25)
    stamps = [ledger._time(wall) for wall in walls]
    assert stamps == [
        "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00.999Z", "1970-01-01T00:00:01.000Z", "2000-02-28T23:59:59.500Z",
        "1970-01-01T00:00:00.250Z",
    ]  # fmt: skip


async def test_what_cannot_be_booked_is_not_given_and_nobody_waits_for_it(ledger, make, witness, capsys) -> None:
    broken = Target()
    broken.price = lambda usage, now: 1 // 0  # type: ignore[method-assign]
    ledger.settle(make(target=broken, usage=Usage(input=1)), b"bye")
    ledger.settle(make(id="2"), b"hello")
    await tick()
    assert witness.seen[:2] == ["abort", "finish hello"]
    assert "ZeroDivisionError" in capsys.readouterr().err
