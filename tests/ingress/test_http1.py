"""Conversations with one connection: order, keep-alive, expectations, versions, methods, refusals before the body."""

from __future__ import annotations

import socket
import time

import pytest

from ingress.gateway import KEY, Gateway, Peer, Scripted, Upstreams, completion, event, eventually, request

AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


def plain(
    body: bytes = b"",
    *lines: bytes,
    method: bytes = b"POST",
    path: bytes = b"/v1/chat/completions",
    version: bytes = b"1.1",
) -> bytes:
    head = b"%b %b HTTP/%b\r\nHost: a\r\n%b" % (method, path, version, b"".join(line + b"\r\n" for line in lines))
    return head + b"\r\n" + body


# -- order ---------------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(gateway: Gateway):
    asked = [request("good", headers=(f"X-Request-ID: r{n}",)) for n in range(5)]
    with gateway.connect() as client:
        client.send(b"".join(asked))
        assert [client.reply().headers["x-request-id"] for _ in asked] == [f"r{n}" for n in range(5)]


def test_a_bad_second_request_is_answered_after_the_slow_first(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("faulty/fault-ok:0.05", stream=True) + b"NONSENSE\r\n\r\n")
        assert b"[DONE]" in client.reply().body
        assert client.reply().status == 400
        assert client.all() == b""


def test_a_refused_second_request_keeps_the_connection_for_the_third(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("good"), plain(b"xy", b"Content-Length: 2", path=b"/v1/nothing"), request("good"))
        assert [client.reply().status for _ in range(3)] == [200, 404, 200]


def test_a_seventeenth_waiting_request_closes_the_connection(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("faulty/fault-stall:1") + HEALTH * 16)
        assert client.silent(0.2)
    with gateway.connect() as client:
        client.send(request("faulty/fault-stall:1") + HEALTH * 18)
        assert client.gone()


def test_a_stream_waits_until_the_reply_before_it_is_read(gateway: Gateway, scripted: Scripted):
    """Else it would begin with a client that had said `pause` before it could hear it: unbounded memory."""
    sent = []

    def play(upstream: Peer) -> None:
        asked = upstream.reply().json()
        if not asked["stream"]:
            upstream.send(completion("x" * (8 << 20)))
            return
        sent.append(0)
        upstream.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(200):
            upstream.send(event("y" * 60_000))
            sent[0] += 60_000

    scripted.play = play
    before = gateway.rss()
    with gateway.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(request("scripted/m"), request("scripted/m", stream=True))
        time.sleep(0.4)
        assert sent == []
    assert gateway.rss() - before < 60 << 20


# -- keep-alive and versions ---------------------------------------------------------------------------------------------


def test_keep_alive_is_the_default_and_close_is_kept(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("good"))
        assert "connection" not in client.reply().headers
        client.send(request("good", headers=("Connection: close",)))
        assert client.reply().headers["connection"] == "close"
        assert client.all() == b""


def test_http10_gets_one_reply_and_the_end(gateway: Gateway):
    for more in ((), ("Connection: keep-alive",)):
        with gateway.connect() as client:
            client.send(request("good", version="1.0", headers=more))
            reply = client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert client.all() == b""


def test_an_http10_stream_has_no_chunks_and_ends_by_close(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("good", version="1.0", stream=True))
        head = client.until(b"\r\n\r\n").lower()
        assert b"transfer-encoding" not in head
        assert b"content-length" not in head
        body = client.all()
        assert body.startswith(b"data: {")
        assert body.endswith(b"data: [DONE]\n\n")


def test_a_broken_http10_stream_ends_by_reset(gateway: Gateway):
    with gateway.connect() as client:
        client.send(request("faulty/fault-cut_midstream", version="1.0", stream=True))
        with pytest.raises(ConnectionResetError):
            client.all()


# -- methods -------------------------------------------------------------------------------------------------------------


def test_head_gets_the_head_of_get(gateway: Gateway):
    with gateway.connect() as client:
        client.send(HEALTH.replace(b"GET", b"HEAD") + HEALTH)
        head, get = client.reply(bodiless=True), client.reply()
        assert head.status == get.status == 200
        assert head.headers["content-length"] == get.headers["content-length"] != "0"


@pytest.mark.parametrize(
    ("method", "path", "status", "shape"),
    [
        (b"GET", b"/v1/chat/completions", 405, "openai"), (b"GET", b"/v1/messages", 405, "anthropic"), (b"HEAD", b"/v1/messages", 405, ""),
        (b"DELETE", b"/v1/models", 405, "openai"), (b"GET", b"/", 404, "openai"), (b"POST", b"/v1/messages/x", 404, "anthropic"),
        (b"POST", b"/v1/chat/completions/", 404, "openai"), (b"GET", b"/v1/models/%zz", 404, "openai"), (b"GET", b"//health", 404, "openai"),
        (b"GET", b"/v1/../health", 404, "openai"),
    ],
)  # fmt: skip
def test_unknown_paths_and_methods_are_refused_in_the_shape_of_their_api(gateway: Gateway, method, path, status, shape):
    with gateway.connect() as client:
        client.send(plain(b"", AUTH.strip(), method=method, path=path))
        reply = client.reply(bodiless=method == b"HEAD")
        assert reply.status == status
        assert ("allow" in reply.headers) == (status == 405)
        if shape:
            assert (reply.json().get("type") == "error") == (shape == "anthropic")
        client.send(HEALTH)
        assert client.reply().status == 200


