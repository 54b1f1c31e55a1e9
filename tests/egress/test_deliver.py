"""Attempts that fail, before and after the client has seen anything: the fault matrix of one request, end to end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from egress.conftest import FAILING
from ingress.gateway import (
    DONE,
    FINISH,
    STREAM_END,
    STREAM_HEAD,
    Gateway,
    Peer,
    Scripted,
    Upstreams,
    completion,
    event,
    eventually,
    request,
)

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
STREAMS_ONLY = {"stall_after_head", "error_in_200", "role_only_then_cut"}
PLAIN_ONLY = {"truncated_json", "short_body", "gzip_bomb", "bad_framing"}


def names(body: bytes) -> list[str]:
    """The events of an Anthropic stream."""
    return [line[7:].decode() for line in body.splitlines() if line.startswith(b"event: ")]


def text(body: bytes) -> str:
    """What a client of either shape read."""
    said = ""
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            data = json.loads(line[6:])
            for choice in data.get("choices", []):
                said += choice["delta"].get("content") or ""
            said += data.get("delta", {}).get("text", "")
    return said


def broken(client: Peer) -> tuple[dict[str, str], bytes]:
    """A stream that must not end well: its headers and what came of its body before the connection was cut."""
    with pytest.raises(EOFError) as ended:
        client.reply()
    body: bytes = ended.value.args[0]
    return {}, body


# -- before anything was seen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        (each, stream)
        for each in FAILING
        for stream in (False, True)
        if each not in (PLAIN_ONLY if stream else STREAMS_ONLY)
    ],
)
def test_another_provider_answers_and_the_client_is_unaware(gateway: Gateway, fault: str, stream: bool, path: str):
    name = f"{abs(hash((fault, stream, path)))}"
    began = time.monotonic()
    with gateway.connect() as client:
        client.send(request(f"then-good/{fault}", stream=stream, path=path, headers=(f"X-Request-ID: {name}",)))
        reply = client.reply()
    took = time.monotonic() - began
    assert reply.status == 200, reply
    if fault != "stall_after_head":  # there a heartbeat, which the upstream's 200 allows, has sent the head already
        assert (reply.headers["x-gateway-provider"], reply.headers["x-gateway-fallbacks"]) == ("again", "1")
        # On a connection kept from before, an end before any byte looks stale and is tried once more.
        assert reply.headers["x-gateway-attempts"] in (("2", "3") if fault.endswith("at_once") else ("2",))
    assert b"error" not in reply.body
    if stream:
        assert text(reply.body) == "One two three"
        assert reply.body.count(b'"One"') == 1
    else:
        assert b"hello" in reply.body
    row = gateway.row(name)
    assert (row["status"], row.get("outcome", "ok"), row["fallbacks"]) == (200, "ok", 1)
    assert took < (2.8 if fault.startswith("stall") else 0.9)  # none of the others waits until its provider's second is over


def test_a_refused_connect_costs_less_than_a_tenth_of_a_second(gateway: Gateway):
    gateway.ask(request("connect"))
    began = time.monotonic()
    assert gateway.ask(request("connect")).status == 200
    assert time.monotonic() - began < 0.1


def test_an_aliass_own_first_chunk_limit_makes_failover_fast_and_closes_the_stalled_socket(
    gateway: Gateway, upstreams: Upstreams
):
    upstreams.faulty.gone.clear()
    began = time.monotonic()
    with gateway.connect() as client:
        client.send(request("short", stream=True))
        assert text(client.reply().body) == "One two three"
    assert 0.3 < time.monotonic() - began < 0.9
    eventually(upstreams.faulty.gone.is_set, 1.0)


def test_the_same_target_is_tried_again_for_what_may_pass(gateway: Gateway, upstreams: Upstreams):
    before = len(upstreams.faulty.received)
    upstreams.faulty.script("status:503", "reset_at_once", "ok")
    reply = gateway.ask(request("again/m"))
    assert (reply.status, reply.headers["x-gateway-attempts"], reply.headers["x-gateway-fallbacks"]) == (200, "3", "0")
    assert len(upstreams.faulty.received) - before == 3


@pytest.mark.parametrize("status", [400, 413, 422])
def test_the_callers_own_fault_is_told_at_once_in_its_shape(gateway: Gateway, upstreams: Upstreams, status: int):
    before = len(upstreams.faulty.received)
    reply = gateway.ask(request(f"again/fault-status:{status}"))
    assert reply.status == status
    assert "scripted" in reply.json()["error"]["message"]
    crossed = gateway.ask(request(f"again/fault-status:{status}", path=MESSAGES))
    assert crossed.status == status
    assert crossed.json()["type"] == "error"
    assert len(upstreams.faulty.received) - before == 2


def test_our_own_credentials_refused_are_not_the_clients(gateway: Gateway):
    for status in (401, 403):
        reply = gateway.ask(request(f"faulty/fault-status:{status}"))
        assert (reply.status, reply.json()["error"]["code"]) == (502, "upstream_auth")
        assert "scripted" not in reply.body.decode()


def test_nobody_left_to_ask_is_a_fault_in_time(gateway: Gateway):
    for path in (CHAT, MESSAGES):
        began = time.monotonic()
        reply = gateway.ask(request("all-down", path=path, headers=(f"X-Request-ID: down{len(path)}",)))
        assert reply.status in (502, 503)
        assert time.monotonic() - began < 1.0
        row = gateway.row(f"down{len(path)}")
        assert [attempt["outcome"] for attempt in row["attempts"]] == ["upstream_connect"] * 3


def test_a_stale_connection_is_tried_again_unseen_but_only_before_any_byte(gateway: Gateway, upstreams: Upstreams):
    upstreams.faulty.script("then_close")
    assert gateway.ask(request("faulty/m")).status == 200
    upstreams.faulty.script("then_close")
    first = gateway.ask(request("faulty/m"))  # perhaps on a new one, if the close was heard in time
    assert first.status == 200
    upstreams.faulty.script("ok", "close_at_once", "ok")
    assert gateway.ask(request("faulty/m")).status == 200
    reply = gateway.ask(request("faulty/m"))
    assert (reply.status, reply.headers["x-gateway-attempts"]) == (200, "2")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("html", "bad_upstream_reply"), ("truncated_json", "bad_upstream_reply"), ("gzip_bomb", "bad_upstream_reply"), ("bad_framing", "bad_upstream_reply"),
     ("short_body", "upstream_cut"), ("status:500", "upstream_error"), ("status:502", "upstream_error")],
)  # fmt: skip
def test_rubbish_is_502_and_costs_no_memory(gateway: Gateway, fault: str, outcome: str):
    before = gateway.rss()
    for path in (CHAT, MESSAGES):
        reply = gateway.ask(
            request(f"faulty/fault-{fault}", path=path, headers=(f"X-Request-ID: rubbish-{fault}-{len(path)}",))
        )
        assert reply.status == 502, reply
        assert gateway.row(f"rubbish-{fault}-{len(path)}")["status"] == 502
    assert gateway.rss() - before < 20 << 20


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_plain_reply_that_is_no_utf8_deep_inside_is_rubbish_too(gateway: Gateway, scripted: Scripted, path: str):
    body = completion().replace(b"prompt_tokens", b"prompt_\xffokens").replace(b'"role"', b'"r\xffle"')
    scripted.play = lambda peer: (peer.reply(), peer.send(body))[0]
    reply = gateway.ask(request("scripted/m", path=path))
    assert (reply.status, gateway.row(reply.headers["x-request-id"])["outcome"]) == (502, "bad_upstream_reply"), reply


def test_a_client_that_makes_a_provider_say_so_does_not_cost_others_our_key(gateway: Gateway, scripted: Scripted):
    """The service quotes what it was sent, as OpenAI does with a value that it does not know."""

    def play(upstream: Peer) -> None:
        asked = upstream.reply().json().get("reasoning_effort")
        if asked is None:
            upstream.send(completion())
            return
        error = {"message": f"Invalid value: '{asked}'.", "type": "invalid_request_error", "param": "reasoning_effort", "code": "invalid_value"}
        body = json.dumps({"error": error}).encode()
        upstream.send(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    scripted.play = play
    for _ in range(4):
        reply = gateway.ask(request("scripted/m", reasoning_effort="invalid api key"))
        assert (reply.status, reply.json()["error"]["param"]) == (400, "reasoning_effort")
    assert gateway.ask(request("scripted/m")).status == 200


def test_a_compressed_reply_nobody_asked_for_is_read_if_it_grows_within_reason(gateway: Gateway):
    assert b"hello" in gateway.ask(request("faulty/fault-gzipped")).body


@pytest.mark.parametrize("fault", ["close_delimited", "informational", "then_close"])
def test_odd_but_whole_replies_are_replies(gateway: Gateway, fault: str):
    assert b"hello" in gateway.ask(request(f"faulty/fault-{fault}")).body


# -- after the first meaningful event ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    "fault",
    [
        "rst_midstream",
        "cut_midstream",
        "cut_mid_event",
        "clean_end_without_finish",
        "stall_midstream",
        "error_midstream",
    ],
)
def test_a_stream_that_breaks_says_so_and_never_ends_well(gateway: Gateway, fault: str, path: str):
    name = f"broke-{fault}-{len(path)}"
    began = time.monotonic()
    with gateway.connect() as client:
        client.send(request(f"faulty/fault-{fault}", stream=True, path=path, headers=(f"X-Request-ID: {name}",)))
        _, body = broken(client)
    assert time.monotonic() - began < (2.2 if fault.startswith("stall") else 1.0)
    assert text(body) == ("One two" if fault == "cut_mid_event" else "One two three")
    assert b"[DONE]" not in body
    assert b"message_stop" not in body
    last = body.rstrip().split(b"\n\n")[-1]
    if path == CHAT:
        assert json.loads(last.removeprefix(b"data: "))["error"]["message"]
    else:
        assert names(body)[-1] == "error"
    row = gateway.row(name)
    assert row["outcome"] != "client_closed_request"
    assert (row["estimated"], row["status"]) == (True, 200)
    assert row["output"] > 0


def test_a_model_that_could_not_finish_is_a_failure_for_a_client_of_messages(gateway: Gateway, scripted: Scripted):
    """DeepSeek's word for it. What the provider was paid for it stands in the row, and no such answer closes it to others."""

    def play(upstream: Peer) -> None:
        if upstream.reply().json().get("stream"):
            end = FINISH.replace(b'"stop"', b'"insufficient_system_resource"') + DONE
            upstream.send(STREAM_HEAD, event("It is"))
            time.sleep(0.05)  # what comes together with a failure before anything went on is no stream yet
            upstream.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        else:
            upstream.send(completion("hell").replace(b'"hell"', b'"hel"').replace(b'"finish_reason": "stop"', b'"finish_reason": "abort"'))

    scripted.play = play
    for at in range(7):
        reply = gateway.ask(request("scripted/m", path=MESSAGES, headers=(f"X-Request-ID: unfinished-{at}",)))
        assert (reply.status, reply.json()["error"]["type"]) == (502, "api_error")
    row = gateway.row("unfinished-0")
    assert "input" not in row
    assert [(one["outcome"], one["input"], one["output"]) for one in row["attempts"]] == [("model_failed", 5, 1)]
    with gateway.connect() as client:
        client.send(request("scripted/m", stream=True, path=MESSAGES, headers=("X-Request-ID: unfinished-stream",)))
        _, body = broken(client)
    assert text(body) == "It is"
    assert names(body)[-1] == "error"
    assert "message_stop" not in names(body)
    assert gateway.row("unfinished-stream")["outcome"] == "model_failed"


