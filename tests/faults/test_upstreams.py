"""Rows 1, 3 to 6, 10, 13 to 15: an upstream that refuses, stalls, breaks off or talks rubbish."""

from __future__ import annotations

import signal
import time
from email.utils import formatdate

import pytest

from faults.conftest import Seen
from faults.house import KEY, Gateway, House, Upstream, free_port, frozen
from faults.upstream import WIDE
from processes import eventually


@pytest.fixture(scope="module")
def upstream(block: House) -> Upstream:
    return block.upstream()


@pytest.fixture(scope="module")
def good(block: House) -> Upstream:
    return block.upstream()


@pytest.fixture(scope="module")
def doomed() -> int:
    """The port of an upstream that will be killed."""
    return free_port()


@pytest.fixture(scope="module")
def gateway(block: House, upstream: Upstream, good: Upstream, doomed: int) -> Gateway:
    quick = {"timeout_seconds": 1, "first_chunk_timeout_seconds": 1}
    return block.gateway(
        {
            "refusing": f"http://127.0.0.1:{free_port()}",
            "faulty": {"base_url": upstream.url, **quick},
            "retrying": {"base_url": upstream.url, "max_retries": 2},
            "good": good.url,
            "doomed": f"http://127.0.0.1:{doomed}",
        },
        models={
            "refused": {"targets": ["refusing/m"], "fallbacks": ["good/ok"]},
            "reset": {"targets": ["faulty/fault-reset_at_once"], "fallbacks": ["good/ok"]},
            "stalled": {"targets": ["faulty/fault-ok"], "fallbacks": ["good/ok"]},
            "error-first": {"targets": ["faulty/fault-error_in_200"], "fallbacks": ["good/ok"]},
        },
    )


@pytest.mark.row(1)
@pytest.mark.parametrize("model", ["refused", "reset"])
def test_a_refused_or_reset_connection_costs_little(gateway: Gateway, seen: Seen, model: str) -> None:
    """A port on which nobody listens; an upstream that answers with RST."""
    answers = [gateway.ask(model) for _ in range(10)]
    assert [(each.status, each.headers["x-gateway-provider"]) for each in answers] == [(200, "good")] * 10
    taken = sorted(each.seconds for each in answers)
    seen(f"{model}: 10 of 10 answered by the fallback, the whole request in {1e3 * taken[0]:.0f} ms at best, {1e3 * taken[5]:.0f} ms in the middle")
    assert taken[5] < 0.1