def test_options_is_a_preflight_without_a_key(gateway: Gateway):
    asked = (
        b"Origin: https://app.example",
        b"Access-Control-Request-Method: POST",
        b"Access-Control-Request-Headers: authorization",
    )
    with gateway.connect() as client:
        client.send(plain(b"", *asked, method=b"OPTIONS"))
        reply = client.reply()
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert reply.headers["access-control-allow-headers"] == "authorization"
        assert "content-length" not in reply.headers  # RFC 9110 section 8.6
        client.send(plain(b"", b"Origin: https://evil.example", method=b"OPTIONS"))
        assert "access-control-allow-origin" not in client.reply().headers
        client.send(plain(b"", method=b"OPTIONS", path=b"*"))
        assert client.reply().status == 204


def test_a_refusal_to_a_browser_says_cors_too(gateway: Gateway):
    reply = gateway.ask(plain(b"", b"Origin: https://app.example", b"Content-Length: 0"))
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (401, "https://app.example")


# -- before the body -----------------------------------------------------------------------------------------------------


def test_100_continue_comes_once_the_head_is_accepted(gateway: Gateway):
    head, _, body = request("good", headers=("Expect: 100-continue",)).partition(b"\r\n\r\n")
    with gateway.connect() as client:
        client.send(head + b"\r\n\r\n")
        assert client.reply().status == 100
        assert client.silent(0.05)
        client.send(body)
        assert client.reply().status == 200


def test_100_continue_of_a_second_request_comes_after_the_first_reply(gateway: Gateway):
    head, _, body = request("good", headers=("Expect: 100-continue",)).partition(b"\r\n\r\n")
    with gateway.connect() as client:
        client.send(request("faulty/fault-ok:0.02", stream=True) + head + b"\r\n\r\n")
        assert client.reply().status == 200
        assert client.reply().status == 100
        client.send(body)
        assert client.reply().status == 200


def test_http10_is_never_told_to_continue(gateway: Gateway):
    assert gateway.ask(request("good", version="1.0", headers=("Expect: 100-continue",))).status == 200


@pytest.mark.parametrize(
    ("status", "lines", "path"),
    [
        (401, (b"Content-Length: 5",), b"/v1/chat/completions"), (401, (b"Authorization: Bearer wrong", b"Content-Length: 5"), b"/v1/messages"),
        (404, (AUTH.strip(), b"Content-Length: 5"), b"/v1/nothing"), (413, (AUTH.strip(), b"Content-Length: 99999999"), b"/v1/messages"),
        (401, (b"Transfer-Encoding: chunked",), b"/v1/messages"),
    ],
)  # fmt: skip
def test_a_head_is_refused_before_any_body(gateway: Gateway, upstreams: Upstreams, status, lines, path):
    before = len(upstreams.faulty.received)
    with gateway.connect() as client:
        client.send(plain(b"", *lines, b"Expect: 100-continue", path=path))
        assert client.reply().status == status
        assert client.all() == b""
    assert len(upstreams.faulty.received) == before


def test_a_small_refused_body_is_read_away_and_the_connection_stays(gateway: Gateway):
    with gateway.connect() as client:
        client.send(plain(b"", b"Content-Length: 60000"))
        assert client.reply().status == 401
        client.send(b"{" * 60000, request("good"))
        assert client.reply().status == 200


def test_the_413_can_be_read_by_a_client_that_is_still_sending(gateway: Gateway):
    with gateway.connect() as client:
        client.send(plain(b"", AUTH.strip(), b"Content-Length: 30000000"))
        client.send(*[b"x" * 1_000_000] * 30)
        assert client.reply().status == 413
        assert client.all() == b""


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(gateway: Gateway):
    with gateway.connect() as client:
        client.send(plain(b"", AUTH.strip(), b"Transfer-Encoding: chunked"))
        client.send(*[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 20)
        assert client.reply().status == 413
        assert client.all() == b""


def test_duplicate_members_reach_the_upstream_once(gateway: Gateway, upstreams: Upstreams):
    body = b'{"model":"faulty/other","messages":[{"role":"user","content":"hi"}],"model":"good","user":"a","user":"b"}'
    before = len(upstreams.faulty.received)
    assert gateway.ask(plain(body, AUTH.strip(), b"Content-Length: %d" % len(body))).status == 200
    sent = upstreams.faulty.received[before].body
    assert sent.count(b'"model":') == sent.count(b'"user":') == 1
    assert b'"b"' in sent


def test_nothing_raw_is_forwarded(gateway: Gateway, upstreams: Upstreams):
    lines = (
        "Cookie: a=b",
        "X-Api-Key: k",
        "Connection: x-hop",
        "X-Hop: 1",
        "X-Forwarded-For: 9.9.9.9",
        "X-Own: 1",
        "TE: trailers",
    )
    before = len(upstreams.faulty.received)
    gateway.ask(request("good", headers=lines))
    received = upstreams.faulty.received[before]
    names = {name.lower() for name, _ in received.headers}
    assert names <= {
        "host",
        "content-type",
        "accept-encoding",
        "content-length",
        "authorization",
        "user-agent",
        "accept",
    }
    assert received.header("authorization") == "Bearer sk-upstream"


# -- leaving -------------------------------------------------------------------------------------------------------------


def test_a_half_close_is_taken_for_leaving(gateway: Gateway, upstreams: Upstreams):
    """Documented: no SDK half-closes, and an upstream must not generate for nobody."""
    with gateway.connect() as client:
        client.send(request("faulty/fault-stall", headers=("X-Request-ID: half",)))
        time.sleep(0.1)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.all() == b""
    assert gateway.row("half")["status"] == 499


def test_a_served_connection_leaves_nothing_behind(gateway: Gateway):
    gateway.ask(request("good"))
    before = gateway.descriptors()
    for _ in range(20):
        gateway.ask(request("good"))
        gateway.ask(b"NONSENSE\r\n\r\n")
    eventually(lambda: gateway.descriptors() <= before + 1)