def test_a_stream_cut_behind_its_finish_reason_is_whole(gateway: Gateway, scripted: Scripted):
    def play(upstream: Peer) -> None:
        upstream.reply()
        upstream.send(STREAM_HEAD, event("all of it"), b"%x\r\n%b\r\n" % (len(FINISH), FINISH))
        time.sleep(0.05)

    scripted.play = play
    with gateway.connect() as client:
        client.send(request("scripted/m", stream=True))
        assert client.reply().body.endswith(FINISH + DONE)


def test_an_anthropic_stream_passes_untouched_and_breaks_in_its_own_words(gateway: Gateway, scripted: Scripted):
    def said(name: str, **fields: Any) -> bytes:
        data = b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name, **fields}).encode())
        return b"%x\r\n%b\r\n" % (len(data), data)

    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "c",
        "usage": {"input_tokens": 9, "output_tokens": 1},
    }
    begin = [said("message_start", message=message), said("content_block_start", index=0, content_block={"type": "text", "text": ""}),
             said("content_block_delta", index=0, delta={"type": "text_delta", "text": "One two three"})]  # fmt: skip
    end = [
        said("content_block_stop", index=0),
        said("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
        said("message_stop"),
    ]

    def play(upstream: Peer) -> None:
        whole = upstream.reply().json()["max_tokens"] == 64
        upstream.send(STREAM_HEAD, *begin)
        if whole:
            upstream.send(*end, b"0\r\n\r\n")
        time.sleep(0.05)

    scripted.play = play
    for path in (MESSAGES, CHAT):
        with gateway.connect() as client:
            client.send(request("claude/c", stream=True, path=path, max_tokens=64))
            good = client.reply().body
            client.send(request("claude/c", stream=True, path=path, max_tokens=65))
            _, bad = broken(client)
        assert text(good) == text(bad) == "One two three"
        if path == MESSAGES:
            assert names(good)[-1] == "message_stop"
            assert names(bad)[-1] == "error"
        else:
            assert good.endswith(DONE)
            assert b'"error"' in bad
            assert b"[DONE]" not in bad


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_one_byte_a_write_is_the_same_stream(gateway: Gateway, path: str):
    whole = gateway.ask(request("faulty/fault-ok", stream=True, path=path)).body
    dripped = gateway.ask(request("faulty/fault-slow_bytes:0.0001", stream=True, path=path)).body
    if path == CHAT:
        assert dripped.replace(b": \n\n", b"") == whole  # a slow machine's client is kept awake between two events
    assert text(dripped) == text(whole) == "One two three"


def test_an_endless_event_is_passed_on_in_pieces_and_can_only_be_cut_off(gateway: Gateway):
    before = gateway.rss()
    with gateway.connect() as client:
        client.send(request("faulty/fault-endless_line:40", stream=True))
        _, body = broken(client)
    assert len(body) == 6 + (40 << 20)
    assert body.endswith(b"x" * 1000)  # no error event inside an event
    assert gateway.rss() - before < 50 << 20


def test_an_endless_event_that_would_have_to_be_held_is_an_error(gateway: Gateway):
    before = gateway.rss()
    with gateway.connect() as client:
        client.send(request("faulty/fault-endless_line:40", stream=True, path=MESSAGES))
        assert client.reply().status == 502
    assert gateway.rss() - before < 70 << 20


# -- heartbeats and limits -----------------------------------------------------------------------------------------------


def test_a_silent_stream_is_kept_awake_between_events_only_after_silence(gateway: Gateway, scripted: Scripted):
    def play(upstream: Peer) -> None:
        upstream.reply()
        one = event("One")
        upstream.send(STREAM_HEAD, one[: len(one) // 2])
        time.sleep(0.75)  # inside the first event: nothing meaningful yet, but the upstream's 200 is there
        upstream.send(one[len(one) // 2 :])
        time.sleep(0.7)
        upstream.send(STREAM_END)

    scripted.play = play
    for path, beat in ((CHAT, b": \n\n"), (MESSAGES, b"event: ping")):
        with gateway.connect() as client:
            client.send(request("scripted/m", stream=True, path=path))
            began = time.monotonic()
            client.until(b"\r\n\r\n")
            assert time.monotonic() - began > 0.35  # not at the clock's first tick
            body = client.chunks()
        assert body.count(beat) >= 2
        assert text(body) == "One"
        if path == CHAT:
            assert body.replace(b": \n\n", b"").startswith(b'data: {"id"')


def test_a_quick_stream_hears_no_heartbeat_and_no_plain_reply_ever_does(gateway: Gateway):
    assert b": \n\n" not in gateway.ask(request("faulty/fault-ok:0.1", stream=True)).body
    with gateway.connect() as client:
        client.send(request("faulty/fault-stall"))
        assert client.silent(0.7)
        assert client.reply().status == 504


@pytest.mark.parametrize(
    ("model", "stream", "code", "seconds"),
    [
        ("faulty/fault-stall", False, "timeout", 1.0), ("faulty/fault-stall", True, "first_chunk_timeout", 1.0),
        ("brief", False, "request_timeout", 0.6),
    ],
)  # fmt: skip
def test_every_time_limit_ends_in_504(gateway: Gateway, upstreams: Upstreams, model, stream, code, seconds):
    upstreams.faulty.gone.clear()
    began = time.monotonic()
    reply = gateway.ask(request(model, stream=stream))
    assert (reply.status, reply.json()["error"]["code"]) == (504, code)
    assert seconds <= time.monotonic() - began < seconds + 0.8
    eventually(upstreams.faulty.gone.is_set, 1.0)


def test_a_client_may_ask_for_less_time(gateway: Gateway):
    began = time.monotonic()
    assert gateway.ask(request("faulty/fault-stall", headers=("x-gateway-timeout: 0.3",))).status == 504
    assert time.monotonic() - began < 1.0
    for wrong in ("0", "-1", "nan", "inf", "soon", "1e9"):
        reply = gateway.ask(request("faulty/m", headers=(f"x-gateway-timeout: {wrong}",)))
        assert (reply.status, reply.json()["error"]["param"]) == (400, "x-gateway-timeout")


# -- the books -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_good_reply_has_one_row_with_the_upstreams_own_usage(gateway: Gateway, scripted: Scripted, stream: bool):
    usage = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}\n\n'

    def play(upstream: Peer) -> None:
        if upstream.reply().json()["stream"]:
            tail = FINISH + usage + DONE
            upstream.send(STREAM_HEAD, event("One"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail))
        else:
            upstream.send(completion())

    scripted.play = play
    with gateway.connect() as client:
        client.send(request("scripted/m", stream=stream, headers=(f"X-Request-ID: good-{stream}",)))
        reply = client.reply()
        # The row is there when the client has the whole reply, not some time later.
        found = [row for row in gateway.rows() if row["request_id"] == f"good-{stream}"]
    assert reply.status == 200
    assert b'"completion_tokens":3' not in reply.body  # it did not ask
    assert [(row["input"], row["output"]) for row in found] == [(7, 3) if stream else (5, 1)]
    assert "estimated" not in found[0]
    assert "outcome" not in found[0]  # the default: ok


def test_no_row_is_ever_written_twice(gateway: Gateway):
    seen = [row["id"] for row in gateway.rows()]
    assert len(seen) == len(set(seen)) > 0


def test_a_second_provider_gets_the_same_messages(gateway: Gateway, upstreams: Upstreams):
    before = len(upstreams.faulty.received)
    gateway.ask(request("then-good/status:500", unknown_field={"kept": [1, 2]}))
    first, second = (each.json() for each in upstreams.faulty.received[before:])
    assert (first.pop("model"), second.pop("model")) == ("fault-status:500", "good")
    assert first == second
    assert second["unknown_field"] == {"kept": [1, 2]}