@pytest.mark.row(3)
def test_an_upstream_stopped_before_its_headers_is_left_for_the_next(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """SIGSTOP of the upstream's process; the first-chunk limit is 1 s."""
    with frozen(upstream):
        answer = gateway.ask("stalled", stream=True, headers={"X-Request-ID": "row-3"})
    assert answer.well
    assert answer.headers["x-gateway-provider"] == "good"
    assert 0.9 < answer.seconds < 5
    assert [each["outcome"] for each in gateway.row("row-3")["attempts"]] == ["first_chunk_timeout", "ok"]
    eventually(lambda: upstream.seen()["open"] == 0)
    seen(f"the fallback's stream whole after {answer.seconds:.2f} s; the stopped upstream found its socket closed when it went on")


@pytest.mark.row(4)
def test_an_upstream_stopped_mid_stream_ends_in_an_error_event_and_is_billed(gateway: Gateway, upstream: Upstream, seen: Seen) -> None:
    """SIGSTOP of the upstream's process after some events; the silence limit is 1 s."""
    sock = gateway.opened("faulty/fault-paced:100,0.02", headers="X-Request-ID: row-4\r\n")
    got = b""
    while got.count(b"data: ") < 3:
        got += sock.recv(65536)
    with frozen(upstream):
        stopped = time.perf_counter()
        while piece := sock.recv(65536):
            got += piece
        took = time.perf_counter() - stopped
    assert b'"error"' in got.rpartition(b"data: ")[2]
    assert b"[DONE]" not in got
    assert not got.endswith(b"0\r\n\r\n")
    row = gateway.row("row-4")
    assert row["output"] > 0
    assert row["estimated"] is True
    seen(f"error event {took:.2f} s after the stop, no `[DONE]`, body aborted; row {row['outcome']} with {row['output']} tokens, marked estimated")
    assert 0.5 < took < 5


@pytest.mark.row(5)
def test_a_killed_upstream_is_an_error_event_within_a_second(gateway: Gateway, house: House, doomed: int, seen: Seen) -> None:
    """SIGKILL of the upstream's process mid-stream, and RST by an upstream that lives."""
    victim = house.upstream(port=doomed)
    sock = gateway.opened("doomed/fault-paced:1000,0.02")
    got = b""
    while got.count(b"data: ") < 3:
        got += sock.recv(65536)
    victim.send(signal.SIGKILL)
    killed = time.perf_counter()
    while piece := sock.recv(65536):
        got += piece
    took = time.perf_counter() - killed
    assert b'"error"' in got.rpartition(b"data: ")[2]
    assert b"[DONE]" not in got
    assert took < 1
    reset = gateway.ask("faulty/fault-rst_midstream", stream=True)
    assert (reset.text, reset.code, reset.whole) == ("One two three", "upstream_cut", False)
    seen(f"error event {1e3 * took:.0f} ms after SIGKILL, and after RST too; no `[DONE]`, no end of the chunked body")


@pytest.mark.row(6)
def test_a_clean_end_that_says_nothing_of_a_finish_is_an_error(gateway: Gateway, seen: Seen) -> None:
    """A well-framed stream without finish reason, and one cut off by FIN."""
    for fault in ("clean_end_without_finish", "cut_midstream"):
        answer = gateway.ask(f"faulty/fault-{fault}", stream=True)
        assert (answer.status, answer.code, answer.whole, answer.well) == (200, "upstream_cut", False, False), fault
    seen("error event `upstream_cut` and an aborted body, both times")


@pytest.mark.row(10)
def test_one_byte_a_write_is_the_same_stream(gateway: Gateway, seen: Seen) -> None:
    """The upstream writes each byte by itself, letters of four bytes included."""
    answer = gateway.ask("good/fault-wide", stream=True)
    assert answer.well
    assert answer.text == WIDE * 2
    assert answer.body.count(WIDE.encode()) == 1  # what came raw leaves raw
    seen(f"{len(answer.body)} bytes in single writes; text identical, the raw event byte for byte")


ABSURD = ["99999999999999999999", "-5", "NaN", "inf", "1e308", "soon", "0x10", "Wed, 21 Oct 2099 07:28:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", ""]


@pytest.mark.row(13)
@pytest.mark.slow
def test_an_absurd_retry_after_is_clamped(gateway: Gateway, seen: Seen) -> None:
    """429 with Retry-After huge, negative, NaN, infinite, a date long past and far ahead, words, nothing."""
    told: dict[str, str | None] = {}
    for value in [*ABSURD, formatdate(time.time_ns() / 1e9 + 3, usegmt=True)]:
        answer = gateway.ask(f"retrying/fault-limited:{value}", timeout=20)
        assert answer.status == 429, (value, answer)
        told[value] = answer.headers.get("retry-after")
    figures = [float(each) for each in told.values() if each is not None]
    assert all(0 <= each <= 86400 for each in figures), told
    assert gateway.ask("good/ok").status == 200
    seen(f"{len(told)} values, each a 429 to the client, Retry-After told between {min(figures):g} and {max(figures):g} s or not at all; no crash")


@pytest.mark.row(14)
def test_an_error_event_before_any_content_is_a_failed_attempt(gateway: Gateway, seen: Seen) -> None:
    """A 200 whose stream begins with an error."""
    answer = gateway.ask("error-first", stream=True)
    assert answer.well
    assert (answer.text, answer.headers["x-gateway-provider"], answer.headers["x-gateway-attempts"]) == ("One two three", "good", "2")
    seen(f"the fallback's stream, whole, in {1e3 * answer.seconds:.0f} ms; nothing of the error reached the client")


@pytest.mark.row(15)
@pytest.mark.parametrize("fault", ["html", "truncated_json", "huge:2048", "gzip_bomb"])
def test_rubbish_is_a_502_and_costs_no_memory(gateway: Gateway, upstream: Upstream, seen: Seen, fault: str) -> None:
    """HTML with status 200, half a JSON, a plain reply of 2 GB, 16 MB of spaces in 16 kB of gzip."""
    gateway.ask("good/ok")
    before = gateway.rss()
    answer = gateway.ask(f"faulty/fault-{fault}")
    grown = gateway.rss() - before
    assert answer.status == 502
    seen(f"`{fault}`: 502 `{answer.code}` after {1e3 * answer.seconds:.0f} ms, RSS {grown:+.1f} MB")
    assert grown < 50


@pytest.mark.row(15)
@pytest.mark.slow
def test_a_line_of_two_gigabytes_passes_without_being_held(gateway: Gateway, house: House, seen: Seen) -> None:
    """One SSE line of 2 GB: passed on in pieces to a client of the same shape, an error for one of another."""
    own = house.gateway({"long": {"base_url": house.upstream().url, "timeout_seconds": 60}})
    own.ask("long/fault-ok")
    before, most, size, got = own.rss(), 0.0, 0, b""
    sock = own.opened("long/fault-endless_line:2048", timeout=60)
    while piece := sock.recv(1 << 20):
        got = (got + piece)[-500:]
        size += len(piece)
        if size % (64 << 20) < len(piece):
            most = max(most, own.rss() - before)
    most = max(most, own.rss() - before)
    assert b"[DONE]" not in got
    assert not got.endswith(b"0\r\n\r\n")
    message = b'{"model": "long/fault-endless_line:2048", "max_tokens": 9, "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    crossed = own.fetch("POST", "/v1/messages", message, {"x-api-key": KEY, "content-type": "application/json"})
    grown = max(most, own.rss() - before)
    seen(f"same shape: {size >> 20} MiB passed, then the connection cut, RSS at most {most:+.1f} MB; Anthropic client: {crossed.status} after "
         f"{crossed.seconds:.1f} s, RSS {grown:+.1f} MB")
    assert grown < 50
    assert crossed.status == 502 or b"event: error" in crossed.body
